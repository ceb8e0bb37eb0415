"""The weightings as optax transformations: arguments that are refused, in one line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.weighting import (
    METHODS,
    combine_tasks,
)
from tests.weighting.trees import NEED_MORE, PARAMS


@pytest.mark.parametrize("name", NEED_MORE)
def test_what_needs_more_is_refused(name):
    with pytest.raises(ValueError, match="this weighting needs more.*call its `update`"):
        combine_tasks(METHODS[name](), num_tasks=3)
    with pytest.raises(ValueError, match=f"^{name} needs more than"):
        combine_tasks(name, num_tasks=3)


@pytest.mark.parametrize(
    ("heads", "complaint"),
    [
        ({"layers": [True, True]}, "leaves no parameter that the tasks share"),
        ({"layers": [0, 1]}, "pytree of booleans.*got a leaf int 0"),
        ({"heads": True}, "pytree of booleans like the parameters.*got the structure"),
    ],
)
def test_a_wrong_mask_is_refused(heads, complaint):
    with pytest.raises(ValueError, match=complaint):
        combine_tasks("equal", num_tasks=3, heads=heads).init(PARAMS)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"weighting": "nahs"}, "'nahs' is unknown: choose from equal, .*nash"),
        ({"weighting": "nash:norm=1"}, "nash has no option 'norm'"),
        ({"weighting": METHODS["nash"]}, r"call combine_tasks\(nash\(\), ...\)"),
        ({"weighting": None}, "got None"),
        ({"num_tasks": 0}, "at least one task"),
        ({"num_tasks": 2.0}, "`num_tasks` must be a whole number.*float 2.0"),
        ({"num_tasks": PARAMS}, "`num_tasks` must be a whole number.*dict"),
        ({"every": 0}, "`every` must be a whole number of at least 1, got int 0"),
        ({"every": 2.0}, "`every` must be a whole number of at least 1, got float 2.0"),
    ],
)
def test_bad_arguments(changes, complaint):
    given = {"weighting": "equal", "num_tasks": 3} | changes
    with pytest.raises(ValueError, match=complaint):
        combine_tasks(given.pop("weighting"), **given)


@pytest.mark.parametrize(
    ("params", "complaint"),
    [
        ({"a": jnp.ones(3, jnp.complex64)}, "floating-point array, got complex64"),
        ({"a": jax.nn.relu}, r"`params\['a'\]` must be a floating-point array"),
        ({"a": jnp.arange(3)}, "`params` holds no arrays"),
    ],
)
def test_bad_parameters(params, complaint):
    with pytest.raises(ValueError, match=complaint):
        combine_tasks("equal", num_tasks=3).init(params)


GRADIENTS = {"a": jnp.ones((3, 4)), "b": None}
BAD_UPDATES = {
    "no losses": ({"losses": None}, r"`losses` is missing.*update\(gradients, .*losses=losses\)"),
    "two losses": ({"losses": jnp.ones(2)}, r"`losses` must be float\[3\].*num_tasks=3.*\[2\]"),
    "a scalar": ({"losses": jnp.ones(())}, r"`losses` must be float\[3\].*got float32\[\]"),
    "a column": ({"losses": jnp.ones((3, 1))}, r"`losses` must be.*got float32\[3, 1\]"),
    "whole losses": ({"losses": jnp.arange(3)}, r"`losses` must be.*got int32\[3\]"),
    "a pair": ({"losses": (jnp.ones(3), {})}, r"no auxiliary.*got tuple of float32\[3\], dict"),
    "not stacked": ({"gradients": {"a": jnp.ones(4), "b": None}},
                    r"`gradients\['a'\]` must be float\[3, 4\].*got float32\[4\]"),
    "wrong axis": ({"gradients": {"a": jnp.ones((4, 3)), "b": None}},
                   r"`gradients\['a'\]` must be float\[3, 4\].*leading axis.*got float32\[4, 3\]"),
    "two gradients": ({"gradients": {"a": jnp.ones((2, 4)), "b": None}},
                      r"`gradients\['a'\]` must be float\[3, 4\].*got float32\[2, 4\]"),
    "no parameters": ({"gradients": {"a": jnp.ones((2, 4)), "b": None}, "params": None},
                      r"`gradients\['a'\]` must be float\[3, ...\].*got float32\[2, 4\]"),
    "no gradients": ({"gradients": {}}, "`gradients` holds no arrays"),
    "one leaf more": ({"gradients": {"a": jnp.ones((3, 4)), "b": jnp.ones((3, 1))}},
                      r"like the `params`.*the leaves \['a'\]; got \['a'\], \['b'\]"),
    "other names": ({"gradients": {"c": jnp.ones((3, 4))}}, r"leaves \['a'\]; got \['c'\]"),
    "complex": ({"gradients": {"a": jnp.ones((3, 4), jnp.complex64), "b": None}}, "got complex64"),
    "combined": ({"combined": True}, r"one gradient.*got `gradients\['a'\]` float32\[3, 4\]"),
    "labels as numbers": ({"labelled": jnp.ones(3)}, r"`labelled` must be bool\[3\].*float32"),
    "one label": ({"labelled": jnp.array(True)}, r"`labelled` must be bool\[3\].*bool\[\]"),
    "no state": ({"state": ()}, "`state` must be the CombineTasksState"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_UPDATES)
def test_bad_arguments_of_update(case):
    tx = combine_tasks("equal", num_tasks=3)
    changes, complaint = BAD_UPDATES[case]
    params = {"a": jnp.ones(4), "b": None}
    given = {"gradients": GRADIENTS, "state": tx.init(params), "params": params}
    given |= {"losses": jnp.ones(3)} | changes
    first = [given.pop(name) for name in ("gradients", "state", "params")]
    with pytest.raises(ValueError, match=complaint) as raised:
        jax.eval_shape(lambda: tx.update(*first, **given))
    assert "\n" not in str(raised.value)


def test_lists_of_scalars_will_do():
    tx = combine_tasks("equal", num_tasks=3)
    state = tx.init({"a": jnp.ones(4), "b": None})
    losses = [1.0, np.float32(2.0), jnp.array(3.0, jnp.bfloat16)]
    found, _ = tx.update(GRADIENTS, state, losses=losses, labelled=[True, False, True])
    np.testing.assert_array_equal(found["a"], 2.0)
