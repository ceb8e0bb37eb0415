"""Shows a trained network in the browser."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import ModuleType

from mtl_jax.commands import sensors
from mtl_jax.commands.loading import load
from mtl_jax.commands.predictions import form_of, tiled
from mtl_jax.runs.settings import Settings, folder_of


def demo(settings: Settings) -> Iterator[str]:
    """Serves a page that predicts photos, until an interruption.

    Yields:
      A line that says where the page is.

    Raises:
      ValueError: without gradio, or for an address or port that can't be used.
    """
    folder = folder_of(settings)
    prefix = "mtl_jax-demo-"
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as temporary:
        # Before gradio is imported, which otherwise makes a folder that stays.
        os.environ["GRADIO_TEMP_DIR"] = temporary
        page = import_page()
        with page.listen(settings.host, settings.port) as listener, suppress(KeyboardInterrupt):
            predictor = load(folder, checkpoint=settings.checkpoint)
            sensors.check_without(predictor, "a photo in a demo")
            form = form_of(settings, predictor, Path())
            yield f"{folder} is shown at {page.address(listener)}; Ctrl-C stops it"
            run = partial(tiled, predictor, settings)
            page.serve(run, form, listener, title=folder.resolve().name)


def import_page() -> ModuleType:
    """Returns the module that makes the page.

    Raises:
      ValueError: without gradio.
    """
    try:
        from mtl_jax.deploy import demo
    except ImportError as error:
        raise ValueError(
            f"`mode`=demo needs gradio ({error}): run pip install -e '.[demo]' in the clone"
        ) from error
    return demo
