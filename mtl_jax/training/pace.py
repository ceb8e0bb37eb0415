"""Speed of an epoch."""

import time


class Pace:
    """Time taken by the steps of an epoch, and images per second without the first two of them.

    These two may include compilation: a weighting that is not updated at every step has two
    functions to compile.

    Args:
      batch_size: images per step, over all devices.
    """

    def __init__(self, batch_size: int):
        self.batch_size = batch_size
        self.start = time.monotonic()
        self.times: list[float] = []

    def tick(self) -> None:
        """Records that a step was handed to the device and the previous one has finished."""
        self.times.append(time.monotonic())

    def seconds(self) -> float:
        """Returns the time since the first of these steps was begun."""
        return time.monotonic() - self.start

    def report(self) -> dict[str, float | None]:
        """Returns `images_per_second` (None for fewer than three steps)."""
        images = self.batch_size * (len(self.times) - 2)
        return {
            "images_per_second": images / (self.times[-1] - self.times[1]) if images > 0 else None,
        }
