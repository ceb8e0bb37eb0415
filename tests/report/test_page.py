"""The style of the pages: readable in a light and in a dark scheme."""

import re

import pytest

from datasets import account_page
from mtl_jax.report import page

# The variables of a scheme.
ROOT = re.compile(r":root \{(.*?)\}", re.DOTALL)
LIGHT, DARK = (dict(re.findall(r"--(\w+): (#\w+);", text)) for text in ROOT.findall(page.CSS))


def luminance(colour):
    """Returns the relative luminance of a colour such as #fff or #20242b, as WCAG defines it."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * x for x in colour[1:])
    values = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    red, green, blue = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in values]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("text", ["ink", "soft", "accent"])
def test_text_has_the_contrast_that_wcag_asks_for(scheme, text):
    darker, lighter = sorted((luminance(scheme["paper"]), luminance(scheme[text])))
    assert (lighter + 0.05) / (darker + 0.05) >= 4.5


def test_a_dark_page_has_no_colour_of_a_light_one():
    assert LIGHT.keys() == DARK.keys()
    assert not set(LIGHT.values()) & set(DARK.values())
    assert "@media (prefers-color-scheme: dark) {\n  :root {" in page.CSS
    for style in (ROOT.sub("", page.CSS), account_page.STYLE):
        assert not re.findall(r"#[0-9a-fA-F]{3,8}\b", style)
