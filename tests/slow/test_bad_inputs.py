"""Every mistake of a user is refused in one line that names it, and nothing changes on disk."""

import pickle
import shutil

import numpy as np
import pytest

from tests.slow import programs
from tests.slow.mistakes import (
    RECORDS,
    TEST,
    TRAIN,
    Case,
    changes_config,
    cuts,
    empties_checksums,
    empties_the_version,
    flips_a_byte_of_the_checkpoint,
    folder,
    is_a_folder,
    is_a_pipe,
    mtan,
    one_value,
    pth,
    removes,
    renames_the_version,
    weights,
    writes,
)

pytestmark = pytest.mark.slow

NYU = "--dataset=nyu_depth_v2 --data_dir=fresh"
MTAN = "--dataset=nyu_depth_v2:layout=mtan --data_dir=fresh --manual_dir=mtan"
CODEBOOK = "--normals_loss=codebook:codewords=8"
# Flags that are wrong by themselves are refused before a data set is made: `fresh` is a folder that
# is not there.
FLAGS = {
    "--learning_rate=-1": "learning_rate",
    "--learning_rate=0": "learning_rate",
    "--learning_rate=inf": "learning_rate",
    "--learning_rate=nan": "learning_rate",
    "--learning_rate=fast": "learning_rate",
    "--optimizer=adamw:weight_decay=-1": "optimizer",
    "--optimizer=adamw:weight_decay=inf": "optimizer",
    "--optimizer=sgd:momentum=nan": "optimizer",
    "--augment --colour_jitter=nan": "colour_jitter",
    "--augment --colour_jitter=2": "colour_jitter",
    "--noaugment --colour_jitter=0.5": "colour_jitter",
    "--warmup_epochs=5": "warmup_epochs",
    "--warmup_epochs=nan": "warmup_epochs",
    "--schedule=step:halve_every=0": "halve_every",
    "--schedule=step:halve=5": "halve",
    "--schedule=cosine:halve_every=5": "halve_every",
    "--schedule=poly": "schedule",
    "--dataset=nonsense": "dataset",
    "--dataset=rooms:train=0": "dataset",
    "--dataset=rooms:train=many": "train",
    "--dataset=rooms:classes=13": "classes",
    "--dataset=nyu_depth_v2:layout=mtan,classes=40": "dataset",
    "--model=resnet_unet:backbone=vgg": "backbone",
    "--model=segnet:backbone=resnet18": "backbone",
    "--model=vgg": "model",
    "--keep=0": "keep",
    "--epochs=0": "epochs",
    f"--epochs={10**15}": "epochs",
    "--batch_size=0": "batch_size",
    "--batch_size=1": "batch_size",
    "--weighting=modo --batch_size=3": "batch_size",
    "--weighting=modo --batch_size=4": "batch_size",
    "--weighting=sdmgrad --batch_size=3": "batch_size",
    "--weighting=modo --batch_size=6 --label_fraction=0.25 --labelled_per_batch=1": "label",
    "--eval_batch_size=0": "eval_batch_size",
    "--devices=99": "devices",
    "--devices=-1": "devices",
    "--image_size=96": "image_size",
    "--image_size=0x128": "image_size",
    "--image_size=15x15": "image_size",
    "--model=segnet --image_size=100x130": "image_size",
    "--label_fraction=0": "label_fraction",
    "--label_fraction=nan": "label_fraction",
    "--label_fraction=0.5 --tasks=depth,normals": "label_fraction",
    "--label_fraction=0.5 --labelled_per_batch=9": "labelled_per_batch",
    "--validation=-1": "validation",
    "--depth_loss=stereo --tasks=normals": "depth_loss",
    "--depth_loss=stereo:nearest=-1": "nearest",
    "--depth_loss=stereo:nearest=nan": "nearest",
    "--depth_loss=l1:nearest=1": "nearest",
    f"{CODEBOOK} --tasks=depth": "normals_loss",
    "--normals_loss=codebook:codewords=1": "codewords",
    "--normals_loss=codebook:codewords=4.5": "codewords",
    "--normals_loss=codebook:codewords": "normals_loss",
    "--tasks=": "tasks",
    "--tasks=segmentation,edges": "edges",
    "--tasks=depth,depth": "tasks",
    "--weighting=nonsense": "weighting",
    "--weighting=equal --gradients=features": "gradients",
    "--weighting=fixed:task_weights=1+2": "weighting",
    "--weighting=fixed:task_weights=1+x+3": "task_weights",
    "--weighting=fixed:task_weights=1+nan+3": "task_weights",
    "--weighting=fixed:task_weights=1+-1+3": "task_weights",
    "--weighting=fixed:task_weights=1+1e39+1": "task_weights",
    "--weighting=nash:task_weights=1+2+3": "task_weights",
    "--weighting=nash:max_norm=-1": "max_norm",
    "--weighting=nash:max_norm=nan": "max_norm",
    "--weighting=nash:max_norm": "weighting",
    "--weighting=nash:max_norm=1,max_norm=2": "weighting",
    "--weigh_every=0": "weigh_every",
    "--weighting=cagrad:c=-1": "cagrad",
    "--weighting=cagrad:c=inf": "cagrad",
    "--weighting=fairgrad:alpha=-1": "alpha",
    "--weighting=fairgrad:alpha=big": "alpha",
    "--weighting=dwa:temperature=0": "temperature",
    "--weighting=dwa_window:temperature=0": "temperature",
    "--weighting=gradnorm:alpha=nan": "alpha",
    "--weighting=famo:gamma=inf": "gamma",
    "--weighting=uw:learning_rate=nan": "learning_rate",
    "--weighting=uw:form=other": "form",
    "--weighting=missing.py:method": "missing.py",
    "--weighting=json:dumps": "json:dumps",
    "--weighting=json:nothing": "json",
    "--mode=sweep --weightings=fairgrad,fairgrad:alpha=2.0": "weightings",
    "--mode=sweep --weightings=nash:alpha=1": "alpha",
    "--seed=-1": "seed",
    "--mode=nonsense": "mode",
    "--learning_rat=1": "learning_rat",
    "learning_rate=1": "learning_rate=1",
    "--noaugment=true": "noaugment",
    "--flagfile=missing.txt": "missing.txt",
    "--num_processes=2": "num_processes",
    "--coordinator=nonsense": "coordinator",
    "--mode=benchmark --tasks=depth": "tasks",
    "--mode=benchmark --coordinator=localhost:1": "coordinator",
    "--mode=compare --weighting=mgda": "weighting",
    "--mode=sweep --weightings=equal,modo --batch_size=4": "batch_size",
    "--mode=sweep --weightings=equal,nonsense": "weightings",
    "--mode=sweep --seeds=0,x": "seeds",
    "--mode=sweep --seeds=0,0": "seeds",
    "--mode=sweep --learning_rate=inf": "learning_rate",
    "--mode=study --label_fractions=2": "label_fractions",
    "--mode=study --label_fractions=0": "label_fractions",
    "--mode=study --label_fractions=half": "label_fractions",
    "--mode=study --label_fractions=0.123401,0.123402": "label_fractions",
    "--mode=study --arms=": "arms",
    "--learning_rate=1e30": "learning_rate",
    "--workdir=~nobody_is_called_so/run": "workdir",
    f"--mode=evaluate --checkpoint={'9' * 5000}": "checkpoint",
    "--mode=study --arms=segmentation+edges": "edges",
    "--mode=study --arms=segmentation,segmentation": "arms",
    "--workdir=one,two": "workdir",
    "--workdir=/proc/run": "/proc/run",
    f"--workdir={300 * 'x'}": "workdir",
    "--workdir=gs://bucket/x": "workdir",
    "--workdir=file:///nowhere/x": "workdir",
    "--mode=sweep --workdir=s3://bucket/x": "workdir",
    "--data_dir=s3://bucket/x": "data_dir",
    "--data_dir=/proc/data": "data_dir",
    f"{NYU} --manual_dir=gs://bucket/x": "manual_dir",
    f"{NYU} --manual_dir=missing": "manual_dir",
    "--compilation_cache=gs://bucket/x": "compilation_cache",
    "--pretrained=gs://bucket/x.pth": "pretrained",
    "--pretrained=missing.pth": "missing.pth",
    "--pretrained=of-{seed}.pth --seed=7": "of-7.pth",
    "--model=segnet --image_size=96x128 --pretrained=missing.pth": "pretrained",
    "--mode=report --workdir=missing": "missing",
    "--mode=evaluate --workdir=missing": "missing",
    "--mode=export --workdir=missing": "missing",
}
READS = "--data_dir=fresh --pretrained=weights"
FILES = {
    "binary flagfile": Case("--flagfile=flags.bin", "flags.bin", writes("flags.bin", b"\xff\x00")),
    "workdir is a file": Case("--workdir=taken --data_dir=fresh", "taken", writes("taken", "x")),
    "workdir in a file": Case("--workdir=taken/a --data_dir=fresh", "taken", writes("taken", "x")),
    "sweep in a file": Case(
        "--mode=sweep --workdir=taken --data_dir=fresh", "taken", writes("taken", "x")
    ),
    "checkpoints is a file": Case(
        "--data_dir=fresh", "checkpoints", writes("new/checkpoints", "x")
    ),
    "data_dir is a file": Case("--data_dir=taken", "data_dir", writes("taken", "x")),
    "compilation_cache is a file": Case(
        "--data_dir=fresh --compilation_cache=taken", "compilation_cache", writes("taken", "x")
    ),
    "manual_dir with garbage": Case(
        f"{NYU} --manual_dir=bad", "labeled.mat", writes("bad/nyu_depth_v2_labeled.mat", b"x" * 99)
    ),
    "kitti without files": Case(
        "--dataset=kitti_stereo --data_dir=fresh --manual_dir=empty --tasks=depth", "manual_dir",
        folder("empty"),
    ),
    "waymo without files": Case(
        "--dataset=waymo --data_dir=fresh --manual_dir=empty --tasks=depth", "manual_dir",
        folder("empty"),
    ),
    "cityscapes without files": Case(
        "--dataset=cityscapes --data_dir=fresh --manual_dir=empty --tasks=depth", "manual_dir",
        folder("empty"),
    ),
    "metres of inverse depth": Case(
        "--dataset=cityscapes:layout=mtan --data_dir=fresh --tasks=segmentation,depth", "tasks"
    ),
    "a folder without images": Case(
        "--dataset=folder --folder=empty --data_dir=fresh", "empty", folder("empty")
    ),
    "depth in millimetres": Case(MTAN, "depth", mtan("depth", lambda x: 1000 * x)),
    "labels that are not whole numbers": Case(MTAN, "label", mtan("label", lambda x: x + 0.6)),
    "images of 0 to 255": Case(MTAN, "image", mtan("image", lambda x: 255 * x)),
    "normals of no length 1": Case(MTAN, "normal", mtan("normal", lambda x: 7 * x)),
    "report of an empty folder": Case("--mode=report --workdir=empty", "empty", folder("empty")),
    "validation is all": Case("--validation=8", "validation"),
    "batch larger than the set": Case("--batch_size=9", "batch_size"),
    "huge evaluation batch": Case(f"--eval_batch_size={10**12}", "eval_batch_size"),
    "too many codewords": Case(f"--normals_loss=codebook:codewords={10**9}", "codewords"),
    "a method with an error in it": Case(
        "--weighting=mine.py:method --data_dir=fresh", "mine.py", writes("mine.py", "def method(:")
    ),
    "a method that fails": Case(
        "--weighting=mine.py:method --data_dir=fresh", "mine.py",
        writes("mine.py", "def method():\n    raise ValueError('no\\nluck')"),
    ),
    "a method that makes no weighting": Case(
        "--weighting=mine.py:method --data_dir=fresh", "mine.py",
        writes("mine.py", "def method():\n    return 5"),
    ),
    "a file without the method": Case(
        "--mode=sweep --weightings=equal,mine.py:other --data_dir=fresh", "other",
        writes("mine.py", "def method():\n    return 5"),
    ),
    "weights are text": Case(
        f"{READS}.safetensors", "weights.safetensors", writes("weights.safetensors", "x" * 99)
    ),
    "pth is garbage": Case(f"{READS}.pth", "weights.pth", writes("weights.pth", "x" * 99)),
    "pth is a pickle": Case(
        f"{READS}.pth", "weights.pth", writes("weights.pth", pickle.dumps({"a": 1}))
    ),
    "pth.tar is garbage": Case(
        f"{READS}.pth.tar", "weights.pth.tar", writes("weights.pth.tar", "x" * 99)
    ),
    "weights behind an unknown key": Case(
        f"{READS}.pth", "student", pth(lambda x: {"student": x}), may_work=True
    ),
    "NumPy scalar with the weights": Case(
        f"{READS}.pth", "weights.pth", pth(lambda x: {"state_dict": x, "best": np.float64(1)}),
        may_work=True,
    ),
    "weights of a larger ResNet": Case(
        f"{READS}.safetensors", "backbone", weights(dict, (3, 4, 6, 3))
    ),
    "weights of a smaller ResNet": Case(
        f"{READS}.safetensors --model=resnet_unet", "backbone", weights(dict)
    ),
    "weights with NaN": Case(
        f"{READS}.safetensors", "weights.safetensors", one_value(np.nan)
    ),
    "weights with infinity": Case(
        f"{READS}.safetensors", "weights.safetensors", one_value(np.inf)
    ),
    "two sets of weights": Case(
        f"{READS}.safetensors", "weights.safetensors",
        weights(
            lambda x: {f"{p}.{n}": y + i for i, p in enumerate(("model", "backbone"))
                       for n, y in x.items()}
        ),
    ),
    "first convolution of 4 channels": Case(
        f"{READS}.safetensors", "conv1",
        weights(lambda x: x | {"conv1.weight": np.zeros((64, 4, 7, 7), np.float32)}),
        never="--backbone",
    ),
    "cut test records": Case("", TEST, cuts(f"{RECORDS}/{TEST}-00000")),
    "cut training records": Case("", TRAIN, cuts(f"{RECORDS}/{TRAIN}-00000")),
    "empty training records": Case("", TRAIN, cuts(f"{RECORDS}/{TRAIN}-00000", 0)),
    "no test records": Case("", TEST, removes(f"{RECORDS}/{TEST}-00000")),
    "no dataset_info.json": Case("", "data_dir", removes(f"{RECORDS}/dataset_info.json")),
    **{
        f"{name} holds {content!r}": Case("", name, writes(f"{RECORDS}/{name}", content))
        for name in ("dataset_info.json", "metadata.json")
        for content in ("{broken", "null")
    },
    "features.json holds text": Case(
        "", "features.json", writes(f"{RECORDS}/features.json", "{broken"), may_work=True
    ),
    "records of another version": Case("", "0.9.0", renames_the_version),
    "records of no version": Case("", "data_dir", empties_the_version),
    "no such platform": Case("", "JAX_PLATFORMS", environment={"JAX_PLATFORMS": "nonsense"}),
    "no GPU": Case("", "JAX_PLATFORMS", environment={"JAX_PLATFORMS": "cuda"}),
    "unknown XLA flag": Case("", "XLA_FLAGS", environment={"XLA_FLAGS": "--nonsense"}),
}  # fmt: skip
AGAIN = "--workdir=run --data_dir=fresh"
USES = "--workdir=run --mode"
RUNS = {
    "another learning rate": Case(f"{AGAIN} --learning_rate=2e-4", "learning_rate"),
    "another weighting": Case(f"{AGAIN} --weighting=uw", "weighting"),
    "another seed": Case(f"{AGAIN} --seed=1", "seed"),
    "another option of the weighting": Case(f"{AGAIN} --weighting=nash:max_norm=2", "weighting"),
    "another network evaluated": Case(f"{USES}=evaluate --model=mtan", "--model"),
    "another seed exported": Case(f"{USES}=export --seed=1", "--seed"),
    "fewer epochs": Case("--workdir=run --epochs=1", "epochs"),
    "a run of another version": Case(
        AGAIN, "another version", changes_config(nash_every=1, backbone="resnet18")
    ),
    "a run of another version, evaluated": Case(
        f"{USES}=evaluate", "another version", changes_config(nash_every=1, backbone="resnet18")
    ),
    "config.json says nothing": Case(
        f"{USES}=evaluate", "config.json", writes("run/config.json", {})
    ),
    "config.json has another method": Case(
        f"{USES}=evaluate --weighting=nash", "weighting", changes_config(weighting="nonsense")
    ),
    "a longer cosine": Case(
        f"{AGAIN} --schedule=cosine --epochs=3", "cosine", changes_config(schedule="cosine")
    ),
    "no config.json": Case(
        "--workdir=run --seed=1", "config.json", removes("run/config.json"), never="delete"
    ),
    "config.json is garbage": Case(
        "--workdir=run", "config.json", writes("run/config.json", "{broken"), never="delete it"
    ),
    "config.json is null": Case("--workdir=run", "config.json", writes("run/config.json", None)),
    "config.json is a number": Case("--workdir=run", "config.json", writes("run/config.json", 5)),
    "config.json is a list": Case("--workdir=run", "config.json", writes("run/config.json", [])),
    "config.json is no UTF-8": Case(
        "--workdir=run", "config.json", writes("run/config.json", b'{"a": "\xff"}')
    ),
    "config.json is null, evaluated": Case(
        f"{USES}=evaluate", "config.json", writes("run/config.json", None)
    ),
    "metrics.jsonl is null": Case(
        "--workdir=run", "metrics.jsonl", writes("run/metrics.jsonl", "null\n"), may_work=True
    ),
    "metrics.jsonl is no UTF-8": Case(
        "--workdir=run", "metrics.jsonl", writes("run/metrics.jsonl", b"\xff\xfe\n"), may_work=True
    ),
    "metrics.jsonl has no steps": Case(
        "--workdir=run", "metrics.jsonl", writes("run/metrics.jsonl", "{}\n"), may_work=True
    ),
    "metrics.jsonl is gone": Case(
        "--workdir=run", "metrics.jsonl", removes("run/metrics.jsonl"), never="delete",
        may_work=True,
    ),
    "codebook.npy is garbage": Case(
        f"--workdir=run {CODEBOOK}", "codebook.npy",
        lambda sandbox: [
            damage(sandbox)
            for damage in (
                changes_config(normals_loss="codebook:codewords=8"),
                writes("run/codebook.npy", "x" * 99),
            )
        ],
        never="unsafe",
    ),
    "checkpoint with a flipped byte": Case(
        f"{USES}=evaluate", "checkpoints", flips_a_byte_of_the_checkpoint
    ),
    "a checkpoint that is no number": Case(f"{USES}=evaluate --checkpoint=²", "--checkpoint"),
    "a checkpoint that is not there": Case(f"{USES}=evaluate --checkpoint=7", "--checkpoint"),
    "no best checkpoint": Case(f"{USES}=evaluate --checkpoint=best", "--checkpoint"),
    "no validation split": Case(f"{USES}=evaluate --split=validation", "--split"),
    "two runs to evaluate": Case("--workdir=run,run --mode=evaluate", "workdir"),
    "report of nothing after a comma": Case("--workdir=run, --mode=report", "workdir"),
    "report of a missing second run": Case("--workdir=run,missing --mode=report", "missing"),
    "report to a file": Case(f"{USES}=report --out=taken", "taken", writes("taken", "x")),
    "report to an address": Case(f"{USES}=report --out=gs://bucket/x", "out"),
    "export into a file": Case(f"{USES}=export --out=taken/x", "taken", writes("taken", "x")),
    "export to a folder": Case(f"{USES}=export --out=run", "out"),
    "export to an address": Case(f"{USES}=export --out=s3://bucket/x", "out"),
    "export over another file of the run": Case(
        f"{USES}=export --out=run/config.json", "--out"
    ),
    "sweep in the folder of a run": Case(f"{USES}=sweep", "--workdir"),
    "metrics.jsonl is a folder": Case(
        "--workdir=run --epochs=9", "metrics.jsonl", is_a_folder("run/metrics.jsonl")
    ),
    "config.json is a pipe": Case(
        "--workdir=run", "config.json", is_a_pipe("run/config.json")
    ),
    "sums of no checkpoint": Case(
        f"{USES}=evaluate", "sha256.json", empties_checksums
    ),
    "no such backend of Matplotlib": Case(
        f"{USES}=report", "MPLBACKEND", environment={"MPLBACKEND": "nonsense"}, may_work=True
    ),
}  # fmt: skip
TABLE = (
    {
        flags[:70]: Case(flags if "data_dir" in flags else f"--data_dir=fresh {flags}", word)
        for flags, word in FLAGS.items()
    }
    | FILES
    | RUNS
)


@pytest.mark.parametrize("name", TABLE)
def test_it_is_refused_in_one_line_and_changes_nothing(name, sandbox, made):
    case = TABLE[name]
    if "--workdir=run" in case.flags:
        shutil.copytree(made / "run", sandbox / "run")
    if case.damage is not None:
        case.damage(sandbox)
    before = programs.snapshot(sandbox)
    finished = programs.launch(case.flags, sandbox, case.environment)
    changes = programs.changes(before, programs.snapshot(sandbox))
    found = complaints(case, finished, changes)
    assert not found, finished.text


def complaints(case: Case, finished: programs.Finished, changes: list[str]) -> list[str]:
    """What was wrong with a refusal; nothing if it was right."""
    if finished.has_traceback:
        return [f"traceback: {finished.lines[-1]}"]
    if finished.status is None:
        return ["hung"]
    if finished.status == 0 and case.may_work:
        return []
    found = []
    line, others = programs.refusal(finished)
    if finished.status == 0:
        found.append("accepted")
    elif not line:
        found.append(f"no line: {finished.lines[-1:]}")
    elif case.word not in line or case.never in line:
        found.append(f"unclear: {line}")
    if others > programs.MOST_LINES:
        found.append(f"{others} lines before the last")
    if changes:
        found.append(f"changed: {', '.join(changes[:4])}")
    return found
