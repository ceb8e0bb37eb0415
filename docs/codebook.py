"""What a codebook of normals loses before anything is learned, and how it looks.

python docs/codebook.py [FOLDER_OF_TFDS]
"""

import sys
from pathlib import Path

from datasets.rooms import rooms_dataset_builder as rooms
from mtl_jax import data
from mtl_jax.report.sphere import sphere_figure
from mtl_jax.tasks import NORMALS, codebook

SIZES = (20, 40, 80)


def main(data_dir: str | None = None) -> None:
    """Prints the table of mean angles on the test images of rooms and draws 40 codewords."""
    builder = rooms.Builder(config=rooms.config(), data_dir=data_dir)
    rooms.prepare(builder)
    splits = data.open_splits(builder)
    train, test = (
        data.sample_labels(splits[name], NORMALS.labels[0]) for name in ("train", "test")
    )
    print("| codewords | nearest codeword, ° | soft code, ° |\n|--:|--:|--:|")
    for row in codebook.quantisation_floor(test, SIZES, fit_to=train):
        print(f"| {row['codewords']} | {row['nearest']:.2f} | {row['soft']:.2f} |")
    book = codebook.triangulate(codebook.fit(train, 40))
    sphere_figure(book).savefig(Path(__file__).parent / "codebook.png", dpi=110)


if __name__ == "__main__":
    main(*sys.argv[1:])
