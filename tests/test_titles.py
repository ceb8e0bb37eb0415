"""What tables call things."""

from mtl_jax import titles
from mtl_jax.tasks import TASKS
from mtl_jax.weighting import METHODS, TITLES


def test_every_weighting_has_a_title_of_its_own():
    assert set(TITLES) == set(METHODS)
    assert len(set(TITLES.values())) == len(METHODS)


def test_heads_have_units_and_arrows_as_the_literature_prints_them():
    heads = [titles.head(metric) for task in TASKS.values() for metric in task.metrics]
    assert heads == [
        "mIoU % ↑", "PixAcc % ↑", "AbsErr m ↓", "RelErr ↓", "RMSE m ↓", "δ<1.25 % ↑", "δ<1.25² % ↑",
        "δ<1.25³ % ↑", "Mean° ↓", "Median° ↓", "<11.25° % ↑", "<22.5° % ↑", "<30° % ↑",
    ]  # fmt: skip
