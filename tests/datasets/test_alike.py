"""Problems of one kind in one line."""

import pytest

from datasets import alike

ROOT = "/my.photos/mine"


def problems(count, text="has the label {} outside 0..2 (255 = no label)"):
    return [f"{ROOT}/masks/train/{i:04d}.png {text.format(40 + i)}" for i in range(count)]


def test_few_problems_have_a_line_each():
    given = problems(alike.MOST)
    assert alike.lines(given, ROOT) == given


@pytest.mark.parametrize("others", [[], [f"{ROOT}/depth/a.npy can't be read"]])
def test_many_of_one_kind_are_one_line(others):
    first, *_ = given = problems(17)
    names = "masks/train/0001.png, masks/train/0002.png"
    found = alike.lines([*given[:9], *others, *given[9:]], ROOT)
    assert found == [f"{first}; likewise {names} and 14 more", *others]


def test_examples_have_names_too():
    text = "train example {}: depth holds the negative depth -{}: a missing depth is 0"
    (found,) = alike.lines([text.format(i, i + 1) for i in range(1000)], "mine.py:make")
    expected = f"{text.format(0, 1)}; likewise train example 1, train example 2 and 997 more"
    assert found == expected


def test_what_names_no_file_stays_as_it_is():
    given = [f"something is wrong, {letter}" for letter in "abcdefghij"]
    assert alike.lines(given, ROOT) == given
