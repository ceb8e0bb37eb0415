"""Predicts for a picture or a .npy file of uint8[H, W, C]: python example.py PHOTO RESULTS.npz"""

import sys
from pathlib import Path

import jax
import numpy as np
from jax import export

model = export.deserialize(Path(__file__).with_name("model.stablehlo").read_bytes())
size = model.in_avals[0].shape[1:]  # height, width, C
if sys.argv[1].endswith(".npy"):
    photo = np.load(sys.argv[1])
elif size[2] == 4:
    sys.exit("this network sees depth, too: give a .npy file of uint8[H, W, 4]")
else:
    from PIL import Image

    photo = np.asarray(Image.open(sys.argv[1]).convert("L" if size[2] == 1 else "RGB"))
photo = jax.image.resize(np.atleast_3d(photo).astype(np.float32), size, "linear")
found = model.call(photo.round().astype(np.uint8)[None])
np.savez(sys.argv[2], **{task: result[0] for task, result in found.items()})
