"""Weightings from their text: every keyword of every method can be reached."""

import inspect

import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.weighting import METHODS, Signals, Weighting, make
from mtl_jax.weighting.make import parse

# Another valid value of each keyword as text, and what the factory must get.
CHANGES = {
    "aligned_mtl": {"scale": ("median", "median"), "preference": ("1+2+0.5", (1, 2, 0.5))},
    "cagrad": {"c": ("0.2", 0.2), "rescale": ("2", 2)},
    "config": {"preference": ("1+2+3", (1, 2, 3))},
    "cr_mogm": {"method": ("fairgrad:alpha=1+max_norm=3", Weighting), "decay": ("0.5", 0.5)},
    "db_mtl": {"beta": ("0.5", 0.5), "sigma": ("1", 1.0)},
    "dualproj": {"preference": ("1+0+3", (1, 0, 3))},
    "dwa": {"steps_per_epoch": ("7", 7), "temperature": ("1e+1", 10.0)},
    "dwa_window": {"window": ("3", 3), "temperature": ("1.5", 1.5)},
    "equal": {},
    "excess_mtl": {"eta": ("0.5", 0.5)},
    "fairgrad": {"alpha": ("1", 1.0), "max_norm": ("inf", np.inf)},
    "famo": {"gamma": ("0", 0.0), "learning_rate": ("1e-3", 1e-3)},
    "fixed": {"task_weights": ("1+2+1", (1, 2, 1))},
    "gls": {},
    "go4align": {"groups": ("1", 1), "eta": ("0.1", 0.1)},
    "graddrop": {},
    "gradnorm": {"alpha": ("0.5", 0.5), "learning_rate": ("0.1", 0.1)},
    "gradvac": {"beta": ("0.1", 0.1)},
    "igb": {"steps_per_epoch": ("5", 5), "base_epoch": ("0", 0)},
    "imtl": {"learning_rate": ("0.1", 0.1)},
    "imtl_g": {},
    "imtl_l": {"learning_rate": ("0.1", 0.1)},
    "inverse_norm": {},
    "ldc_mtl": {"penalty": ("0.1", 0.1), "learning_rate": ("0.1", 0.1)},
    "mgda": {"normalization": ("loss+", "loss+")},
    "moco": {"beta": ("1", 1.0), "gamma": ("0.2", 0.2), "rho": ("0.3", 0.3)},
    "modo": {"gamma": ("0.1", 0.1), "rho": ("0", 0.0)},
    "nash": {"max_norm": ("inf", np.inf), "tolerance": ("0.1", 0.1), "max_weight": ("10", 10.0)},
    "pbi": {"preference": ("3+2+1", (3, 2, 1)), "theta": ("0", 0.0)},
    "pcd": {
        "tau": ("0.1+0.2", (0.1, 0.2)),
        "primary": ("1", 1),
        "beta": ("0.9", 0.9),
        "eps": ("0", 0.0),
    },
    "pcgrad": {},
    "rlw": {"form": ("dirichlet", "dirichlet")},
    "sdmgrad": {
        "pull": ("0.5", 0.5),
        "learning_rate": ("1", 1.0),
        "momentum": ("0", 0.0),
        "iterations": ("3", 3),
    },
    "si": {},
    "stch": {"steps_per_epoch": ("5", 5), "warmup_epochs": ("0", 0), "mu": ("0.1", 0.1)},
    "upgrad": {"preference": ("0.5+0.5+0.5", (0.5, 0.5, 0.5))},
    "uw": {
        "form": ("likelihood", "likelihood"),
        "classification": ("true+false+false", (True, False, False)),
        "learning_rate": ("0.1", 0.1),
        "initial": ("-1", -1.0),
    },
    "uw_so": {"temperature": ("3", 3.0)},
}
KEYWORDS = [(name, key) for name in METHODS for key in inspect.signature(METHODS[name]).parameters]


def test_all_methods_and_keywords_are_here():
    assert set(CHANGES) == set(METHODS)
    assert [(name, key) for name in METHODS for key in CHANGES[name]] == KEYWORDS
    assert len(KEYWORDS) == 60


@pytest.mark.parametrize(("name", "key"), KEYWORDS)
def test_every_keyword_of_every_method_is_passed_on(name, key, monkeypatch):
    text, value = CHANGES[name][key]
    factory, calls = METHODS[name], []
    signature = inspect.signature(factory)

    def spy(**options):
        calls.append(options)
        return factory(**options)

    spy.__signature__ = signature
    monkeypatch.setitem(METHODS, name, spy)
    context = {"steps_per_epoch": 9, "classification": (False, False, True)}
    assert isinstance(make(f"{name}:{key}={text}", **context), Weighting)
    asked = {other: given for other, given in context.items() if other in signature.parameters}
    if value is Weighting:
        assert isinstance(calls[0].pop(key), Weighting) and calls == [asked]
        return
    assert calls == [asked | {key: value}]
    assert type(calls[0][key]) is type(value)
    assert value != signature.parameters[key].default


def weights_of(weighting, losses=(1.0, 2.0, 4.0), steps=1):
    gram = jnp.array([[4.0, -1.0, 0.5], [-1.0, 2.0, 0.1], [0.5, 0.1, 1.0]])
    state = weighting.init(3)
    for step in range(steps):
        given = Signals(jnp.array(losses) / (1 + step), gram, jnp.array(step))
        weights, state, _ = weighting.update(given, state)
    return np.asarray(weights.shared)


def test_options_have_their_effect():
    np.testing.assert_array_equal(weights_of(make("fixed:task_weights=1+2+0")), [1, 2, 0])
    np.testing.assert_allclose(weights_of(make("uw:initial=-1")), 0.5 * np.e, rtol=1e-6)
    short, long = (weights_of(make(f"nash:max_norm={norm}")) for norm in (0.1, 0.2))
    np.testing.assert_allclose(long, 2 * short, rtol=1e-5)
    assert np.ptp(weights_of(make("dwa_window:window=1,temperature=1000"), steps=3)) < 1e-3


def test_what_a_run_knows_goes_to_the_methods_that_ask():
    kinds = (True, False, False)
    found = weights_of(make("uw:form=likelihood", classification=kinds))
    np.testing.assert_array_equal(found, [1, 0.5, 0.5])
    # The text counts more than what the run supplies.
    text = "uw:form=likelihood,classification=false+false+true"
    np.testing.assert_array_equal(weights_of(make(text, classification=kinds)), [0.5, 0.5, 1])
    assert isinstance(make("equal", steps_per_epoch=3, classification=kinds), Weighting)


def test_a_supplied_option_stays_in_the_canonical_text():
    assert str(parse("dwa:steps_per_epoch=100,temperature=2")) == "dwa:steps_per_epoch=100"
    assert str(parse("fairgrad:max_norm=1.0,alpha=2")) == "fairgrad"


OWN = """
import dataclasses
import jax.numpy as jnp
from mtl_jax.weighting import from_losses

@dataclasses.dataclass
class Power:
    value: float

def inverse(power: float = 1.0, *, steps_per_epoch: int = 1):
    p = Power(power)
    return from_losses(lambda losses: losses ** -p.value / steps_per_epoch)

def number():
    return 3

def needs(shift):
    return from_losses(lambda losses: losses + shift)
"""


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "nash.py"  # the name of another module
    path.write_text(OWN)
    (tmp_path / "ends.py").write_text("import sys; sys.exit()")
    return path


def test_a_function_of_your_own(own, monkeypatch):
    weighting = make(f"{own}:inverse:power=2", steps_per_epoch=4)
    np.testing.assert_allclose(weights_of(weighting), [1 / 4, 1 / 16, 1 / 64], rtol=1e-6)
    assert str(parse(f"{own}:inverse:power=1")) == f"{own}:inverse"
    monkeypatch.chdir(own.parent)
    own.rename("my_methods.py")
    np.testing.assert_array_equal(weights_of(make("my_methods.py:needs:shift=1")), [2, 3, 5])
    np.testing.assert_array_equal(weights_of(make("my_methods:needs:shift=1")), [2, 3, 5])


def test_a_file_of_your_own_is_executed_once_and_named_by_its_whole_path(tmp_path, monkeypatch):
    folder = tmp_path / "a:b"
    folder.mkdir()
    (folder / "next_to_it.py").write_text("POWER = 2.0")
    (folder / "mine.py").write_text(
        "from pathlib import Path\n"
        "from next_to_it import POWER\n"
        "from mtl_jax.weighting import from_losses\n"
        "with Path(__file__).with_name('count').open('a') as file:\n"
        "    file.write('x')\n"
        "def own(*, power: float = 1.0):\n"
        "    return from_losses(lambda losses: losses ** (POWER * power))\n"
    )
    monkeypatch.chdir(folder)
    text = str(parse("mine.py:own:power=3"))
    assert text == f"{folder / 'mine.py'}:own:power=3"
    monkeypatch.chdir("/")
    assert str(parse(text)) == text
    np.testing.assert_array_equal(weights_of(make(text)), [1, 64, 4096])
    assert (folder / "count").read_text() == "x"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("nahs", "'nahs' is unknown: choose from equal, .*FILE.py:FUNCTION"),
        ("", "'' is unknown"),
        ("nahs:alpha=2", "'nahs:alpha=2' is unknown"),
        ("no_such_file.py:make", "no_such_file.py can't be imported .FileNotFoundError"),
        ("no_such_module:make", "no_such_module can't be imported .ModuleNotFoundError"),
        ("OWN:nothing", "has no function 'nothing'"),
        ("OWN:number", "number must return a Weighting.*got int 3"),
        ("OWN:needs", "needs the option shift, as .*:needs:shift="),
        ("OWN:inverse:power=x", "power must be a number, got 'x'"),
        ("fairgrad:beta=1", "fairgrad has no option 'beta'; its options are alpha, max_norm"),
        ("equal:x=1", "equal has no option 'x'; it has no options"),
        ("fairgrad:alpha=two", "alpha must be a number, got 'two'"),
        ("fairgrad:alpha=nan", "alpha must be a number, got 'nan'"),
        ("fairgrad:alpha=true", "alpha must be a number"),
        ("fairgrad:alpha=1,alpha=2", "each key once"),
        ("fairgrad:alpha", "key=value"),
        ("fairgrad:alpha=-1", "fairgrad's alpha must be positive"),
        ("cagrad:rescale=1.5", "rescale must be a whole number, got '1.5'"),
        ("fixed:task_weights=a+b", "task_weights must be numbers such as 1"),
        ("uw:form=likelihood", "needs `classification`"),
        ("uw:classification=1+0+1", "classification must be words such as true"),
        ("fixed:task_weights=1+true", "task_weights must be numbers"),
        ("nash:max_norm=1e999", "max_norm must be a number"),
        (f"nash:max_norm={'9' * 400}", "max_norm must be a number"),
        ("nash,max_norm=1", "options follow a colon, as in nash:max_norm=1"),
        ("OWN:inverse,power=1", "options follow a colon, as in .*:inverse:power=1"),
        ("OWN_DIR/ends.py:f", "ends.py can't be imported .SystemExit"),
    ],
)
def test_a_bad_text_is_refused_in_one_line(text, complaint, own):
    with pytest.raises(ValueError, match=complaint) as raised:
        make(text.replace("OWN_DIR", str(own.parent)).replace("OWN", str(own)))
    assert "\n" not in str(raised.value)
