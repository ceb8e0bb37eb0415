"""Choices as text: parsing, the canonical text, lists of them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtl_jax.weighting import METHODS
from mtl_jax.weighting.options import Choice, is_own, parse, parts, split


def bake(
    minutes: float = 30.0,
    *,
    times: int = 1,
    kind: str = "bread",
    covered: bool = False,
    parts: tuple[float, ...] | None = None,
    sizes: tuple[int, ...] = (1, 2),
    oven=None,
):
    return minutes, times, kind, covered, parts, sizes, oven


def weigh(grams, *, scale: float = 1.0, **rest):
    return grams * scale


TABLE = {"bake": bake, "weigh": weigh}

finite = st.floats(allow_nan=False)
numbers = st.one_of(st.integers(-(10**9), 10**9), finite)
words = st.text("abcdefghijklmnopqrstuvwxyz0123456789_+-.", min_size=1, max_size=12)
options = st.fixed_dictionaries(
    {},
    optional={
        "minutes": finite,
        "times": st.integers(),
        "kind": words,
        "covered": st.booleans(),
        "parts": st.lists(numbers, min_size=1, max_size=4).map(tuple),
        "sizes": st.lists(st.integers(), min_size=1, max_size=4).map(tuple),
    },
)


@given(options)
def test_parsing_the_text_of_a_choice_gives_the_choice(chosen):
    defaults = {"minutes": 30.0, "times": 1, "kind": "bread", "covered": False, "sizes": (1, 2)}
    order = [key for key in ("minutes", "times", "kind", "covered", "parts", "sizes")]
    kept = {k: chosen[k] for k in order if k in chosen and chosen[k] != defaults.get(k)}
    choice = Choice("bake", bake, kept)
    again = parse(str(choice), TABLE)
    assert again == choice
    assert str(again) == str(choice)
    assert bake(**again.options) == bake(**chosen)


def test_values_have_the_types_of_the_defaults():
    text = "bake:minutes=2,times=3,kind=5,covered=True,parts=1+2.5+1e-3,sizes=4"
    found = parse(text, TABLE).options
    assert found == {
        "minutes": 2.0,
        "times": 3,
        "kind": "5",
        "covered": True,
        "parts": (1, 2.5, 1e-3),
        "sizes": (4,),
    }
    assert isinstance(found["minutes"], float)
    assert parse("bake:minutes=-inf", TABLE).options == {"minutes": -math.inf}
    assert parse("bake:minutes=1e+3,parts=1e+3+2E+4", TABLE).options == {
        "minutes": 1000.0,
        "parts": (1000.0, 20000.0),
    }


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("bake", "bake"),
        ("bake:", "bake"),
        ("bake:minutes=30,times=1,covered=false", "bake"),
        ("bake:times=2,minutes=1.50", "bake:minutes=1.5,times=2"),
        ("bake:covered=TRUE,minutes=1000000", "bake:minutes=1000000,covered=true"),
        ("bake:parts=1.0+2", "bake:parts=1+2"),
        ("weigh:grams=3,scale=1", "weigh:grams=3"),
    ],
)
def test_one_text_for_all_that_choose_the_same(text, canonical):
    assert str(parse(text, TABLE)) == canonical
    assert str(parse(canonical, TABLE)) == canonical


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("fry", "'fry' is unknown: choose from bake, weigh"),
        ("bake:heat=3", "bake has no option 'heat'; its options are minutes, times"),
        ("bake:times=1.0", "times must be a whole number"),
        ("bake:times=true", "times must be a whole number"),
        ("bake:times=2+3", "times must be a whole number"),
        ("bake:covered=1", "covered must be true or false"),
        ("bake:minutes=nan", "minutes must be a number"),
        ("bake:minutes=", "minutes must be a number, got ''"),
        ("bake:parts=1+", "parts must be numbers"),
        ("bake:minutes", "key=value"),
        ("bake:minutes=1,,times=2", "key=value"),
        ("bake:times=1,times=2", "each key once"),
        ("weigh", "weigh needs the option grams, as weigh:grams="),
        ("weigh:rest=1,grams=2", "weigh has no option 'rest'"),
    ],
)
def test_a_bad_text_is_named(text, complaint):
    with pytest.raises(ValueError, match=complaint) as raised:
        parse(text, TABLE)
    assert "\n" not in str(raised.value) and repr(text) in str(raised.value)


def test_arguments_that_the_caller_passes_are_not_options():
    assert parse("weigh", TABLE, context=["grams"]).options == {}
    with pytest.raises(ValueError, match="no option 'grams'; its options are scale"):
        parse("weigh:grams=2", TABLE, context=["grams"])


def test_arguments_that_the_caller_supplies_are_kept_if_the_text_sets_them():
    assert str(parse("bake:times=1", TABLE, supplied=["times"])) == "bake:times=1"
    assert str(parse("weigh", TABLE, supplied=["grams"])) == "weigh"


@given(st.lists(st.sampled_from(["nash", "sdmgrad:pull=1,momentum=0", "a.py:f:x=1,y=2", "dwa:"])))
def test_a_list_survives_its_commas(texts):
    torn = ",".join(texts).split(",") if texts else []
    assert split(torn) == texts


def test_a_list_keeps_what_is_not_an_option():
    assert split(["nash", "momentum=0"]) == ["nash", "momentum=0"]


def test_the_temperature_of_the_window():
    choice = parse("dwa_window:temperature=3", METHODS)
    assert choice.options == {"temperature": 3.0} and choice.factory is METHODS["dwa_window"]


def test_the_parts_of_a_text():
    assert parts("nash") == ("nash", [])
    assert parts("sdmgrad:pull=1,momentum=0") == ("sdmgrad", ["pull=1", "momentum=0"])
    assert parts("m.py:f:path=a:b=c") == ("m.py:f", ["path=a:b=c"])
    assert parts("m.py:f") == ("m.py:f", [])


def test_whether_a_text_names_a_function_of_your_own():
    assert all(is_own(text, METHODS) for text in ("m.py:f", "a.b:f:x=1", "/a:b/m.py:f:x=1"))
    assert not any(is_own(text, METHODS) for text in ("nash", "nash:max_norm=1", "foo", "foo:x=1"))
