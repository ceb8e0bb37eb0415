"""Predicts for a picture or a .npy file of uint8[H, W, 3]: python example.py PHOTO RESULTS.npz"""

import sys
from pathlib import Path

import jax
import numpy as np
from jax import export

if sys.argv[1].endswith(".npy"):
    photo = np.load(sys.argv[1])
else:
    from PIL import Image

    photo = Image.open(sys.argv[1]).convert("RGB")
model = export.deserialize(Path(__file__).with_name("model.stablehlo").read_bytes())
size = model.in_avals[0].shape[1:]  # height, width, 3
photo = jax.image.resize(np.asarray(photo, np.float32), size, "linear")
found = model.call(photo.round().astype(np.uint8)[None])
np.savez(sys.argv[2], **{task: result[0] for task, result in found.items()})
