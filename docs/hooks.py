"""Adds pages to the site that are files elsewhere in the repository; `mkdocs build` calls this.

Links are written so that they work in the repository; here they are redirected to the pages.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "datasets/rooms/README.md": "datasets/rooms.md",
    "datasets/nyu_depth_v2/README.md": "datasets/nyu_depth_v2.md",
    "datasets/kitti_stereo/README.md": "datasets/kitti_stereo.md",
    "datasets/cityscapes/README.md": "datasets/cityscapes.md",
    "datasets/waymo/README.md": "datasets/waymo.md",
    "datasets/folder/README.md": "datasets/folder.md",
}
LINK = re.compile(r"\[([^\]]*)\]\((?!https?:)([^)#]*)(#[^)]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages."""
    for source, page in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turns links between files of the repository into links between pages.

    A link to a file that is not a page, such as the licence, is replaced by its text.
    """
    here = page.file.src_uri
    places = {page: source for source, page in PAGES.items()}
    source = places.get(here, f"docs/{here}")

    def turn(link: re.Match[str]) -> str:
        text, target, anchor = link.group(1), link.group(2), link.group(3) or ""
        if not target:
            return link.group(0)
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        to = PAGES.get(path, path.removeprefix("docs/") if path.startswith("docs/") else None)
        if to is None:
            return text
        return f"[{text}]({posixpath.relpath(to, posixpath.dirname(here) or '.')}{anchor})"

    return LINK.sub(turn, markdown)
