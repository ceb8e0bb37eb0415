"""Made-up files of Cityscapes in its two layouts, all frames alike."""

import json
import os

import numpy as np
from PIL import Image

COUNTS = {"train": 4, "test": 2}
FOLDERS = {"train": "train", "test": "val"}
HEIGHT, WIDTH = 32, 64
FOCAL, BASELINE, SHIFT = 80.0, 0.5, 8  # a wall at 5 metres
CAMERA = {
    "extrinsic": {
        "baseline": BASELINE, "pitch": 0.04, "roll": 0, "x": 1.7, "y": 0.1, "yaw": 0, "z": 1.2
    },
    "intrinsic": {"fx": FOCAL, "fy": FOCAL, "u0": (WIDTH - 1) / 2, "v0": (HEIGHT - 1) / 2},
}  # fmt: skip
# One column each of a few ids; the others are road.
IDS = {0: 0, 1: 1, 2: 2, 3: 3, 4: 9, 5: 11, 6: 18, 7: 23, 8: 25, 9: 29, 10: 33, 11: 255}
ROAD = 7


def stored_disparity():
    """Rows that are unknown, infinitely far away, at 160 m and at 80 m, above the wall."""
    disparity = np.full((HEIGHT, WIDTH), 256 * SHIFT + 1, np.uint16)
    disparity[0], disparity[1], disparity[2], disparity[3] = 0, 1, 256 // 4 + 1, 256 // 2 + 1
    return disparity


def frame_arrays():
    """What the PNG files of a frame hold, by folder and ending."""
    wall = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH + SHIFT, 3), np.uint8)
    ids = np.full((HEIGHT, WIDTH), ROAD, np.uint8)
    for column, number in IDS.items():
        ids[:, column] = number
    return {
        ("leftImg8bit", "leftImg8bit.png"): wall[:, :WIDTH],
        ("rightImg8bit", "rightImg8bit.png"): wall[:, SHIFT:],
        ("gtFine", "gtFine_labelIds.png"): ids,
        ("disparity", "disparity.png"): stored_disparity(),
    }


def write_official(root, counts=None):
    """Writes the official layout; the first frame of each split has files of its own."""
    for split, count in (counts or COUNTS).items():
        for index in range(count):
            city, stem = ("aachen", "bremen")[index % 2], f"{index:06d}_000019"
            for (folder, ending), array in frame_arrays().items():
                path = root / folder / FOLDERS[split] / city / f"{city}_{stem}_{ending}"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)
            path = root / "camera" / FOLDERS[split] / city / f"{city}_{stem}_camera.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(CAMERA))
    return root


def mtan_arrays(height, width, classes):
    rng = np.random.default_rng(1)
    label = np.zeros((height, width), np.float32)
    label[:, :4], label[:, -4:] = -1, classes - 1
    inverse = np.full((height, width, 1), 0.125, np.float32)
    inverse[0], inverse[1] = 0, 1 / 65535
    return {
        "image": rng.random((height, width, 3)),
        f"label_{classes}": label,
        "depth": inverse,
    }


def write_mtan(root, height=HEIGHT, width=WIDTH, counts=None, classes=(7, 19)):
    """Writes the mtan layout; all files of a folder except the first are links to the second."""
    for split, count in (counts or COUNTS).items():
        for number in classes:
            for kind, array in mtan_arrays(height, width, number).items():
                folder = root / FOLDERS[split] / kind
                folder.mkdir(parents=True, exist_ok=True)
                for index in range(count):
                    path = folder / f"{index}.npy"
                    path.unlink(missing_ok=True)
                    if index < 2:
                        np.save(path, array)
                    else:
                        os.link(folder / "1.npy", path)
    return root
