"""A folder of one's own: what is said about it, in lines and on a page."""

import base64
import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets import account
from mtl_jax.tasks.pictures import class_colours
from tests import fakes
from tests.datasets.folder_files import EXAMPLES, HEIGHT, WIDTH, cuts, prepared


def shots(page):
    """Returns the pictures below each heading of a page, in rows."""
    sections = re.split("<h2>(.*?)</h2>", page)
    return {
        title: [
            [
                np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB"))
                for text in re.findall('src="data:image/webp;base64,([^"]+)"', row)
            ]
            for row in body.split('<div class="shots">')[1:]
        ]
        for title, body in zip(sections[1::2], sections[2::2], strict=True)
    }


def test_the_page_shows_images_with_their_labels_over_them(root, capsys):
    (root / "masks/train/train0001.png").unlink()
    prepared(root)
    (line,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("page: ")]
    page = Path(line.removeprefix("page: ")).read_text()
    assert "4 images to train on and 2 to test on" in page
    assert "<td>train</td><td>4</td><td>3 of 4 (75%)</td><td>4 of 4 (100%)</td>" in page
    found = shots(page)
    assert [len(row) for row in found["Images of train"]] == [4, 3, 4, 4]
    assert [len(row) for row in found["Images of test"]] == [4, 4]
    assert page.count(">no segmentation</figure>") == 1
    example = EXAMPLES["train"][0]
    image, classes, _, normals = found["Images of train"][0]
    # The pictures are compressed, so that only means can be compared.
    np.testing.assert_allclose(image.mean((0, 1)), example["image"].mean((0, 1)), atol=4)
    colours = class_colours(len(fakes.CLASSES))[example["segmentation"]]
    grey = example["image"].mean(-1, keepdims=True)
    over = np.where((example["segmentation"] >= 0)[..., None], 0.6 * colours + 0.4 * grey, grey)
    np.testing.assert_allclose(classes.mean((0, 1)), over.mean((0, 1)), atol=4)
    assert image.shape == classes.shape == normals.shape == (HEIGHT, WIDTH, 3)
    for name in fakes.CLASSES:
        assert f"<span>{name}</span>" in page
    depth = np.concatenate([x["depth"][x["depth"] > 0] for p in EXAMPLES.values() for x in p])
    assert f"<td>{np.median(depth.astype(np.float32)):.4g} m</td>" in page


def test_the_page_of_a_refused_folder_lists_all_problems(root, capsys):
    cuts("masks/train/train0000.png")(root)
    (root / "images/val/val0000.png").write_text("x")
    (root / "masks/val/<b>.png").write_text("x")
    with pytest.raises(
        ValueError, match="3 problems, listed above .all of them, with pic"
    ) as error:
        prepared(root)
    path = Path(re.search(r"with pictures: (.*)\)$", str(error.value))[1])
    assert path.is_relative_to(root.parent / "data")
    page = path.read_text()
    assert page.count("<li>/") == 3 and "&lt;b&gt;.png has no image" in page
    assert "<td>3 of 4 (75%)</td>" in page and "Labels with problems are not counted." in page
    assert [len(row) for row in shots(page)["Images of train"]] == [3, 4, 4, 4]
    shutil.copy(root / "masks/train/train0001.png", root / "masks/train/train0000.png")
    (root / "masks/val/<b>.png").unlink()
    (root / "masks/val/val0000.png").unlink()
    (root / "images/val/val0000.png").unlink()
    for entry in ("depth", "normals"):
        (root / entry / "val/val0000.npy").unlink()
    prepared(root)
    assert not path.exists()


def test_the_page_shows_classes_in_the_colours_of_the_palette(root):
    chosen = [(200, 10, 20), (30, 200, 40), (50, 60, 200), (1, 2, 3)]
    names = [*fakes.CLASSES, "ignore"]
    lines = [f"{r} {g} {b} {name}" for (r, g, b), name in zip(chosen, names, strict=True)]
    (root / "palette.txt").write_text("\n".join(lines))
    for path in sorted((root / "masks").rglob("*.png")):
        mask = np.minimum(np.array(Image.open(path)), 3)
        Image.fromarray(np.array(chosen, np.uint8)[mask]).save(path)
    prepared(root)
    page = next((root.parent / "data").rglob("found.html")).read_text()
    for colour, name in zip(chosen[:3], fakes.CLASSES, strict=True):
        assert f'background: rgb{colour}"></b><span>{name}</span>' in page


def test_what_is_not_used_is_listed(root, capsys):
    (root / "images/train/.DS_Store").write_text("x")
    (root / "masks/val/notes.txt").write_text("x")
    (root / "images/test").mkdir()
    (root / "normal").mkdir()
    prepared(root)
    assert (
        "not used: normal/, images/test/, images/train/.DS_Store, masks/val/notes.txt"
        in capsys.readouterr().out
    )


def test_images_of_unusual_depth_are_named(root, capsys):
    for name, depth in (("train0001", 450.0), ("train0002", 0.02), ("train0003", 99.0)):
        np.save(root / f"depth/train/{name}.npy", np.full((HEIGHT, WIDTH), depth))
    prepared(root)
    assert (
        "WARNING: the median depth of train0001.png (450 m), train0002.png (0.02 m) is unusual: is "
        "depth_scale right?"
    ) in capsys.readouterr().out


def test_a_class_without_pixels_is_printed(root, capsys):
    (root / "classes.txt").write_text("\n".join((*fakes.CLASSES, "sky")))
    prepared(root)
    assert "WARNING: no pixel is labelled sky" in capsys.readouterr().out


def account_of_depth(images):
    return account.Account(
        source="rooms",
        setting="`dataset`=rooms",
        images={"train": images},
        class_names=fakes.CLASSES,
        entries=("depth",),
        stored=(64, 96),
    )


def test_quantiles_of_depth_are_those_of_all_pixels():
    """Of dense maps of a room, and of a map with a few far points."""
    rng = np.random.default_rng(0)
    maps = rng.uniform(1, 5, (3, 64, 96)).astype(np.float16)
    maps[2] = np.where(rng.uniform(size=(64, 96)) < 0.02, 10 * maps[2], 0)
    kept = account_of_depth(len(maps))
    for number, depth in enumerate(maps):
        kept.example("train", number, str(number), {"image": maps, "depth": depth})
    found = kept.depth_quantiles()
    expected = np.quantile(maps[maps > 0].astype(np.float32), list(found))
    # Of a uniform distribution, some hundred samples.
    np.testing.assert_allclose(list(found.values()), expected, atol=0.6)


def test_the_account_keeps_few_depths_of_an_image():
    kept = account_of_depth(1)
    kept.example("train", 0, "a", fakes.example(0, height=64, width=96))
    ((depths, _),) = kept.depths
    assert depths.base is None
    assert 50 <= depths.size <= account.DEPTHS_PER_IMAGE
