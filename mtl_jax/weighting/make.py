"""Makes a weighting from its text: `nash`, `fairgrad:alpha=2`, `my_file.py:my_method:alpha=2`."""

import re
from collections.abc import Sequence
from typing import Any

from mtl_jax.weighting import options
from mtl_jax.weighting.check import describe
from mtl_jax.weighting.contract import Weighting
from mtl_jax.weighting.methods import METHODS

# Arguments of the methods that a training run supplies.
SUPPLIED = ("steps_per_epoch", "classification")


def make(
    text: str,
    *,
    steps_per_epoch: int | None = None,
    classification: Sequence[bool] | None = None,
) -> Weighting:
    """Makes the weighting that a text describes.

    The options are the keyword arguments of the method. `steps_per_epoch` and `classification` are
    passed to a method that has such an argument unless the text sets it. An option that is itself a
    weighting, as in `cr_mogm:method=fairgrad:alpha=1+max_norm=2,decay=0.5`, joins its options by
    plus signs.

    Args:
      text: `NAME` of `METHODS`, or `FILE.py:FUNCTION` or `MODULE:FUNCTION` for your own function
        that returns a Weighting; with options as `:key=value,key=value`.
      steps_per_epoch: training steps per epoch; None for the method's default.
      classification: one bool per task, whether it is a classification; None if that is not known.

    Raises:
      ValueError: for an unknown name, option or value, or a function that does not return a
        Weighting.
    """
    choice = parse(text)
    known = options.keywords(choice.factory)
    supplied: dict[str, Any] = {
        "steps_per_epoch": steps_per_epoch,
        "classification": classification,
    }
    passed = {key: value for key, value in supplied.items() if key in known and value is not None}
    chosen = {
        key: make(_inner(value), **supplied) if options.is_weighting(known[key]) else value
        for key, value in choice.options.items()
    }
    weighting = choice.factory(**passed | chosen)
    if not isinstance(weighting, Weighting):
        raise ValueError(
            f"{text!r}: {choice.name} must return a Weighting, as from_gram makes one, got "
            f"{describe(weighting)}"
        )
    return weighting


def _inner(text: str) -> str:
    """Returns the text of a weighting inside that of another, where commas are plus signs."""
    return re.sub(r"\+(?=[a-z]\w*=)", ",", text)


def parse(text: str) -> options.Choice:
    """Returns the choice of a weighting; `str` of it is the canonical text.

    Raises:
      ValueError: for an unknown name, option or value.
    """
    return options.parse(text, METHODS, supplied=SUPPLIED, own=True)
