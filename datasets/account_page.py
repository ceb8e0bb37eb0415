"""The page of a set of one's own: what was found, and some images with their labels over them."""

import base64
import html
import io
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from datasets.account import MISSING, Account
from mtl_jax.report import page, strips
from mtl_jax.tasks import TASKS, Classes, Picture, Scale
from mtl_jax.tasks.images import divided, in_colour

Example = Mapping[str, np.ndarray]
# Longest side of a picture in pixels.
WIDEST = 480
QUALITY = 80
# Share of the class's colour in a labelled pixel; the rest is the photo.
OPACITY = 0.6
STYLE = """
.shots { display: grid; gap: 6px 10px; margin: 0 0 22px;
  grid-template-columns: repeat(auto-fill, minmax(min(220px, 45%), 1fr)); }
.shots figure { margin: 0; }
.shots img { width: 100%; border-radius: 3px; }
.shots figcaption { font-size: 13px; margin: 2px 0 0; }
.key img { border-radius: 50%; width: 96px; }
.none { display: flex; align-items: center; justify-content: center; text-align: center;
  border: 1px dashed var(--line); border-radius: 3px; color: var(--soft); font-size: 13px; }
.legend { list-style: none; padding: 0; margin: 12px 0; columns: 220px; column-gap: 44px;
  max-width: 1000px;
  font: 13.5px/1.7 "Inter", "Helvetica Neue", "Liberation Sans", "Arial", sans-serif; }
.legend li { display: flex; align-items: center; gap: 8px; max-width: none;
  break-inside: avoid; }
.legend b { width: 14px; height: 14px; border-radius: 3px; flex: none;
  border: 1px solid var(--line); }
.legend span { overflow-wrap: anywhere; }
.legend i { margin-left: auto; font-style: normal; font-variant-numeric: tabular-nums; }
.bar { max-width: 420px; margin: 10px 0; font-size: 13px; color: var(--soft); }
.bar div { height: 14px; border-radius: 3px; }
.bar p { display: flex; justify-content: space-between; margin: 2px 0; max-width: none; }
.problems { padding-left: 22px; font-size: 14px; }
.problems li { margin: 4px 0; max-width: 108ch; overflow-wrap: anywhere; }
.subtitle, .notes li { overflow-wrap: anywhere; }
.key { display: flex; align-items: center; gap: 12px; font-size: 13px; color: var(--soft); }
"""


def make(account: Account) -> str:
    """Returns a self-contained HTML page."""
    sizes = f"size of the images: {', '.join(account.size_texts())}"
    lines = [sizes, *account.notes(), *(f"**{line}**" for line in account.warnings())]
    shown = [example for named in account.shown.values() for _, example in named]
    limits = {name: _limits(picture, name, shown) for name, picture in _pictures(account).items()}
    sections = [
        page.section("Problems", _problems(account)),
        page.section("What was found", _labels(account), page.notes(lines)),
        page.section("Classes", _legend(account)),
        page.section("Depth", _quantiles(account)),
        page.section("Colours", *(_key(account, name, limits[name]) for name in limits)),
        *(
            page.section(
                f"Images of {split}",
                *(_shots(account, *named, limits) for named in account.shown[split]),
            )
            for split in account.shown
        ),
    ]
    title = "Images that can't be used yet" if account.problems else "Images with their labels"
    return page.page(title, account.title(), list(filter(None, sections)), style=STYLE)


def _pictures(account: Account) -> dict[str, Picture]:
    """Returns how each kind of labels is drawn, in the order of the tasks."""
    drawn = {name: task.picture for name, task in TASKS.items() if name in account.kinds()}
    return {
        name: picture._replace(colours=lambda number: account.colours())
        if isinstance(picture, Classes)
        else picture
        for name, picture in drawn.items()
    }


def _limits(picture: Picture, name: str, shown: Sequence[Example]) -> tuple[float, float]:
    """Returns the ends of the scale that all images share, of a picture with one."""
    values = [example[name].ravel() for example in shown]
    if not isinstance(picture, Scale) or not values:
        return 0.0, 1.0
    known = np.concatenate(values)
    return picture.limits(known, known)


def _problems(account: Account) -> str:
    if not account.problems:
        return ""
    items = "".join(f"<li>{html.escape(problem)}</li>" for problem in account.problems)
    hint = account.hint().removeprefix(". ").replace("`", "")
    return f'<ol class="problems">{items}</ol>{page.paragraph(f"{hint}.") if hint else ""}'


def _labels(account: Account) -> str:
    """Returns a table of the images of each split that have labels."""
    rows = [
        [split, f"{count:,}", *(account.labelled_text(split, kind) for kind in account.kinds())]
        for split, count in account.images.items()
    ]
    table = page.facts(["split", "images", *account.kinds()], rows)
    note = "Labels with problems are not counted."
    return table + (page.paragraph(note) if account.problems else "")


def _legend(account: Account) -> str:
    """Returns the classes in their colours, with the share of their pixels."""
    if not account.classes.sum():
        return ""
    picture = next(x for x in _pictures(account).values() if isinstance(x, Classes))
    colours = picture.colours(len(account.class_names))
    items = []
    for name, index, share in account.class_shares():
        colour = "transparent" if index < 0 else f"rgb{tuple(map(int, colours[index]))}"
        items.append(
            f'<li><b style="background: {colour}"></b><span>{html.escape(name)}</span>'
            f"<i>{share:.2%}</i></li>"
        )
    return f'<ul class="legend">{"".join(items)}</ul>'


def _quantiles(account: Account) -> str:
    quantiles = account.depth_quantiles()
    if not quantiles:
        return ""
    heads = [f"{level:.0%}" for level in quantiles]
    row = [f"{value:.4g} m" for value in quantiles.values()]
    return page.paragraph("Percentiles of depth:") + page.facts(heads, [row])


def _key(account: Account, name: str, limits: tuple[float, float]) -> str:
    """Returns what the colours of a kind of labels mean; classes have a legend of their own."""
    picture = _pictures(account)[name]
    if isinstance(picture, Classes):
        return ""
    if isinstance(picture, Scale):
        stops = strips.paint_scale(np.linspace(*limits, 12), limits, picture.colormap)
        colours = ", ".join(f"rgb{tuple(map(int, stop))}" for stop in stops)
        low, high = (f"{end:.3g}" for end in limits)
        texts = "".join(f"<span>{text}</span>" for text in (low, html.escape(picture.label), high))
        return (
            f'<div class="bar"><div style="background: linear-gradient(90deg, {colours})"></div>'
            f"<p>{texts}</p></div>"
        )
    text = html.escape(f"{name}: {picture.key_text}")
    return f'<p class="key">{_image(picture.key(96), text)}<span>{text}</span></p>'


def _shots(
    account: Account, title: str, example: Example, limits: Mapping[str, tuple[float, float]]
) -> str:
    """Returns an image and its labels side by side, and what else the network sees."""
    image = in_colour(example["image"])
    figures = [_figure(image, title)]
    _, depth = divided(example["image"])
    if depth.size:
        figures.append(_figure(in_colour(depth), "depth of the sensor"))
    for name, picture in _pictures(account).items():
        labels = example[name]
        if not np.any(labels != MISSING[name]):
            shape = f"aspect-ratio: {image.shape[1]} / {image.shape[0]}"
            text = f"no {'usable ' if account.problems else ''}{name}"
            figures.append(f'<figure class="none" style="{shape}">{text}</figure>')
        elif isinstance(picture, Classes):
            over = _over(image, labels, picture.paint(labels, len(account.class_names)))
            figures.append(_figure(over, name))
        elif isinstance(picture, Scale):
            colours = strips.paint_scale(labels, limits[name], picture.colormap)
            figures.append(_figure(colours, name))
        else:
            figures.append(_figure(picture.paint(labels), name))
    return f'<div class="shots">{"".join(figures)}</div>'


def _over(image: np.ndarray, labels: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Returns the colours of the labels over the image, which is grey where no label is known."""
    grey = image.mean(-1, keepdims=True)
    blended = OPACITY * colours + (1 - OPACITY) * grey
    return np.where((labels >= 0)[..., None], blended, grey).astype(np.uint8)


def _figure(pixels: np.ndarray, caption: str) -> str:
    text = html.escape(caption)
    return f"<figure>{_image(pixels, text)}<figcaption>{text}</figcaption></figure>"


def _image(pixels: np.ndarray, text: str) -> str:
    """Returns a picture u8[H, W, 3] that the page embeds; the text describes it."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((WIDEST, WIDEST))
    buffer = io.BytesIO()
    picture.save(buffer, format="webp", quality=QUALITY)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<img src="data:image/webp;base64,{data}" width="{picture.width}" alt="{text}">'
