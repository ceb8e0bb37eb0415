"""Writes docs/weightings.md from the docstrings of the methods and docs/properties.json.

python docs/weightings.py
"""

import inspect
import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mtl_jax.weighting import METHODS, TITLES, Weighting
from mtl_jax.weighting.options import keywords

INTRO = """\
# Weightings

Every method here answers one question: how much does each task count in a training step? The
methods are in `mtl_jax.weighting`, which imports nothing from the rest of the library, and each is
chosen by name:

```sh
python launch.py --dataset=rooms --weighting=nash
python launch.py --dataset=rooms --weighting=fairgrad:alpha=1
python launch.py --dataset=rooms --mode=sweep --weightings=equal,fairgrad:alpha=1,fairgrad:alpha=2
python launch.py --dataset=rooms --weighting=my_file.py:my_method:strength=0.5
```

Options are the method's keyword arguments, written `NAME:key=value,key=value`; one number per task
is written `1+2+1`, and one boolean per task `true+false+false`. A training run supplies
`steps_per_epoch` and `classification` to the methods that have them, unless you set them. In
Python, `mtl_jax.weighting.make` accepts the same text, and so does [`combine_tasks`](own_loop.md),
except for `famo`, `modo` and `sdmgrad`, which need the losses after the step or gradients on parts
of the batch. The last command uses your own method: `my_file.py` has a function
`my_method(strength)` that returns a `Weighting`, such as

```python
import jax.numpy as jnp
from mtl_jax.weighting import from_gram


def my_method(strength: float = 1.0):
    return from_gram(lambda gram: jnp.diagonal(gram) ** (-strength / 2))
```

## Terms

- **Task weight**: the factor w_i of task i's gradient. The shared parameters are updated along
  sum_i w_i g_i, where g_i is the gradient of the loss L_i of task i, and K is the number of tasks.
- **Shared parameters** and **heads**: the trunk of the network is shared by all tasks; each head
  belongs to one task, and only the loss of that task trains it. Methods differ in how they weight
  the heads. Below, "the same weights" means the weights of the shared parameters.
- **Gram matrix**: G, the K x K matrix of the inner products G_ij = g_i . g_j of the gradients of
  the shared parameters. Its diagonal has their squared lengths |g_i|^2; its other entries say how
  well tasks agree. Two tasks with G_ij < 0 **conflict**.
- **Participation**: a task without labels in a batch takes no part in that step. Its weight is 0,
  and nothing about it changes the weights of the others. The Gram matrix and K are then those
  of the tasks that take part.
- **Fallback**: a step in which the method has no answer, because a loss or a gradient is not
  finite, or its equation has no solution. The method reuses its last good weights, and the fallback
  is counted. A method that looks only at the losses gives weight 0 to a task whose loss is not
  finite. If the gradient of such a step is not finite, training skips the step.
- **Negative losses**: methods that use logarithms, inverses or ratios of the losses can't weigh a
  negative one. The task then takes no part in that step, as the diagnostic `negative_loss` says. In
  these methods a loss from 0 to 1e-6 counts as 1e-6, so that a weight 1 / L is at most a million.
  If your loss has another lower bound than 0, subtract it, which changes no gradient. If it has
  none, such as the negative logarithm of a density, choose a method whose section below does not
  mention negative losses: they accept any sign.

## Overview

The cost is the number of backward passes through the trunk in a step that updates the weights. With
`--weigh_every=10`, only every tenth step updates them; the others reuse the last weights and cost
one backward pass. With `--gradients=features`, methods by the Gram matrix (except `modo` and
`sdmgrad`) need one backward pass at every step: they look at the gradients of the trunk's output
instead of those of its parameters.
"""

OUTRO = """\
## Not included

- SAMO, FS-MTL and SAM-GS add a sharpness step around a weighting. They are optimizers, and need a
  second gradient at perturbed parameters.
- COSMOS gives the preference to the network itself as an input.
- Krum and TrimmedMean protect against faulty senders of gradients; tasks are not faulty.
- MOML, FORUM and Auto-Lambda are bilevel methods, which train on gradients of gradients.
"""

GROUPS = {
    "losses": "By the losses",
    "gram": "By the Gram matrix",
    "gradients": "By the gradients themselves",
}

PROPERTIES = """\
## Properties

The table shows properties of the methods with their default options, found by experiments on 600
random sequences of losses and gradients of three and five tasks, which differ in scale and agree or
conflict. *Yes* means that no sequence contradicted the property, which is not a proof, and *no*
that at least one did. `python docs/properties.py` repeats the experiments. [When it
helps](when_it_helps.md) shows how to see which of the properties your tasks need.

- **No conflict**: the combined gradient has no negative inner product with the gradient of a task,
  so that a small step along it increases no loss of this batch. Adam's steps do not follow the
  gradient exactly, and another batch has other gradients.
- **Any unit**: if the loss of a task is multiplied by a constant, such as 100 for centimetres in
  place of metres, the combined gradient stays the same; with *direction* only its length changes.
- **Linear**: the combined gradient is a linear function of such constants: a loss that is ten times
  as large counts ten times as much. A method with neither of these two properties reacts in its own
  way, or with a delay.
- **w >= 0**: no task has a negative weight.
- **Weights**: the combined gradient is a weighted sum of the tasks' gradients of this step; *no*
  means that it is computed entry by entry, or from earlier gradients.
- **Reads**: whether losses, gradients or both affect the weights.
- **State**: the numbers that the method keeps for three tasks, and the copies of the shared
  parameters.
- **Heads**: with *own*, each head follows its own loss, with weight one; with *log*, it follows the
  logarithm of its loss; with *weighted*, the heads use weights, as the method's section says.
- **ms**: milliseconds that the method adds to a step of `equal`, with three gradients of a million
  parameters each, on a CPU: for the Gram matrix and the weights, not for the passes of the
  network, which are in the table above. They grow with the number of parameters, and only rough
  comparisons carry over to other machines.
"""


class Method(NamedTuple):
    """The parts of a method's section.

    Attributes:
      name: name on the command line.
      title: name in the literature.
      name_in_full: first words of the docstring.
      summary: the rest of its first line.
      body: paragraphs and formulas.
      source: paper, venue and year.
      heads: rule for the weights of the heads.
      options: (name, default, description) of each.
      weighting: the method with its defaults.
    """

    name: str
    title: str
    name_in_full: str
    summary: str
    body: str
    source: str
    heads: str
    options: list[tuple[str, str, str]]
    weighting: Weighting


def read(name: str) -> Method:
    """Returns the parts of a method's docstring.

    Raises:
      ValueError: for a docstring without a formula, a source, a rule for the heads, or a
        description of an option.
    """
    text = inspect.getdoc(METHODS[name]) or ""
    main, *rest = re.split(r"\n\n(Args|Returns|Raises):\n", text)
    arguments = dict(zip(rest[::2], rest[1::2], strict=True)).get("Args", "")
    found = re.fullmatch(r"(.*?): (.*?)\n\n(.*)\n\nSource: (.*)\nHeads: (.*)", main, re.DOTALL)
    if found is None or not re.search(r"^ {4}\S", found[3], re.MULTILINE):
        raise ValueError(f"{name}: the docstring needs a formula and the lines Source: and Heads:")
    name_in_full, summary, body, source, heads = found.groups()
    return Method(
        name=name,
        title=TITLES[name],
        name_in_full=name_in_full,
        summary=summary,
        body=body,
        source=unwrap(source),
        heads=unwrap(heads),
        options=list(read_options(name, arguments)),
        weighting=METHODS[name](),
    )


def read_options(name: str, arguments: str) -> Iterator[tuple[str, str, str]]:
    """Yields (name, default, description) of each keyword of a method."""
    entries = re.split(r"^  (\w+): ", arguments, flags=re.MULTILINE)[1:]
    described = dict(zip(entries[::2], map(unwrap, entries[1::2]), strict=True))
    for key, parameter in keywords(METHODS[name]).items():
        if key not in described:
            raise ValueError(f"{name}: the docstring does not describe {key}")
        yield key, f"{parameter.default}".removesuffix(".0"), described[key]


def unwrap(text: str) -> str:
    """Returns a paragraph in one line."""
    return " ".join(text.split())


def cost(weighting: Weighting) -> str:
    """Returns the cost of a method per update, for the table."""
    passes = "1" if weighting.needs == "losses" else "K"
    if weighting.needs_cross:
        passes = "K on each third of the batch"
    return passes + (" + 1 forward pass" if weighting.follow_up is not None else "")


def section(method: Method) -> str:
    """Returns a method's section of the page."""
    first_line = f"{method.name_in_full}: {method.summary}"
    if method.name_in_full == method.title:
        first_line = method.summary[0].upper() + method.summary[1:]
    blocks = [f"### {method.title}, `{method.name}`", first_line]
    for block in method.body.split("\n\n"):
        if block.startswith("    "):
            blocks.append(f"```text\n{textwrap.dedent(block)}\n```")
        else:
            blocks.append(block)
    facts = [f"- Source: {method.source}", f"- Heads: {method.heads}"]
    facts.append(f"- Cost: {cost_in_words(method.weighting)}")
    facts += [f"- `{key}` (default {default}): {text}" for key, default, text in method.options]
    return "\n\n".join([*blocks, "\n".join(facts)])


def cost_in_words(weighting: Weighting) -> str:
    """Returns the cost of a method, as a sentence."""
    if weighting.follow_up is not None:
        return "one backward pass per step, and one forward pass after it."
    if weighting.needs == "losses":
        return "one backward pass per step."
    if weighting.needs_cross:
        return "K backward passes on each third of the batch per update."
    if weighting.needs == "gradients":
        return "K backward passes per update; the K gradients are held in memory."
    return "K backward passes per update."


def table(methods: list[Method]) -> str:
    """Returns the overview."""
    lines = ["| `--weighting` | method | looks at | cost | options |", "|---|---|---|---|---|"]
    looks_at = {"losses": "losses", "gram": "Gram matrix", "gradients": "gradients"}
    for method in methods:
        options = ", ".join(f"`{key}`" for key, _, _ in method.options)
        lines.append(
            f"| `{method.name}` | {method.title}: {method.summary.rstrip('.')} | "
            f"{looks_at[method.weighting.needs]} | {cost(method.weighting)} | {options} |"
        )
    return "\n".join(lines)


def properties(methods: list[Method]) -> str:
    """Returns the table of properties.

    Raises:
      ValueError: for a method whose properties have not been computed.
    """
    table = json.loads((Path(__file__).parent / "properties.json").read_text(encoding="utf-8"))
    if missing := {method.name for method in methods} - table.keys():
        raise ValueError(f"no properties of {', '.join(sorted(missing))}: docs/properties.py")
    columns = "no conflict | any unit | linear | w >= 0 | weights | reads | state | heads | ms"
    lines = [f"| method | {columns} | source |", f"|---{'|:-:' * 8}|--:|---|"]
    for method in methods:
        cells = [f"[`{method.name}`](#{anchor(method)})", *row(table[method.name], method.heads)]
        lines.append(f"| {' | '.join(cells)} | {short_source(method.source)} |")
    return "\n".join(lines)


def row(found: dict[str, Any], heads: str) -> list[str]:
    """Returns the cells of a method's properties."""
    in_any_unit = yes(found["same_in_any_unit"])
    if not found["same_in_any_unit"] and found["same_direction_in_any_unit"]:
        in_any_unit = "direction"
    reads = ["losses"] * (not found["ignores_losses"]) + ["gradients"] * found["reads_gradients"]
    numbers, gradients = found["state"]["numbers"], found["state"]["gradients"]
    state = [f"{numbers}"] * (numbers > 0) + [f"{gradients} copies"] * (gradients > 0)
    return [
        yes(found["conflicts_with_no_task"]),
        in_any_unit,
        yes(found["linear_in_scale"]),
        yes(found["weights_not_negative"]) if found["weighs_gradients"] else "",
        yes(found["weighs_gradients"]),
        " and ".join(reads) or "neither",
        " + ".join(state) or "none",
        next(word for start, word in HEADS.items() if heads.startswith(start)),
        f"{found['milliseconds']}",
    ]


# First words of a rule for the heads -> its name in the table.
HEADS = {"follow their own": "own", "follow the log": "log", "use": "weighted"}


def yes(holds: bool) -> str:
    """Returns the word for a property in the table."""
    return "yes" if holds else "no"


def anchor(method: Method) -> str:
    """Returns the anchor of a method's section."""
    heading = f"{method.title}, {method.name}".lower()
    return re.sub(r"[^\w -]", "", heading).replace(" ", "-")


def short_source(source: str) -> str:
    """Returns authors, venue and year of the first paper, without its title."""
    found = re.match(r".*?\b\d{4}\b", re.sub(r', ".*?"', "", source))
    return found[0] if found else source.rstrip(".")


def page() -> str:
    """Returns the whole page."""
    methods = [read(name) for name in METHODS]
    parts = [INTRO.rstrip(), table(methods), PROPERTIES.rstrip(), properties(methods)]
    for needs, heading in GROUPS.items():
        parts.append(f"## {heading}")
        parts += [section(method) for method in methods if method.weighting.needs == needs]
    return "\n\n".join([*parts, OUTRO])


def write() -> None:
    """Writes the page."""
    (Path(__file__).parent / "weightings.md").write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    write()
