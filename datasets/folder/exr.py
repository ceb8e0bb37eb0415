"""Depth in OpenEXR files, which renderers write; their reader is an optional package."""

from pathlib import Path

import numpy as np

# Name of the channel that holds depth, if there are several.
DEPTH = "Z"


def load(path: Path) -> np.ndarray:
    """Returns the single channel [H, W] of a file, or that of depth.

    Raises:
      ValueError: in one line, for a file that can't be read or has other channels, and without the
        package.
    """
    try:
        import OpenEXR  # pyrefly: ignore[missing-import]
    except ImportError as error:
        raise ValueError(
            f"{path} is an OpenEXR file, for which OpenEXR must be installed ({error}): run pip "
            "install -e '.[exr]' in the clone"
        ) from error
    try:
        with OpenEXR.File(str(path), separate_channels=True) as file:
            channels = {name: channel.pixels for name, channel in file.channels().items()}
    # Decoders of broken files raise errors of any kind.
    except Exception as error:
        raise ValueError(
            f"{path} can't be read as OpenEXR: it is damaged or of another format"
        ) from error
    if len(channels) > 1 and DEPTH not in channels:
        raise ValueError(
            f"{path} has the channels {', '.join(channels)}, where depth is a single one or {DEPTH}"
        )
    (found,) = channels.values() if len(channels) == 1 else (channels[DEPTH],)
    return found
