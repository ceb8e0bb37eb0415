"""Predicts for a picture or a .npy file of uint8[H, W, C]: python example.py PHOTO RESULTS.npz"""

import sys
from pathlib import Path

import jax
import numpy as np
from jax import export

model = export.deserialize(Path(__file__).with_name("model.stablehlo").read_bytes())
size = model.in_avals[0].shape[1:]  # height, width, C
if len(sys.argv) != 3:
    sys.exit(__doc__)
if sys.argv[1].endswith(".npy"):
    photo = np.load(sys.argv[1])
else:
    from PIL import Image, ImageOps

    photo = ImageOps.exif_transpose(Image.open(sys.argv[1]))
    if photo.mode[0] in "IF":
        sys.exit("more than 8 bits: give a .npy file of uint8[H, W, C]")
    photo = photo.convert("RGBA")  # transparent parts are white
    photo = Image.alpha_composite(Image.new("RGBA", photo.size, "white"), photo)
    photo = photo.convert("L" if size[2] == 1 else "RGB")
photo = np.atleast_3d(np.asarray(photo, np.float32))
if photo.shape[2] != size[2]:
    sys.exit(f"not {photo.shape[2]} channels, but {size[2]}: give a .npy file of uint8[H, W, C]")
colours, depth = np.split(photo, [3], axis=2)
colours = jax.image.resize(colours, (*size[:2], colours.shape[2]), "linear")
sides = zip(photo.shape[:2], size[:2], strict=True)
nearest = [(2 * np.arange(new) + 1) * old // (2 * new) for old, new in sides]
resized = np.concatenate([colours, depth[np.ix_(*nearest)]], axis=2)
found = model.call(resized.round().astype(np.uint8)[None])
np.savez(sys.argv[2], **{task: result[0] for task, result in found.items()})
