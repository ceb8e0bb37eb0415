"""Large images in parts, because numbers take several times as much memory on their way."""

from collections.abc import Iterator

MOST_PIXELS = 1 << 20


def bands(shape: tuple[int, ...]) -> Iterator[slice]:
    """Yields the rows of an image [H, W, ...] in parts of about `MOST_PIXELS` pixels."""
    rows = max(1, MOST_PIXELS // shape[1])
    return (slice(start, start + rows) for start in range(0, shape[0], rows))
