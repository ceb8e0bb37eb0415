"""The page of a prepared folder: what was found, and some images with their labels."""

from collections.abc import Mapping, Sequence

import numpy as np

from mtl_jax.report import page, pictures, strips

# A few of a split, with their file names.
Shown = Sequence[tuple[str, Mapping[str, np.ndarray]]]


def make(lines: Sequence[str], shown: Mapping[str, Shown], class_names: Sequence[str]) -> str:
    """Returns a self-contained HTML page.

    Args:
      lines: what was found, the first one as the subtitle.
      shown: split -> names and examples, as they are stored.
      class_names: names of the classes.
    """
    sections = [page.notes([line.strip() for line in lines[1:]])]
    for split, named in shown.items():
        names, examples = zip(*named, strict=True)
        samples = {key: np.stack([x[key] for x in examples]) for key in examples[0]}
        figure = strips.strip_figure(samples, class_names, texts=names)
        png = pictures.to_png(figure)
        caption = "Pixels without a label are black. " + " ".join(strips.captions(samples))
        picture = page.picture(png, caption, width=pictures.width_of(png), scrolls=True)
        sections.append(page.section(f"Images of {split}", picture))
    return page.page("A folder of images", lines[0], sections)
