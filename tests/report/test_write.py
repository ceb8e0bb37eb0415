import base64
import errno
import io
import json
import os
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib import pyplot
from PIL import Image

from mtl_jax import files
from mtl_jax.report import write_report
from tests.fakes import TASKS

pytestmark = pytest.mark.usefixtures("unarranged")

RESULT = {metric.name: 0.5 for task in TASKS.values() for metric in task.metrics}
FLOOR = {name: 0.25 for name in RESULT}


class Page(HTMLParser):
    """What a browser would load, and whether every tag is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.links, self.tags, self.text = [], [], [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "srcset", "data")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data + " "


def page_of(path):
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    # Nothing is fetched from anywhere.
    assert not re.search(r"https?:|url\(|@import", text)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    for link in page.links:
        head, data = link.split(",", 1)
        assert head in ("data:image/png;base64", "data:image/webp;base64")
        Image.open(io.BytesIO(base64.b64decode(data, validate=True))).verify()
    return page


def files_of(path):
    return sorted(file.name for file in path.parent.iterdir())


def epochs_with_cosines(make_epoch):
    diagnostics = {"cosine/segmentation-depth": 0.1, "fallback": 0.25}
    return [make_epoch(number, diagnostics=diagnostics) for number in (1, 2)]


def test_report_of_one_run(write_run, make_epoch, tmp_path):
    run = write_run(
        weighting="nash", metrics=RESULT, result={"floor": FLOOR}, pictures=True,
        lines=epochs_with_cosines(make_epoch),
    )  # fmt: skip
    report = write_report([run], tmp_path / "deep" / "out")
    assert report == tmp_path / "deep" / "out" / "report.html"
    assert files_of(report) == [
        "cosines.png", "loss_depth.png", "loss_normals.png", "loss_segmentation.png",
        "report.html", "strips_run.png", "table.csv", "table.md", "weights.png",
    ]  # fmt: skip
    page = page_of(report)
    assert len(page.links) == 6
    assert page.text.index("Results") < page.text.index("Losses") < page.text.index("Predictions")
    assert "Missing" not in page.text
    # 2 epochs of 360 s at 20 images a second, a skipped step in each, a fallback in every 4th.
    assert "Nash-MTL 2 of 2 0.20 20.0 2 25.00" in page.text
    assert pyplot.get_fignums() == []


def test_report_of_many_runs(write_run, tmp_path):
    runs = [
        write_run(
            f"{task}/run", tasks=(task,), metrics=RESULT, result={"floor": FLOOR}, pictures=True
        )
        for task in TASKS
    ]
    runs += [
        write_run(f"uw-{seed}", weighting="uw", seed=seed, metrics=RESULT, pictures=True)
        for seed in (0, 1)
    ]
    report = write_report(runs, tmp_path / "out")
    page = page_of(report)
    # Three losses, weights, a strip of the single-task runs and one of uncertainty weighting.
    assert len(page.links) == 6
    assert "cosines.png" not in files_of(report)
    strips = [name for name in files_of(report) if name.startswith("strips")]
    assert strips == [
        "strips_run-2.png", "strips_run-3.png", "strips_run.png", "strips_uw-0.png",
        "strips_uw-1.png",
    ]  # fmt: skip
    markdown = (tmp_path / "out" / "table.md").read_text(encoding="utf-8")
    assert "| UW | **50.00 ± 0.00** |" in markdown
    assert "lower is better" in markdown
    assert "lower is better" in page.text
    assert "+0.00 ± 0.00" in markdown


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "result.json", "samples.npz"])
@pytest.mark.parametrize("damage", ["absent", "cut"])
def test_a_broken_run_is_reported_with_what_it_lacks(write_run, tmp_path, name, damage):
    bad = write_run("bad", tasks=("depth",), metrics=RESULT, pictures=True)
    content = (bad / name).read_bytes()
    (bad / name).unlink()
    runs = [bad]
    if damage == "cut":
        (bad / name).write_bytes(content[: len(content) // 3])
        runs.append(write_run("good", tasks=("depth",), metrics=RESULT, pictures=True, seed=1))
    report = write_report(runs, tmp_path / "out")
    text = page_of(report).text
    assert "Missing" in text
    assert name in text
    assert name in (tmp_path / "out" / "table.md").read_text(encoding="utf-8")


def test_a_run_that_goes_on_has_its_curves(write_run, tmp_path):
    run = write_run(result=None, epochs=9, lines=None)
    report = write_report([run], tmp_path / "out")
    assert "loss_depth.png" in files_of(report)
    assert "No run has finished" in page_of(report).text


def test_names_are_text_and_not_markup(write_run, tmp_path):
    run = write_run("<b>&x", weighting="<i>&", metrics=RESULT, batch_size="<u>")
    page = page_of(write_report([run], tmp_path / "out"))
    assert "<i>&" in page.text
    assert "<u>" in page.text
    assert not {"i", "u"} & set(page.tags)


def test_the_same_runs_give_the_same_report(write_run, tmp_path):
    run = write_run(metrics=RESULT, pictures=True)
    first = write_report([run], tmp_path / "out")
    contents = {path.name: path.read_bytes() for path in first.parent.iterdir()}
    shutil.rmtree(first.parent)
    write_report([run], tmp_path / "out")
    assert contents == {path.name: path.read_bytes() for path in first.parent.iterdir()}


def test_what_can_t_be_reported_is_refused(write_run, tmp_path):
    with pytest.raises(ValueError, match="not the folder of a run"):
        write_report([write_run(), tmp_path / "absent"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"can't write .*/file .*`out`"):
        write_report([tmp_path / "run"], tmp_path / "file")


def test_what_an_earlier_report_had_is_gone_and_other_files_stay(write_run, tmp_path):
    runs = [write_run(task, tasks=(task,), metrics=RESULT) for task in TASKS]
    runs += [
        write_run(name, weighting=name, metrics=RESULT, pictures=True) for name in ("uw", "nash")
    ]
    out = tmp_path / "out"
    write_report(runs, out)
    assert {"comparison.png", "strips_uw.png", "weights.png"} <= {x.name for x in out.iterdir()}
    # A user's own, though it is named like a picture of a report.
    (out / "strips_mine.png").write_bytes(b"mine")
    report = write_report(runs[-1:], out)
    assert files_of(report) == [
        "loss_depth.png", "loss_normals.png", "loss_segmentation.png", "report.html",
        "strips_mine.png", "strips_nash.png", "table.csv", "table.md", "weights.png",
    ]  # fmt: skip


def test_a_list_of_files_that_leads_elsewhere_removes_nothing(write_run, tmp_path):
    run = write_run(metrics=RESULT)
    report = write_report([run], tmp_path / "out")
    kept = [tmp_path / "loss_1.png", tmp_path / "out" / "table.txt", tmp_path / "out" / ".."]
    for path in kept[:2]:
        path.write_text("")
    names = "../loss_1.png/table.txt/../loss_1.png/./" + str(tmp_path / "loss_1.png")
    text = re.sub(
        '(<meta name="report-files" content=")[^"]*', rf"\g<1>{names}", report.read_text()
    )
    report.write_text(text)
    write_report([run], tmp_path / "out")
    assert all(path.exists() for path in kept)


@pytest.mark.parametrize("name", ["report.html", "table.md", "table.csv", "loss_depth.png"])
def test_a_full_disk_leaves_the_good_report_and_names_the_file(
    write_run, tmp_path, monkeypatch, name
):
    out = tmp_path / "out"
    write_report([write_run("a", tasks=("depth",), metrics=RESULT, pictures=True)], out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def write(path, content):
        if path.name == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        path.write_bytes(content)

    monkeypatch.setattr(files, "write", write)
    with pytest.raises(OSError, match=rf"out/{name} .*No space left on device.*`out`") as error:
        write_report([write_run("b", tasks=("depth",), metrics=RESULT)], out)
    assert "\n" not in str(error.value)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize("name", ["n" * 250, "\u6f22" * 80, "$x$ |\n*", "a'\"&<b>"])
def test_any_folder_name_makes_a_report(write_run, tmp_path, name):
    run = write_run(name, tasks=("depth",), metrics=RESULT, pictures=True)
    (run / "config.json").unlink()
    other = write_run("other", tasks=("depth",), metrics=RESULT)
    report = write_report([run, other], tmp_path / "out")
    assert len([file for file in files_of(report) if file.startswith("strips_")]) == 1
    lines = (tmp_path / "out" / "table.md").read_text().splitlines()
    bars = {line.count("|") for line in lines if line.startswith("|")}
    assert len(bars) <= 2  # those of the main table and of the further metrics


def test_losses_of_different_kinds_have_pictures_of_their_own(write_run, tmp_path):
    runs = [
        write_run(loss, metrics=RESULT, depth_loss=loss) for loss in ("l1", "stereo", "stereo_l2")
    ]
    report = write_report(runs, tmp_path / "out")
    assert [name for name in files_of(report) if name.startswith("loss_")] == [
        "loss_depth_l1.png", "loss_depth_stereo.png", "loss_depth_stereo_l2.png",
        "loss_normals.png", "loss_segmentation.png",
    ]  # fmt: skip


def test_the_caption_says_that_each_seed_has_a_line(write_run, tmp_path):
    runs = [write_run(f"{seed}", seed=seed, metrics=RESULT) for seed in (0, 1)]
    text = "Each seed has a line of its own."
    assert text in write_report(runs, tmp_path / "two").read_text()
    assert text not in write_report(runs[:1], tmp_path / "one").read_text()


def test_trial_runs_that_failed_are_named(write_run, tmp_path):
    run = write_run("sweep/nash-0", learning_rates=[0.1, 0.2], learning_rate=0.1, metrics=RESULT)
    trials = {"nash-0": {"0.1": -0.5, "0.2": "disk full"}, "uw-0": {"0.1": -0.5, "0.2": None}}
    (run.parent / "learning_rates.json").write_text(json.dumps(trials))
    write_report([run], tmp_path / "out")
    lines = (tmp_path / "out" / "table.md").read_text(encoding="utf-8").splitlines()
    (line,) = [line for line in lines if "trial runs" in line]
    assert line.startswith("- Learning rates of sweep/nash-0: 1 of 2 trial runs failed (")
    assert "0.2: disk full" in line and "uw" not in line


def test_a_copied_run_counts_once_and_is_named(write_run, tmp_path):
    run = write_run("a", metrics=RESULT)
    shutil.copytree(run, tmp_path / "copy")
    write_report([run, tmp_path / "copy"], tmp_path / "out")
    table = (tmp_path / "out" / "table.md").read_text()
    assert f"{tmp_path / 'copy'} is left out: it is {run} again" in table
    assert "±" not in table


def test_a_broken_codebook_is_named_and_the_rest_reported(write_run, tmp_path):
    good, bad = (write_run(name, weighting=name, metrics=RESULT) for name in ("uw", "nash"))
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    np.save(good / "codebook.npy", (corners / 3**0.5).astype(np.float32))
    (bad / "codebook.npy").write_bytes(b"garbage")
    report = write_report([good, bad], tmp_path / "out")
    assert "codebook_8.png" in files_of(report)
    assert f"{bad}: no samples.npz (no pictures); codebook.npy can't be read" in (
        page_of(report).text
    )


def test_a_run_judged_by_its_own_training_images_is_reported(write_run, tmp_path):
    metrics = {"depth/absolute_error": 0.1}
    honest, leaky = (
        write_run(name, tasks=["depth"], metrics=metrics, result={"leaked": count})
        for name, count in (("honest", 0), ("leaky", 7))
    )
    write_report([honest, leaky], tmp_path / "out")
    text = (tmp_path / "out" / "table.md").read_text()
    assert "7 images that leaky was evaluated on" in text
    assert "honest was evaluated on" not in text
