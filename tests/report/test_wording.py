import pytest

from mtl_jax.report.wording import describe


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("image_size", [96, 128], "96×128"),
        ("epochs", 15, "15 epochs"),
        ("epochs", 1, "1 epoch"),
        ("tasks", ["depth", "normals"], "depth + normals"),
        ("dataset", "rooms", "rooms"),
        ("dataset", "/a/b/my_data.py:mine:train=4", "my_data.py:mine with train=4"),
        ("learning_rate", 1e-4, "learning_rate 0.0001"),
        ("augment", True, "augment true"),
        ("pretrained", None, "no pretrained"),
    ],
)
def test_a_setting_in_words(key, value, text):
    assert describe(key, value) == text
