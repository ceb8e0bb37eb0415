"""A page in the browser: photos in, predictions next to them; it needs gradio.

Nothing leaves the machine that serves the page, and nothing stays on it: uploads and results lie in
a temporary folder, for some minutes and no longer than the page is served.
"""

import os
import socket
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import fastapi  # pyrefly: ignore[missing-import]
import gradio  # pyrefly: ignore[missing-import]
import numpy as np
import uvicorn  # pyrefly: ignore[missing-import]

from mtl_jax.deploy import outputs, photos, viewer

MOST_MEGABYTES, MOST_MEGAPIXELS = 50, 50
# The most photos that are predicted, that wait, and that are shown at the same time.
AT_WORK, WAITING, SESSIONS = 4, 32, 32
# Seconds for which files are kept, and seconds between two removals of older ones.
KEPT, SWEPT = 600, 60
USUAL_PORT = 7860
LIMITS = (
    f"Photos of at most {MOST_MEGABYTES} MB and {MOST_MEGAPIXELS} megapixels. They stay on the "
    f"machine that serves this page, which removes them after {KEPT // 60} minutes."
)
# Script that shows the words for a place in the browser.
TELL = "(words) => document.querySelector('#pictures .viewer').parentElement.tell(words)"

# Photos uint8[B, H, W, 3] -> task name -> predictions [B, H, W, ...].
Predict = Callable[[np.ndarray], Mapping[str, np.ndarray]]


def listen(host: str, port: int | None) -> socket.socket:
    """Returns a socket at an address and port, by default at gradio's port or else any free one.

    Raises:
      ValueError: if that is not possible.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise ValueError(f"`host`={host}: there is no such address") from error
    open_at = partial(_open, found[0], found[4][0])
    try:
        if port is not None:
            return open_at(port)
        with suppress(OSError):
            return open_at(USUAL_PORT)
        return open_at(0)
    except OSError as error:
        what = f"`host`={host}" if port is None else f"`port`={port} of `host`={host}"
        # Python adds the address to the text of the error.
        reason = os.strerror(error.errno or 0)
        raise ValueError(f"{what}: {reason}: give another one") from error


def _open(family: int, host: Any, port: int) -> socket.socket:
    return socket.create_server((host, port), family=family)


def address(listener: socket.socket) -> str:
    """Returns the address of the page that is served at a socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(predict: Predict, form: outputs.Form, listener: socket.socket, *, title: str) -> None:
    """Serves the page until an interruption.

    Args:
      predict: the network.
      form: which files of a photo can be downloaded; their folder is not used.
      listener: socket at the address of the page.
      title: title of the page.
    """
    # Pillow warns of odd files that it can read nevertheless.
    warnings.filterwarnings("ignore", module="PIL")
    app = gradio.mount_gradio_app(
        fastapi.FastAPI(),
        build(predict, form, title=title),
        path="/",
        footer_links=[],
        run_history=False,
        max_file_size=f"{MOST_MEGABYTES}mb",
        enable_monitoring=False,
        ssr_mode=False,
        theme=gradio.themes.Default(
            primary_hue="blue", font=("system-ui", "sans-serif"), font_mono=("monospace",)
        ),
        css_paths=viewer.STYLE,
    )
    config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[listener])


def build(predict: Predict, form: outputs.Form, *, title: str) -> gradio.Blocks:
    """Builds the page.

    Args:
      predict: the network; one photo at a time is given to it.
      form: which files of a photo can be downloaded; their folder is not used.
      title: title of the page.
    """
    lock = threading.Lock()

    def show(path: str) -> Iterator[tuple[Any, ...]]:
        yield from answers(predict, form, lock, Path(path))

    def tell(shown: viewer.Shown | None, event: gradio.EventData) -> list[str]:
        if shown is None:
            gradio.Warning("This photo is no longer kept: upload it again.")
            return []
        place = float(event.x), float(event.y)
        return viewer.words(shown, place, form.tasks, form.class_names)

    with gradio.Blocks(title=title, analytics_enabled=False, delete_cache=(SWEPT, KEPT)) as page:
        gradio.Markdown(f"# {title}\n{subtitle(form)} {LIMITS}")
        with gradio.Tab("File"):
            upload = gradio.File(label="Photo", height=140)
        with gradio.Tab("Camera"):
            camera = gradio.Image(
                label="Camera",
                sources=["webcam"],
                type="filepath",
                image_mode=None,
                webcam_options=gradio.WebcamOptions(mirror=False),
                height=320,
            )
        pictures = gradio.HTML(js_on_load=viewer.SCRIPT.read_text(), elem_id="pictures")
        files = gradio.File(interactive=False, visible=False, elem_classes="files")
        shown, words = gradio.State(time_to_live=KEPT), gradio.JSON(visible=False)
        parts = [pictures, files, shown]
        for source, event in ((upload, upload.upload), (camera, camera.input)):
            options = {"concurrency_limit": AT_WORK, "concurrency_id": "photos"}
            done = event(show, source, parts, api_visibility="private", **options)
            # Empties the input for the next photo.
            done.then(None, None, source, js="() => null", api_visibility="private")
        asked = pictures.click(tell, shown, words, api_visibility="private", show_progress="hidden")
        asked.then(None, words, None, js=TELL, api_visibility="private")
    page.state_session_capacity = SESSIONS
    return page.queue(max_size=WAITING)


def subtitle(form: outputs.Form) -> str:
    """Returns what the page is for."""
    nouns = [task.picture.noun for task in form.tasks]
    listed = ", ".join(nouns[:-1]) + " and " * (len(nouns) > 1) + nouns[-1]
    return f"What a trained network sees in a photo: {listed}."


def answers(
    predict: Predict, form: outputs.Form, lock: threading.Lock, path: Path
) -> Iterator[tuple[Any, ...]]:
    """Yields the parts of the page for a photo: pictures, files and what is kept.

    The files come after the rest, since writing them takes longer than the network.
    """
    hidden = gradio.update(value=None, visible=False)
    try:
        photo = photos.read(path, most_pixels=MOST_MEGAPIXELS * 1_000_000)
    except photos.Unreadable as reason:
        text = f"{path.name} can't be shown: {reason}. Try another photo."
        yield viewer.message(text), hidden, None
        return
    with lock:
        results = {name: x[0] for name, x in predict(photo.pixels[None]).items()}
    shown = viewer.shrink(photo, results)
    pictures = viewer.panels(photo, shown, form.tasks, form.class_names)
    yield pictures, hidden, shown
    with tempfile.TemporaryDirectory() as folder:
        target, stem = form._replace(folder=Path(folder)), outputs.stems_of([path])[0]
        with lock:
            written = outputs.write(photo, stem, results, target)
        notes = [note for note in written.notes if note not in photo.notes]
        notes += [f"{number} px {what}" for what, number in written.lost.items()]
        label = "; ".join(["Files", *notes])
        names = [str(path) for path in target.paths(stem).values() if path.exists()]
        same = gradio.skip()
        yield same, gradio.update(value=names, visible=True, label=label), same
