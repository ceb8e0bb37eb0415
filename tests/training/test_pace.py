"""The speed that an epoch reports, by a clock that the steps move."""

import numpy as np
import pytest
from tqdm import tqdm

from mtl_jax.training import loop, pace
from mtl_jax.training.step import Steps
from tests import tiny

BATCH = 4
COMPILATION, UPDATE, REUSE = 1000.0, 9.0, 1.0
SHOWN = {"losses": np.ones(3), "weights": np.ones(3), "skipped": 0}


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(pace.time, "monotonic", lambda: now[0])
    return now


def speeds(clock, *, start, epochs, per_epoch, weigh_every):
    """The images per second of each epoch of a run that begins, or is resumed, at a step."""

    def program(cost):
        compiled = []

        def step(state, batch):
            clock[0] += cost + COMPILATION * (not compiled)
            compiled.append(True)
            return state._replace(step=state.step + 1), SHOWN

        return step

    steps = Steps(program(UPDATE), program(REUSE), weigh_every)
    state = tiny.fresh_state("equal")._replace(step=start)
    kept, found = pace.Pace(BATCH), []
    for epoch in range(start // per_epoch + 1, epochs + 1):
        kept.begin()
        bar = tqdm(range(int(state.step), epoch * per_epoch), disable=True)
        state = loop.run_epoch(steps, state, bar, tiny.TASKS, kept, lambda number: False)
        found.append(kept.report()["images_per_second"])
    return found


def test_an_epoch_that_begins_with_the_only_update_counts_it(clock):
    first, second = speeds(clock, start=0, epochs=2, per_epoch=5, weigh_every=5)
    assert first == BATCH / REUSE  # without the two steps that compile
    assert second == 5 * BATCH / (UPDATE + 4 * REUSE)


def test_a_resumed_run_leaves_out_the_update_that_compiles_in_the_middle_of_an_epoch(clock):
    first, second = speeds(clock, start=6, epochs=3, per_epoch=5, weigh_every=3)
    # Of steps 6 to 9, the update 6 and the step 7 compile; 9 is an update, too.
    assert first == 2 * BATCH / (REUSE + UPDATE)
    assert second == 5 * BATCH / (UPDATE + 4 * REUSE)
    late, later = speeds(clock, start=7, epochs=3, per_epoch=5, weigh_every=4)
    # Step 7 compiles, and the update 8.
    assert late == BATCH / REUSE
    assert later == 5 * BATCH / (UPDATE + 4 * REUSE)


def test_an_epoch_in_which_every_step_compiles_has_no_speed(clock):
    assert speeds(clock, start=0, epochs=1, per_epoch=2, weigh_every=2) == [None]
    one, two = speeds(clock, start=0, epochs=2, per_epoch=1, weigh_every=1)
    assert (one, two) == (None, BATCH / UPDATE)
