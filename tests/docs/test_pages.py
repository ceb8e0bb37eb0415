"""What the documents say can be done: the Python runs, the commands and links are real."""

import re
import tomllib

import jax
import pytest
from absl import flags
from absl.testing import flagsaver
from PIL import Image

from mtl_jax import models, tasks
from mtl_jax.deploy import export, program
from mtl_jax.deploy.origin import Origin
from mtl_jax.deploy.predictor import Predictor
from mtl_jax.weighting import METHODS
from tests import fakes
from tests.docs import pages

# Pages that speak of flags as they were before a change.
HISTORY = "CHANGELOG.md"
PROGRAMS = {".", "bash", "mkdocs", "pip", "pre-commit", "pyrefly", "python", "python3", "ruff"}
PROGRAMS |= {"tensorboard"}
# Paths in the repository.
PATHS = r"(mtl_jax|datasets|docs|tests|\.ci)/[\w./]*"
# Files that a user has or makes.
USERS = ("~", "runs/", "FOLDER")
# Flags of absl, pytest and others.
FOREIGN = {"flagfile", "help", "logdir", "strict", "strict-skips", "check", "resolution"}

EXAMPLES = [
    # Compiling a whole network takes long.
    pytest.param(
        source,
        id=f"{pages.name(page)}-{number}",
        marks=[pytest.mark.slow] if "make_steps" in source else [],
    )
    for page in pages.PAGES
    # Those of data sets prepare a whole one.
    if not pages.name(page).startswith("datasets/")
    for number, source in enumerate(pages.blocks(page, "python"))
]
FLAG_FILES = sorted((pages.ROOT / "docs").rglob("*.flags"))
EVERY_PAGE = pytest.mark.parametrize("page", pages.PAGES, ids=pages.name)


@pytest.fixture
def launch(monkeypatch, tmp_path):
    """launch.py, in a folder with the methods that pages define; flags are reset afterwards."""
    import launch

    (tmp_path / "docs").symlink_to(pages.ROOT / "docs")
    for page in pages.PAGES:
        for file, function in re.findall(r"(\w+\.py):(\w+)", page.read_text(encoding="utf-8")):
            for source in pages.blocks(page, "python"):
                if f"def {function}(" in source:
                    (tmp_path / file).write_text(source)
    monkeypatch.chdir(tmp_path)
    with flagsaver.flagsaver():
        yield launch


def parse(words: list[str]) -> None:
    """Parses a command line as launch.py does."""
    flags.FLAGS.unparse_flags()
    flags.FLAGS(["launch.py", *words])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a photo, and with a network where the pages have a run."""
    folder = tmp_path_factory.mktemp("place")
    Image.new("RGB", (640, 480)).save(folder / "photo.jpg")
    network = models.build(
        tasks.select(list(fakes.TASKS)), num_classes=3, model="resnet_unet:backbone=resnet18"
    )
    predictor = Predictor(
        network,
        models.init(network, jax.random.key(0), (96, 128)),
        class_names=("bed", "books", "ceiling"),
        image_size=(96, 128),
    )
    config = {"model": "resnet_unet:backbone=resnet18", "dataset": "rooms", "precision": "float32"}
    losses = {"depth_loss": "l1", "normals_loss": "cosine", "normals_source": "labels"}
    origin = Origin(
        config=config | losses | {"tasks": list(fakes.TASKS)},
        step=1,
        result={},
        versions={},
        codebook=None,
        samples={},
        licence="",
        limits=(),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program, "to_stablehlo", lambda predictor: b"")
        export.export(folder / "runs" / "rooms-nash-0", predictor, origin)
    return folder


@pytest.mark.parametrize("source", EXAMPLES)
def test_an_example_runs_and_prints_what_it_says(source, capsys, request, monkeypatch, tmp_path):
    monkeypatch.chdir(request.getfixturevalue("place") if "mtl_jax.load(" in source else tmp_path)
    with jax.numpy_dtype_promotion("standard"):  # as where a user runs it
        exec(compile(source, "example", "exec"), {})
    promised = re.findall(r"print\(.*\)  # (.*)", source)
    printed = capsys.readouterr().out.splitlines()
    # Preparing a data set says before what it holds.
    assert (printed[-len(promised) :] if "datasets.prepare(" in source else printed) == promised


def test_there_are_examples_and_commands():
    assert len(EXAMPLES) >= 3
    assert sum(len(list(pages.launched(page))) for page in pages.PAGES) >= 30
    for page in (pages.ROOT / "README.md", pages.ROOT / "docs" / "guide.md"):
        assert list(pages.commands(page)) and pages.links(page), page
    assert any(code.startswith("--") for code in pages.inline(pages.ROOT / "docs" / "guide.md"))
    named = [
        code for page in pages.PAGES for code in pages.inline(page) if re.fullmatch(PATHS, code)
    ]
    assert len(named) >= 5


@EVERY_PAGE
def test_commands_parse(page, launch):
    for words in pages.launched(page):
        if words != ["--help"] and not any("=FOLDER/" in word for word in words):
            parse(words)


@pytest.mark.parametrize("file", FLAG_FILES, ids=lambda file: file.stem)
def test_flag_files_and_their_commands_parse(file, launch):
    parse([f"--flagfile={file}"])
    lines = file.read_text(encoding="utf-8").splitlines()
    commands = [line.split()[3:] for line in lines if line.startswith("#   python launch.py ")]
    assert commands
    for words in commands:
        parse(words)


@EVERY_PAGE
def test_flags_in_the_text_parse(page, launch):
    if pages.name(page) == HISTORY:
        return
    for code in pages.inline(page):
        if re.match(r"--[a-z_]+(=|$)", code) and code.split("=")[0][2:] not in FOREIGN:
            name = code[2:].split("=")[0]
            assert name in flags.FLAGS or name.removeprefix("no") in flags.FLAGS, code
            if "=" in code and not re.search(r"[A-Z]{3,}|\.\.\.", code):
                parse(code.split())


def test_the_changes_name_the_new_flags(launch):
    (page,) = (page for page in pages.PAGES if pages.name(page) == HISTORY)
    rows = re.findall(r"^\| .*? \| (`--.*) \|$", page.read_text(), flags=re.MULTILINE)
    assert len(rows) >= 9
    for row in rows:
        for code in re.findall(r"`(--[^`]+)`", row):
            parse([code])


@EVERY_PAGE
def test_programs_files_and_extras_of_commands_exist(page):
    project = tomllib.loads((pages.ROOT / "pyproject.toml").read_text())["project"]
    extras = set(project["optional-dependencies"])
    for words in pages.commands(page):
        assert words[0] in PROGRAMS, words
        files = [word for word in words if word.endswith((".py", ".md", ".flags", "/run"))]
        for file in (word.split("=")[-1] for word in files):
            assert file.startswith(USERS) or (pages.ROOT / file).is_file(), file
    named = re.findall(r'"?\.\[([a-z0-9,]+)\]"?', page.read_text(encoding="utf-8"))
    assert {extra for names in named for extra in names.split(",")} <= extras


@EVERY_PAGE
def test_paths_in_the_text_exist(page):
    for code in pages.inline(page):
        if re.fullmatch(PATHS, code) and "NAME" not in code:
            assert (pages.ROOT / code).exists(), code


@EVERY_PAGE
def test_links_lead_somewhere(page):
    for link in pages.links(page):
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), link
        assert not anchor or anchor in pages.anchors(path), link


def test_the_readme_is_one_page():
    assert (pages.ROOT / "README.md").stat().st_size <= 9000


def test_the_page_of_weightings_has_them_all():
    text = (pages.ROOT / "docs" / "weightings.md").read_text(encoding="utf-8")
    assert set(METHODS) <= set(re.findall(r"`([a-z0-9_]+)`", text))
