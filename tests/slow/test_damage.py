"""Damaged folders: a right result or one line that names the file; no traceback, no wrong number.

Every file that a finished run and a prepared data set leave is damaged in half of the ways of
`DAMAGES`, and one command then uses the folder. Which ones is drawn by a fixed seed, so that all
pairs of a way and a command occur.
"""

import csv
import os
import random
import shutil
from pathlib import Path

import pytest

from tests.slow import programs

pytestmark = pytest.mark.slow

COMMANDS = {
    "resume": "--workdir=run",
    "evaluate": "--workdir=run --mode=evaluate",
    "report": "--workdir=run --mode=report --out=out",
    "export": "--workdir=run --mode=export --out=exported",
}
# As they are found in a folder; of names that vary there is one.
RUN_FILES = (
    "run/config.json", "run/metrics.jsonl", "run/result.json", "run/versions.json",
    "run/flags.txt", "run/samples.npz", "run/events.out.tfevents.*", "run/report/report.html",
    "run/report/table.csv", "run/report/weights.png", "run/checkpoints/4/_CHECKPOINT_METADATA",
    "run/checkpoints/4/default/_METADATA", "run/checkpoints/4/default/_sharding",
    "run/checkpoints/4/default/manifest.ocdbt", "run/checkpoints/4/default/d/*",
    "run/checkpoints/4/default/array_metadatas/process_0",
    "run/checkpoints/4/default/ocdbt.process_0/d/*", "run/checkpoints/4/commit_success.txt",
    "run/checkpoints/4/default/commit_success.txt", "run/checkpoints/4/*.json",
)  # fmt: skip
DATA_FILES = (
    "data/rooms/.config/metadata.json",
    "data/rooms/96x128-8+4/1.0.0/dataset_info.json",
    "data/rooms/96x128-8+4/1.0.0/features.json",
    "data/rooms/96x128-8+4/1.0.0/metadata.json",
    "data/rooms/96x128-8+4/1.0.0/rooms-test.array_record-00000",
    "data/rooms/96x128-8+4/1.0.0/rooms-train.array_record-00000",
)


def flip_a_byte(path: Path) -> None:
    """Changes the highest bit of the byte in the middle: of text too that shows."""
    content = bytearray(path.read_bytes())
    if content:
        content[len(content) // 2] ^= 0x80
    path.write_bytes(content)


def become_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES = {
    "removed": Path.unlink,
    "emptied": lambda path: path.write_bytes(b""),
    "halved": lambda path: os.truncate(path, path.stat().st_size // 2),
    "flipped": flip_a_byte,
    "a folder": become_a_folder,
    "null": lambda path: path.write_text("null"),
}


def sample() -> list[tuple[str, str, str]]:
    """Files, the ways in which they are damaged, and the commands that follow."""
    rng = random.Random(7)
    cases = []
    for number, name in enumerate(RUN_FILES + DATA_FILES):
        ways = rng.sample(list(DAMAGES), 3)
        commands = list(COMMANDS) if name in RUN_FILES else ["resume", "evaluate", "export"]
        cases += [
            (name, way, commands[(number + place) % len(commands)])
            for place, way in enumerate(ways)
        ]
    return cases


@pytest.fixture(scope="module")
def right(made) -> dict[str, object]:
    """What each command gives in an undamaged folder."""
    folder = made / "right"
    shutil.copytree(made / "run", folder / "run")
    shutil.copytree(made / "data", folder / "data")
    found = {}
    for command, flags in COMMANDS.items():
        finished = programs.launch(flags, folder)
        assert finished.status == 0, finished.text
        found[command] = outcome(command, finished, folder)
    return found


def outcome(command: str, finished: programs.Finished, folder: Path) -> object:
    """The numbers that a command leaves."""
    if command == "resume":
        return programs.read_json(folder / "run" / "result.json")
    if command == "evaluate":
        return [line for line in finished.lines if " on test" in line or "trivial" in line]
    if command == "report":
        with (folder / "out" / "table.csv").open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    return (folder / "exported" / "weights.safetensors").read_bytes()


@pytest.mark.parametrize(("name", "way", "command"), sample())
def test_a_damaged_folder_gives_the_right_result_or_names_the_file(
    right, with_run, name, way, command
):
    paths = sorted(with_run.glob(name))
    if not paths:
        pytest.skip(f"nothing is called {name} here")
    path = max(paths, key=lambda path: path.stat().st_size)
    DAMAGES[way](path)
    finished = programs.launch(COMMANDS[command], with_run)
    assert not finished.has_traceback, finished.text
    assert finished.status in (0, 1), finished.text
    if finished.status == 1:
        line, others = programs.refusal(finished)
        assert names(line, path, with_run), finished.text
        assert others <= programs.MOST_LINES, finished.text
        return
    found = outcome(command, finished, with_run)
    if command == "resume" and path.name == "metrics.jsonl" and path.name in finished.text:
        # Lost rows are said; what the checkpoint holds is measured again.
        assert found["metrics"] == right[command]["metrics"]
    elif command == "report":
        if found != right[command]:
            html = (with_run / "out" / "report.html").read_text(encoding="utf-8")
            assert path.name in finished.text + html
            assert_no_other_numbers(found, right[command])
    else:
        assert found == right[command]


def names(line: str, path: Path, sandbox: Path) -> bool:
    """Whether a line names the damaged file, or the checkpoint or data set that it is a part of."""
    relative = str(path.relative_to(sandbox))
    folders = [part for part in ("checkpoints/4", "96x128-8+4/1.0.0") if part in relative]
    return any(part in line for part in (path.name, *folders))


def assert_no_other_numbers(found: list[dict], right: list[dict]) -> None:
    """Each cell is the right one or empty."""
    assert len(found) <= len(right)
    for row, right_row in zip(found, right, strict=False):
        for column, cell in row.items():
            is_number = cell.replace(".", "").isdecimal()
            assert not is_number or cell == right_row.get(column), (column, cell)
