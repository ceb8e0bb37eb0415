"""Photos of all kinds are read, or refused with the reason."""

import os
import struct
import zlib
from fractions import Fraction

import numpy as np
import pytest
from PIL import ExifTags, Image, TiffImagePlugin, features

from mtl_jax.deploy import photos
from mtl_jax.deploy.photos import Unreadable

HEIGHT, WIDTH = 6, 9


@pytest.fixture
def colours():
    """A photo whose corners differ."""
    row, column = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([row * 40, column * 25, 255 - row * 30], axis=-1).astype(np.uint8)


@pytest.fixture
def image(colours):
    return Image.fromarray(colours)


def pixels(path):
    return photos.read(path).pixels


def png_header(height, width):
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    check = struct.pack(">I", zlib.crc32(head))
    return b"\x89PNG\r\n\x1a\n\0\0\0\r" + head + check + b"\0\0\0\4IDATnone"


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "ppm", "tga", "sgi", "pcx", "dib"])
def test_formats_without_loss(image, colours, tmp_path, suffix):
    path = tmp_path / f"photo.{suffix}"
    image.save(path)
    read = photos.read(path)
    assert read.pixels.dtype == np.uint8
    np.testing.assert_array_equal(read.pixels, colours)
    assert (read.path, read.notes, read.focal_length) == (path, (), None)


@pytest.mark.parametrize("suffix", ["jpg", "webp", "jp2", "avif"])
def test_formats_with_loss(image, colours, tmp_path, suffix):
    if suffix != "jpg" and not features.check({"jp2": "jpg_2000"}.get(suffix, suffix)):
        pytest.skip("this Pillow lacks the format")
    path = tmp_path / f"photo.{suffix}"
    large = image.resize((90, 60), Image.Resampling.BILINEAR)
    large.save(path, quality=95)
    assert np.abs(pixels(path).astype(int) - np.asarray(large)).mean() < 6


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "RGBX"])
def test_modes_without_transparency(image, tmp_path, mode):
    path, converted = tmp_path / "photo", image.convert(mode)
    kinds = {"CMYK": "TIFF", "RGBX": "TIFF"}
    converted.save(path, kinds.get(mode, "PNG"))
    np.testing.assert_allclose(pixels(path), np.asarray(converted.convert("RGB")), atol=3)


def test_transparent_parts_are_white(colours, tmp_path):
    alpha = np.full((HEIGHT, WIDTH, 1), 255, np.uint8)
    path = tmp_path / "photo.png"
    Image.fromarray(np.concatenate([colours, alpha], axis=-1)).save(path)
    assert photos.read(path).notes == ()
    np.testing.assert_array_equal(pixels(path), colours)
    alpha[0], alpha[1] = 0, 128
    Image.fromarray(np.concatenate([colours, alpha], axis=-1)).save(path)
    read = photos.read(path)
    assert read.notes == ("transparent parts are white",)
    assert (read.pixels[0] == 255).all()
    half = (colours[1].astype(int) + 255) / 2
    np.testing.assert_allclose(read.pixels[1], half, atol=2)
    np.testing.assert_array_equal(read.pixels[2:], colours[2:])


@pytest.mark.parametrize("mode", ["LA", "P"])
def test_transparency_of_other_modes(image, tmp_path, mode):
    path, converted = tmp_path / "photo.png", image.convert(mode)
    if mode == "P":
        converted.save(path, transparency=converted.getpixel((0, 0)))
    else:
        converted.putpixel((0, 0), (10, 0))
        converted.save(path)
    assert pixels(path)[0, 0].tolist() == [255, 255, 255]


def test_sixteen_bits_and_floats(tmp_path):
    ramp = np.linspace(0, 1, 54).reshape(HEIGHT, WIDTH)
    expected = np.repeat(np.rint(255 * ramp)[..., None], 3, axis=-1)
    for name, array in {
        "a.png": (ramp * 65535).astype(np.uint16),
        "a.tif": (ramp * 65535).astype(np.uint16),
        "b.tif": ramp.astype(np.float32),
        "c.tif": (ramp * 65535).astype(np.int32),
    }.items():
        Image.fromarray(array).save(tmp_path / name)
        read = photos.read(tmp_path / name)
        np.testing.assert_allclose(read.pixels, expected, atol=1)
        assert read.notes[0].endswith(" is white")


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_zero_is_white_where_the_file_says_so(tmp_path, kind):
    largest = 1 if kind == np.float32 else np.iinfo(kind).max
    numbers = (np.linspace(0, 1, 54).reshape(HEIGHT, WIDTH) * largest).astype(kind)
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[TiffImagePlugin.PHOTOMETRIC_INTERPRETATION] = 0
    # Pillow writes 8 bits inverted and others as they are.
    Image.fromarray(255 - numbers if kind == np.uint8 else numbers).save(
        tmp_path / "a.tif", tiffinfo=tags
    )
    read = photos.read(tmp_path / "a.tif")
    expected = 255 - 255.0 * numbers / largest
    np.testing.assert_allclose(read.pixels[..., 0], expected, atol=1)
    assert read.notes == (() if kind == np.uint8 else ("0 is white",))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (np.nan, "not finite"),
        (np.inf, "not finite"),
        (3.5, "0 to 3.5 .* white 1"),
        (-1.0, "-1"),
    ],
)
def test_floats_that_could_mean_anything(tmp_path, value, reason):
    numbers = np.zeros((HEIGHT, WIDTH), np.float32)
    numbers[2, 3] = value
    Image.fromarray(numbers).save(tmp_path / "a.tif")
    with pytest.raises(Unreadable, match=reason):
        photos.read(tmp_path / "a.tif")


# What must be done to the pixels of a file with this orientation to see the scene upright.
UPRIGHT = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: np.rot90(x, 2).swapaxes(0, 1),
    8: lambda x: np.rot90(x),
    99: lambda x: x,
}


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_rotation(image, colours, tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = tmp_path / f"photo.{suffix}"
    image.save(path, exif=exif)
    np.testing.assert_array_equal(pixels(path), UPRIGHT[orientation](colours))


def test_exif_focal_length(image, tmp_path):
    exif = Image.Exif()
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.FocalLengthIn35mmFilm: 26}
    exif[ExifTags.Base.Orientation] = 6
    path = tmp_path / "photo.jpg"
    image.resize((4000, 3000)).save(path, exif=exif)
    # The diagonal of 5000 pixels stands for the film's of 43.27 mm.
    assert photos.read(path).focal_length == pytest.approx(26 * 5000 / 43.2666, rel=1e-4)
    assert photos.focal_length_in_pixels(0, (4, 3)) is None
    assert photos.focal_length_in_pixels("26", (4, 3)) is None
    assert photos.focal_length_in_pixels(Fraction(26), (4, 3)) is None


def test_garbage_in_exif_and_profile_does_no_harm(image, colours, tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "photo.png"
    image.save(path, exif=b"Exif\0\0" + rng.bytes(200), icc_profile=rng.bytes(300))
    np.testing.assert_array_equal(pixels(path), colours)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_the_first_of_several_frames(image, tmp_path, suffix):
    path = tmp_path / f"photo.{suffix}"
    frames = [image.resize((64, 48)), Image.new("RGB", (64, 48), "red")]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    read = photos.read(path)
    assert read.notes == ("the first of 2 frames",)
    assert np.abs(read.pixels.astype(int) - np.asarray(frames[0])).mean() < 20


def test_the_content_counts_and_not_the_suffix(image, colours, tmp_path):
    image.save(tmp_path / "png_in_fact.jpg", "PNG")
    np.testing.assert_array_equal(pixels(tmp_path / "png_in_fact.jpg"), colours)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "gif", "bmp", "tga", "ppm"])
@pytest.mark.parametrize("part", [0.1, 0.6, 0.97])
def test_truncated_files_are_refused(image, tmp_path, suffix, part):
    path = tmp_path / f"photo.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    with pytest.raises(Unreadable, match=".+"):
        photos.read(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"hello", "not a photo of a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "not a photo"),
        (b"%PDF-1.4\n", "not a photo"),
        (png_header(60000, 60000), "more than 179 megapixels"),
        (png_header(0, 9), ".+"),
    ],
    ids=["empty", "text", "eps", "pdf", "bomb", "no pixels"],
)
def test_what_is_no_photo(tmp_path, content, reason):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(Unreadable, match=reason):
        photos.read(tmp_path / "a.png")


def test_a_limit_of_pixels(image, tmp_path):
    path, number = tmp_path / "a.png", image.width * image.height
    image.save(path)
    assert photos.read(path, most_pixels=number).pixels.shape[:2] == image.size[::-1]
    with pytest.raises(Unreadable, match=f"more than {(number - 1) / 1e6:g} megapixels"):
        photos.read(path, most_pixels=number - 1)


def test_what_is_no_file(tmp_path):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.png").symlink_to(tmp_path / "nothing.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    os.mkfifo(tmp_path / "pipe.png")
    for name, reason in {
        "folder.png": "a folder",
        "link.png": "a link to .*nothing.png, which is missing",
        "loop.png": "symbolic links|a link to",
        "pipe.png": "neither a file nor a folder",
        "missing.png": "No such file",
    }.items():
        with pytest.raises(Unreadable, match=reason):
            photos.read(tmp_path / name)


def test_a_file_that_may_not_be_read(image, tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    image.save(tmp_path / "a.png")
    (tmp_path / "a.png").chmod(0)
    with pytest.raises(Unreadable, match="Permission denied"):
        photos.read(tmp_path / "a.png")


def test_colours_that_are_not_converted(image, tmp_path):
    image.convert("RGB").save(tmp_path / "rgb.tif")
    lab = Image.frombytes("LAB", image.size, image.tobytes())
    lab.save(tmp_path / "a.tif")
    with pytest.raises(Unreadable, match="CIELAB"):
        photos.read(tmp_path / "a.tif")


def test_the_preview_of_a_raw_photo_is_not_taken_for_it(image, tmp_path):
    for kind, suffix in ((0, "tif"), (1, "dng")):
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags[ExifTags.Base.NewSubfileType] = kind
        image.convert("RGB").save(tmp_path / f"a.{suffix}", "TIFF", tiffinfo=tags)
    assert photos.read(tmp_path / "a.tif").notes == ()
    with pytest.raises(Unreadable, match="preview"):
        photos.read(tmp_path / "a.dng")


def names(text):
    return [path.name for path in photos.find(str(text))[0]]


def test_files_folders_and_patterns_are_found(tmp_path):
    for name in ("b.jpg", "a.PNG", "notes.txt", ".hidden.png", "video.mp4", "[1].png"):
        (tmp_path / name).touch()
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "c.jpg").touch()
    (tmp_path / "broken.png").symlink_to("nothing")
    found, others = photos.find(str(tmp_path))
    assert [path.name for path in found] == ["[1].png", "a.PNG", "b.jpg", "broken.png"]
    assert [path.name for path in others] == ["inner", "notes.txt", "video.mp4"]
    assert names(tmp_path / "*.jpg") == ["b.jpg"]
    assert names(tmp_path / "**" / "*.jpg") == ["b.jpg", "c.jpg"]
    assert names(tmp_path / "[1].png") == ["[1].png"]
    assert names(tmp_path / "broken.png") == ["broken.png"]
    assert names(tmp_path / "notes.txt") == ["notes.txt"]
    assert photos.is_video(tmp_path / "video.MP4")
    assert not photos.is_video(tmp_path / "b.jpg")


@pytest.mark.parametrize("text", ["missing.jpg", "*.nothing", "inner"])
def test_nothing_is_found(tmp_path, text):
    (tmp_path / "inner").mkdir()
    with pytest.raises(ValueError, match="`input`=.*: (no file|the folder has no file)"):
        photos.find(str(tmp_path / text))
