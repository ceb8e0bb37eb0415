"""The page that shows a network, as people use it: served by launch.py, visited with Chromium."""

import importlib.util
import re
import shutil
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.slow import programs

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not importlib.util.find_spec("gradio"), reason="gradio is not installed"),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here"),
]
CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
PATIENCE = 60_000  # milliseconds


@pytest.fixture
def browser():
    # Here, because only this file needs it.
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", *CAMERA]
        )
        yield started
        started.close()


@pytest.fixture(scope="module")
def folder(made, tmp_path_factory):
    """A folder with the photos a.png and b.png, and what `predict` makes of them."""
    path = tmp_path_factory.mktemp("demo")
    (path / "tmp").mkdir()
    (path / "in").mkdir()
    images = np.load(made / "run" / "samples.npz")["image"]
    for name, image in zip("ab", images, strict=False):
        Image.fromarray(image).save(path / "in" / f"{name}.png")
    shutil.copytree(made / "run", path / "run")
    done = programs.launch("--mode=predict --workdir=run --input=in --out=out", path)
    assert done.status == 0, done.text
    return path


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serves the page and yields its address; in the end Ctrl-C stops it, and no file is left."""
    process = programs.start("--mode=demo --workdir=run", folder, {"TMPDIR": str(folder / "tmp")})
    assert process.stdout is not None
    try:
        lines = iter(process.stdout.readline, b"")
        line = next(one for one in lines if b"Ctrl-C stops it" in one).decode()
        yield line.split(" is shown at ")[1].split(";")[0]
    finally:
        process.send_signal(signal.SIGINT)
        finished = programs.finish(process)
    assert (finished.status, finished.lines) == (0, [])
    assert not list((folder / "tmp").iterdir())


def visit(browser, address: str, **options):
    """Opens the page and returns it, and the list of what it asks for."""
    page = browser.new_context(**options).new_page()
    page.set_default_timeout(PATIENCE)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    return page, asked


def upload(page, path: Path) -> None:
    page.locator("input[type=file]").first.set_input_files(path)


def read(page, name: str, place: tuple[float, float]) -> list[str]:
    """Waits for the photo of a name, clicks at a place, and returns the words for it."""
    page.get_by_text(f"{name} · ").wait_for()
    stage = page.locator(".stage").first
    box = stage.bounding_box()
    stage.click(position={"x": place[0] * box["width"], "y": place[1] * box["height"]})
    page.get_by_text("· column").wait_for()
    return page.locator("output").all_inner_texts()


def assert_as_predicted(words: list[str], out: Path, stem: str) -> None:
    """Checks words for a place against the files that `predict` wrote."""
    column, row = map(int, re.findall(r"\d+", words[-1]))
    with Image.open(out / f"{stem}_segmentation.png") as image:
        index = np.asarray(image)[row, column]
        assert f"{index} {words[0]}" in image.text["Classes"].split(", ")
    metres = np.asarray(Image.open(out / f"{stem}_depth.png"))[row, column] / 1000
    assert float(words[1].removesuffix(" m")) == pytest.approx(metres, abs=0.006)
    normal = np.asarray(Image.open(out / f"{stem}_normals.png"))[row, column] / 127.5 - 1
    found = [float(x) for x in words[2].strip("()").replace("−", "-").split(", ")]
    np.testing.assert_allclose(found, normal, atol=0.01)


def test_a_photo_is_predicted_and_its_files_are_those_of_predict(folder, browser):
    with served(folder) as address:
        page, asked = visit(browser, address, viewport={"width": 1400, "height": 1000})
        upload(page, folder / "in" / "a.png")
        assert_as_predicted(read(page, "a.png", (0.7, 0.6)), folder / "out", "a")
        expected = sorted((folder / "out").glob("a_*"))
        page.locator(".files a").last.wait_for()
        assert page.locator(".files a").count() == len(expected) == 4
        for path in expected:
            with page.expect_download() as download:
                page.locator(f".files a[download='{path.name}']").click()
            assert Path(download.value.path()).read_bytes() == path.read_bytes()
        # The slider moves the border, and so does a drag, which is not taken for a click.
        before = page.locator("output").all_inner_texts()
        page.locator(".wipe input").fill("20")
        assert border(page) == "20.00%"
        box = page.locator(".stage").nth(1).bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 10)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + 10, steps=3)
        page.mouse.up()
        assert border(page) == "90.00%"
        assert page.locator("output").all_inner_texts() == before
        assert all(url.startswith((address, "data:", "blob:")) for url in asked)
        page.context.close()


def border(page) -> str:
    return page.evaluate("document.querySelector('.viewer').style.getPropertyValue('--wipe')")


def test_two_people_see_their_own_photos_and_the_camera_works(folder, browser):
    with served(folder) as address:
        pages = [visit(browser, address, viewport={"width": 400, "height": 900})[0] for _ in "ab"]
        for page, name in zip(pages, "ab", strict=True):
            upload(page, folder / "in" / f"{name}.png")
        for page, name in zip(pages, "ab", strict=True):
            words = read(page, f"{name}.png", (0.3, 0.9))
            assert_as_predicted(words, folder / "out", name)
            # Nothing is wider than a narrow screen.
            assert page.evaluate("document.documentElement.scrollWidth") == 400
        page = pages[0]
        page.get_by_role("tab", name="Camera").click()
        page.get_by_text("Click to Access Webcam").click()
        # Before it has a frame the button does nothing.
        page.wait_for_function("document.querySelector('video')?.readyState >= 2")
        page.get_by_role("button", name="capture photo").click()
        assert read(page, "image.png", (0.5, 0.5))[1].endswith(" m")
        for page in pages:
            page.context.close()


def test_what_is_no_photo_is_refused_and_the_next_one_is_read(folder, browser):
    cut = (folder / "in" / "b.png").read_bytes()[:5000]
    (folder / "cut.png").write_bytes(cut)
    (folder / "notes.txt").write_text("<b>hello</b>")
    Image.new("1", (8000, 6251)).save(folder / "large.png")
    with (folder / "heavy.jpg").open("wb") as file:
        file.truncate(53_000_000)
    with served(folder) as address:
        page, _ = visit(browser, address)
        for name, reason in {
            "notes.txt": "not a photo of a known format",
            "large.png": "more than 50 megapixels",
            "cut.png": "truncated",
        }.items():
            upload(page, folder / name)
            page.get_by_text(re.compile(f"^{name} can't be shown: .*{reason}")).wait_for()
        upload(page, folder / "heavy.jpg")
        page.get_by_text("exceed the maximum allowed size of 50.0 Mb").wait_for()
        upload(page, folder / "in" / "b.png")
        assert_as_predicted(read(page, "b.png", (0.5, 0.5)), folder / "out", "b")
        page.context.close()


def test_a_taken_port_and_a_wrong_address_are_refused_in_one_line(folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for flags, words in {
            f"--port={port}": f"--port={port} of --host=127.0.0.1: Address already in use",
            "--host=nowhere.invalid": "--host=nowhere.invalid: there is no such address",
        }.items():
            finished = programs.launch(f"--mode=demo --workdir=run {flags}", folder)
            line, before = programs.refusal(finished)
            assert (finished.status, before) == (1, 0)
            assert words in line
