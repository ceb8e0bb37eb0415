"""Large images in parts, because intermediate arrays take several times their memory."""

from collections.abc import Iterator

MOST_PIXELS = 1 << 20


def bands(shape: tuple[int, ...]) -> Iterator[slice]:
    """Yields the rows of an image [H, W, ...] in parts of about `MOST_PIXELS` pixels."""
    rows = max(1, MOST_PIXELS // shape[1])
    return (slice(start, start + rows) for start in range(0, shape[0], rows))
