"""Speed of an epoch."""

import time
from collections.abc import Callable
from typing import Any


class Pace:
    """Time of a run's epochs, and the images per second of their steps.

    All steps of an epoch count, because those that update the weights may cost more than the others
    and stand at the same places in every epoch. Only where a program is compiled, the steps up to
    that one are left out. A weighting that is not updated at every step has two programs.

    Args:
      batch_size: images per step, over all devices.
    """

    def __init__(self, batch_size: int):
        self.batch_size = batch_size
        self.programs: set[Callable[..., Any]] = set()
        self.begin()

    def begin(self) -> None:
        """Begins an epoch."""
        self.start = self.first = self.last = time.monotonic()
        self.before = self.steps = 0

    def compiles(self, program: Callable[..., Any]) -> bool:
        """Returns whether a program is called for the first time."""
        new = program not in self.programs
        self.programs.add(program)
        return new

    def count_from(self, step: int) -> None:
        """Counts the steps from this number on; all before have finished."""
        self.first, self.before = time.monotonic(), step

    def count_to(self, step: int) -> None:
        """Counts the steps before this number; all have finished."""
        self.last, self.steps = time.monotonic(), step - self.before

    def seconds(self) -> float:
        """Returns the time since the epoch was begun."""
        return time.monotonic() - self.start

    def report(self) -> dict[str, float | None]:
        """Returns `images_per_second` (None if no step counts)."""
        images, seconds = self.batch_size * self.steps, self.last - self.first
        return {"images_per_second": images / seconds if images else None}
