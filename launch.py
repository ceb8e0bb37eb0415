"""Trains, evaluates and reports. The flags stand here and nowhere else: see --help.

python launch.py --dataset=rooms --weighting=nash
"""

import fractions
import io
import math
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from mtl_jax import faults

if __name__ == "__main__":
    # Before the other imports, which fail where the environment is broken.
    faults.prepare_process("launch.py")

import jax
import jax.numpy as jnp
import optax
from absl import app, flags, logging

from datasets.kitti_stereo import kitti_stereo_dataset_builder as kitti_stereo
from datasets.nyu_depth_v2 import nyu_depth_v2_dataset_builder as nyu_depth_v2
from datasets.rooms import rooms_dataset_builder as rooms
from mtl_jax import data, files, models, parallel, report
from mtl_jax import tasks as task_table
from mtl_jax.bench import speed
from mtl_jax.models import pretrained, resnet
from mtl_jax.report.settings import OPTIONS
from mtl_jax.runs import codebook_file, grid, results, workdir
from mtl_jax.tasks import codebook
from mtl_jax.training import evaluation, loop, optimizer, step
from mtl_jax.weighting import METHODS, Weighting

DATASETS = {"nyu_depth_v2": nyu_depth_v2, "rooms": rooms, "kitti_stereo": kitti_stereo}
LARGEST_SEED = 2**31 - 2
# The state counts steps in 32 bits.
MOST_STEPS = 2**31 - 1
PRECISIONS = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}

# -- the run --
flags.DEFINE_enum(
    "mode", "train",
    ["train", "evaluate", "report", "prepare", "sweep", "study", "benchmark", "compare", "export"],
    "run: train (or resume), then evaluate and report; evaluate a checkpoint on a split; report "
    "on finished runs; only prepare the data set; sweep, which trains single-task runs and "
    "--weightings for all --seeds and compares them; study, which trains each of --arms with each "
    "of --label_fractions; benchmark, which times the step of each of --weightings on made-up "
    "images; compare, which trains beside the same network in PyTorch; or export, which writes a "
    "checkpoint's weights as safetensors to --out.",
)  # fmt: skip
flags.DEFINE_list(
    "workdir", None,
    "run: folder of the run, made if need be. Default: runs/DATASET-WEIGHTING-SEED, "
    "runs/benchmark or runs/compare. For --mode=sweep and study the folder of all runs, by default "
    "runs/MODE-DATASET; for --mode=report one or more of both kinds, separated by commas.",
)  # fmt: skip
flags.DEFINE_string(
    "out", None,
    "run: where --mode=report writes, by default WORKDIR/report, and --mode=export, by default "
    "WORKDIR/weights.safetensors.",
)  # fmt: skip
flags.DEFINE_integer(
    "seed", 0, "run: seed of initialisation, data order, augmentation.",
    lower_bound=0, upper_bound=LARGEST_SEED,
)  # fmt: skip
flags.DEFINE_integer("devices", 0, "run: devices to spread each batch over; 0 = all.")
flags.DEFINE_string(
    "coordinator", None,
    "run: of several processes, such as one on each host, that train together: HOST:PORT of "
    "process 0, with --num_processes and --process_id, or auto where Slurm, Open MPI, Kubernetes "
    "or a TPU pod tells. All need the same flags, data set and --workdir, on a common file system.",
)  # fmt: skip
flags.DEFINE_integer("num_processes", None, "run: how many there are, for --coordinator.")
flags.DEFINE_integer("process_id", None, "run: which one this is, from 0, for --coordinator.")
flags.DEFINE_string(
    "compilation_cache", None,
    "run: folder in which compiled steps are kept, so that the next run that differs only in its "
    "seed need not compile. Default: none.",
)  # fmt: skip
flags.DEFINE_integer(
    "benchmark_steps", 10,
    "run: steps that --mode=benchmark times of each weighting, or that --mode=compare takes.",
    lower_bound=1,
)  # fmt: skip
flags.DEFINE_bool(
    "compare_torch", False,
    "run: in --mode=benchmark time the same network in PyTorch, too; needs the extra torch.",
)  # fmt: skip
flags.DEFINE_bool("debug", False, "run: show the whole traceback of an error.")

# -- data --
flags.DEFINE_enum("dataset", "nyu_depth_v2", list(DATASETS), "data: what to train on.")
flags.DEFINE_string("data_dir", None, "data: where TFDS keeps prepared sets. Default: its own.")
flags.DEFINE_string(
    "manual_dir", None,
    "data: folder with nyu_depth_v2_labeled.mat, or with train/ and val/ of --nyu_layout=mtan, "
    "where you have them already; for kitti_stereo, with training/.",
)  # fmt: skip
flags.DEFINE_enum(
    "nyu_layout", "labeled", ["labeled", "mtan"],
    "data: nyu_depth_v2 from the official .mat file, or from the .npy files of the multi-task "
    "literature.",
)  # fmt: skip
flags.DEFINE_enum("nyu_classes", "13", ["13", "40"], "data: segmentation classes of nyu_depth_v2.")
flags.DEFINE_string(
    "image_size", None,
    "data: HEIGHTxWIDTH of the images. Default: 288x384 of nyu_depth_v2, 96x128 of rooms, 128x416 "
    "of kitti_stereo.",
)  # fmt: skip
flags.DEFINE_integer("rooms_train", 1000, "data: training images of rooms.", lower_bound=1)
flags.DEFINE_integer("rooms_test", 200, "data: test images of rooms.", lower_bound=1)
flags.DEFINE_integer(
    "validation", 0,
    "data: training images to hold out, the same ones for every seed; evaluations on the way then "
    "use them instead of the test split, and the best checkpoint by them is kept.",
)  # fmt: skip
flags.DEFINE_float(
    "label_fraction", 1.0,
    "data: part of the training images whose segmentation is used, such as 0.125; the rest teach "
    "depth and normals only. The parts of one --label_seed are nested.",
)  # fmt: skip
flags.DEFINE_integer("label_seed", 0, "data: which images keep their segmentation.", lower_bound=0)
flags.DEFINE_integer(
    "labelled_per_batch", 0,
    "data: with --label_fraction below 1, images of each batch that show their segmentation; 0: "
    "half of the batch. With segmentation alone all do; modo and sdmgrad need at least 3.",
    lower_bound=0,
)  # fmt: skip
flags.DEFINE_enum(
    "cache", "none", list(data.CACHES),
    "data: where images are kept once they are read: nowhere, decoded in the host's memory, or the "
    "training images on each device (nyu_depth_v2 at 288x384 takes 1 GB), which leaves no input "
    "pipeline. Changes nothing but speed.",
)  # fmt: skip
flags.DEFINE_bool("augment", True, "data: flip, and scale and crop, in training.")
flags.DEFINE_float(
    "colour_jitter", 0.0,
    "data: how far brightness, contrast and saturation vary in training, 0..1.",
    lower_bound=0.0, upper_bound=1.0,
)  # fmt: skip

# -- model --
flags.DEFINE_list(
    "tasks", ["segmentation", "depth", "normals"],
    "model: tasks to learn. A single one is the literature's single-task run.",
)  # fmt: skip
flags.DEFINE_enum(
    "model", "resnet_unet", list(models.MODELS),
    "model: the ResNet-U-Net with ASPP, or the networks of the published tables: SegNet with a "
    "head for each task, or with attention branches (MTAN).",
)  # fmt: skip
flags.DEFINE_enum(
    "backbone", "resnet34", list(resnet.BACKBONES), "model: the encoder of the ResNet-U-Net."
)
flags.DEFINE_string(
    "pretrained", None,
    "model: file of a ResNet's weights to start the encoder from, safetensors or PyTorch's, "
    "recognised by its content, of torchvision, timm or segmentation_models_pytorch; or what "
    "--mode=export wrote, of which the whole trunk and the heads are taken. {seed} in its name "
    "stands for --seed. A run that goes on does not read it.",
)  # fmt: skip
flags.DEFINE_enum(
    "depth_loss", "l1", list(task_table.DEPTH_LOSSES),
    "model: how depth is learned: from its labels, or without them, by rebuilding the left view of "
    "a stereo pair from the right one: stereo_l2, squared differences, as in the paper, or stereo, "
    "structural similarity with masks and smoothness, as in the field.",
)  # fmt: skip
flags.DEFINE_float(
    "nearest_depth", 0.3,
    "model: of --depth_loss=stereo and stereo_l2, the nearest depth in metres; training starts at "
    "8 times that.",
)  # fmt: skip
flags.DEFINE_enum(
    "normals_source", "labels", ["labels", "depth"],
    "model: what normals are learned from: their labels, or depth, of which they are computed; "
    "with a stereo loss the predicted depth. They are judged by their labels in any case.",
)  # fmt: skip
flags.DEFINE_enum(
    "normals_loss", "cosine", ["cosine", "codebook"],
    "model: how normals are learned: as vectors, or as a classification of --normals_codewords "
    "directions, decoded by their expectation.",
)  # fmt: skip
flags.DEFINE_integer(
    "normals_codewords", 20, "model: of --normals_loss=codebook, found by k-means."
)
flags.DEFINE_enum(
    "precision", "float32", list(PRECISIONS),
    "model: precision of the computation; parameters, losses, Gram matrix and weights stay "
    "float32.",
)  # fmt: skip

# -- weighting --
flags.DEFINE_enum("weighting", "nash", list(METHODS), "weighting: how the tasks are weighed.")
flags.DEFINE_list(
    "weightings", ["equal", "uw", "nash"],
    "weighting: those that --mode=sweep, study or benchmark compares, or all.",
)  # fmt: skip
flags.DEFINE_list("seeds", ["0", "1", "2"], "weighting: the seeds of --mode=sweep or study.")
flags.DEFINE_list(
    "arms",
    [
        "segmentation", "segmentation+depth", "segmentation+normals",
        "segmentation+depth+normals",
    ],
    "weighting: sets of tasks that --mode=study compares.",
)  # fmt: skip
flags.DEFINE_list(
    "label_fractions", ["1/30", "1/8", "1/4", "1/2", "1"],
    "weighting: parts of the training images with labels that --mode=study compares.",
)  # fmt: skip
flags.DEFINE_list(
    "task_weights", None, "weighting: of fixed, one number a task. Default: one for each."
)
flags.DEFINE_enum(
    "uw_form", "common", ["common", "likelihood"],
    "weighting: of uw, 0.5 exp(-s) L + 0.5 s for all tasks, or the paper's split, which takes "
    "exp(-s) L + 0.5 s for classification.",
)  # fmt: skip
flags.DEFINE_float("uw_learning_rate", 0.025, "weighting: of uw's log-variances (Adam).")
flags.DEFINE_float(
    "nash_max_norm",
    1.0,
    "weighting: of nash and fairgrad, largest norm of the combined gradient in the steps that "
    "update the weights, which are then held: of the trunk's parameters or, with "
    "--gradients=features, at the trunk's output over the whole batch; 0: any.",
)
flags.DEFINE_integer(
    "nash_every", 1,
    "weighting: of nash and of all methods by the tasks' gradients, steps between their updates; "
    "the weights are reused between.", lower_bound=1,
)  # fmt: skip
flags.DEFINE_enum(
    "gradients", "parameters", ["parameters", "features"],
    "weighting: of nash and of the methods by the Gram matrix, whose gradients it is made of: the "
    "trunk's parameters', as published, or those at the trunk's output, an approximation that "
    "needs one backward pass of the trunk instead of one for each task.",
)  # fmt: skip
flags.DEFINE_enum(
    "rlw_form", "normal", ["normal", "dirichlet"],
    "weighting: of rlw, softmax of normal numbers, or uniform on the simplex.",
)  # fmt: skip
flags.DEFINE_float("dwa_temperature", 2.0, "weighting: of dwa, the larger the more alike.")
flags.DEFINE_float("famo_gamma", 1e-3, "weighting: of famo, decay of its logits.")
flags.DEFINE_float("fairgrad_alpha", 2.0, "weighting: of fairgrad; 1 is nash.")
flags.DEFINE_float("cagrad_c", 0.4, "weighting: of cagrad, how far from the average gradient.")
flags.DEFINE_enum(
    "mgda_normalization", "none", ["none", "l2", "loss", "loss+"],
    "weighting: of mgda, by what the gradients are divided first.",
)  # fmt: skip
flags.DEFINE_enum(
    "aligned_mtl_scale", "min", ["min", "median", "rmse"],
    "weighting: of aligned_mtl, which eigenvalue gives the scale.",
)  # fmt: skip
flags.DEFINE_float("gradnorm_alpha", 1.5, "weighting: of gradnorm, pull on slow tasks.")

# -- training --
flags.DEFINE_integer("epochs", 200, "training: passes over the training images.", lower_bound=1)
flags.DEFINE_integer("batch_size", 8, "training: images a step, over all devices.")
flags.DEFINE_float("learning_rate", 1e-4, "training: of Adam, at its highest.")
flags.DEFINE_enum(
    "schedule", "step", list(optimizer.SCHEDULES),
    "training: the learning rate is halved every --halve_every epochs, falls to 0 as a cosine, "
    "or stays.",
)  # fmt: skip
flags.DEFINE_integer("halve_every", 100, "training: epochs, for --schedule=step.")
flags.DEFINE_float("warmup_epochs", 0.0, "training: epochs of linear warm-up.")
flags.DEFINE_float("weight_decay", 0.0, "training: decoupled weight decay of the kernels.")
flags.DEFINE_integer("keep", 1, "training: how many of the last checkpoints are kept.")

# -- evaluation --
flags.DEFINE_integer("evaluate_every", 1, "evaluation: epochs between evaluations.", lower_bound=1)
flags.DEFINE_integer("eval_batch_size", 8, "evaluation: images a step.")
flags.DEFINE_enum(
    "metric_protocol", "pooled", list(evaluation.PROTOCOLS),
    "evaluation: over all pixels of the split; or mtan, depth and normals averaged over batches as "
    "in the literature (which has --eval_batch_size=2).",
)  # fmt: skip
flags.DEFINE_string("checkpoint", "latest", "evaluation: latest, best, or the number of a step.")
flags.DEFINE_enum(
    "split", "test", ["test", "validation", "train"], "evaluation: split for --mode=evaluate."
)

# Where a run reads and writes and how fast it goes: a run goes on with other values of these, and
# two runs that differ in nothing else are the same one. Any other flag defines a run.
PLACE_AND_SPEED = (
    "mode", "workdir", "out", "data_dir", "manual_dir", "compilation_cache", "cache", "devices",
    "coordinator", "num_processes", "process_id", "keep", "debug", "benchmark_steps",
    "compare_torch", "checkpoint", "split", "weightings", "seeds", "arms", "label_fractions",
)  # fmt: skip
# What may change when a run goes on, but not between runs that are compared: how long it is, how
# often it is evaluated and, unless the metrics depend on it, in what batches.
LENGTH = ("epochs", "evaluate_every", "eval_batch_size")

PATHS = ("workdir", "out", "data_dir", "manual_dir", "compilation_cache", "pretrained")
AT_LEAST_ONE = (
    "epochs", "batch_size", "eval_batch_size", "evaluate_every", "keep", "halve_every",
    "nash_every", "benchmark_steps", "rooms_train", "rooms_test",
)  # fmt: skip
# In these modes alone a flag has an effect.
MODES_OF = {
    "checkpoint": ("evaluate", "export"),
    "split": ("evaluate",),
    "out": ("report", "export"),
    "weighting": ("train", "evaluate", "export", "compare"),
    "weightings": ("sweep", "study", "benchmark"),
    "seeds": ("sweep", "study"),
    "arms": ("study",),
    "label_fractions": ("study",),
    "benchmark_steps": ("benchmark", "compare"),
    "compare_torch": ("benchmark",),
}
# Without effect these are reported and not refused: they say how much or how fast, and commands
# that differ in the data set, the network or the weighting may well have them in common.
HARMLESS = (
    "nyu_layout", "nyu_classes", "rooms_train", "rooms_test", "label_seed", "labelled_per_batch",
    "backbone", "nearest_depth", "normals_codewords", "nash_every", "nash_max_norm",
    "halve_every",
)  # fmt: skip


def main(argv: Sequence[str]) -> None:
    """Runs the mode; any error is reported in one line, with exit status 1."""
    args = flags.FLAGS
    modes = {
        "train": run,
        "evaluate": run_evaluation,
        "report": run_report,
        "prepare": prepare,
        "sweep": run_sweep,
        "study": run_study,
        "benchmark": run_benchmark,
        "compare": run_compare,
        "export": run_export,
    }
    try:
        with faults.interruptible():
            if len(argv) > 1:
                raise ValueError(f"unknown argument {argv[1]!r}: flags begin with --")
            check_flags(args)
            faults.check_xla_flags()
            if args.compilation_cache:
                folder = os.path.expanduser(args.compilation_cache)
                jax.config.update("jax_compilation_cache_dir", folder)
            if args.coordinator:
                print(f"waiting for {args.coordinator} and the other processes", flush=True)
                parallel.join(args.coordinator, args.num_processes, args.process_id)
            parallel.check_devices()
            if not workdir.is_writer():
                sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (one process speaks for all)
            modes[args.mode](args)
    except faults.Stopped as stopped:
        leave(f"{stopped}; the same command goes on from there")
    except (Exception, KeyboardInterrupt) as error:
        if args.debug:
            sys.excepthook = sys.__excepthook__
            raise
        leave(faults.explain(error))


def leave(reason: str) -> NoReturn:
    """Ends the program with exit status 1 and the reason in its last line."""
    # What was printed before must not follow it where both streams go into one pipe.
    sys.stdout.flush()
    sys.exit(f"launch.py: {reason}")


def parse_flags(argv: Sequence[str]) -> list[str]:
    """Parses the command line; what is wrong with it is reported in one line."""
    try:
        return flags.FLAGS(argv)
    # A flag file that is no text, or that is not there, raises errors of other kinds.
    except (flags.Error, ValueError, OSError) as error:
        text = " ".join(str(error).split())
        if isinstance(error, UnicodeDecodeError):
            files_of_flags = [word for word in argv if word.lstrip("-").startswith("flagfile")]
            text = f"{' '.join(files_of_flags)}: the file is not text ({text})"
        leave(f"{text} (--help lists all flags)")


def check_flags(args: Any) -> None:
    """Refuses what makes no sense for any data set, before anything is made or downloaded.

    Raises:
      ValueError: naming the flag.
    """
    check_values(args)
    check_paths(args)
    tasks = tasks_in_use(args)
    task_table.select(tasks)
    if args.coordinator and args.mode in ("benchmark", "compare", "export"):
        raise ValueError(f"--coordinator: --mode={args.mode} runs in one process")
    if not args.coordinator and (args.num_processes, args.process_id) != (None, None):
        raise ValueError("--num_processes and --process_id go with --coordinator=HOST:PORT")
    if args.mode != "report":
        check_effects(args, tasks)
    for name, modes in MODES_OF.items():
        if args.mode not in modes and args[name].value != args[name].default:
            print(f"note: --{name} has no effect with --mode={args.mode}")


def check_values(args: Any) -> None:
    """Refuses numbers that are none or out of their range.

    Raises:
      ValueError: naming the flag.
    """
    for flag in own_flags(args):
        if isinstance(flag.value, float) and not math.isfinite(flag.value):
            raise ValueError(f"--{flag.name}={flag.value}: give a finite number")
        if flag.name in AT_LEAST_ONE and flag.value < 1:
            raise ValueError(f"--{flag.name}={flag.value}: must be at least 1")
        if flag.name in OPTIONS and isinstance(flag.value, float) and flag.value < 0:
            raise ValueError(f"--{flag.name}={flag.value}: must not be negative")
    if args.image_size is not None:
        parse_size(args.image_size)
    if not 1e-30 <= args.learning_rate <= 100:
        raise ValueError(f"--learning_rate={args.learning_rate}: must be positive and at most 100")
    if not 0 <= args.weight_decay * args.learning_rate < 1:
        raise ValueError(
            f"--weight_decay={args.weight_decay}: must not be negative, and less than "
            "1 / --learning_rate: a step takes that part of every weight away"
        )
    if args.warmup_epochs < 0:
        raise ValueError(f"--warmup_epochs={args.warmup_epochs}: must not be negative")
    if not 0 < args.label_fraction <= 1:
        raise ValueError(f"--label_fraction={args.label_fraction}: must be in 0 (excluded) to 1")
    if args.validation < 0:
        raise ValueError(f"--validation={args.validation}: must not be negative")
    if not (args.checkpoint in ("latest", "best") or re.fullmatch("[0-9]{1,10}", args.checkpoint)):
        raise ValueError(f"--checkpoint={args.checkpoint}: give latest, best or the step's number")
    parse_numbers("task_weights", args.task_weights)
    parse_seeds(args)
    for text in args.label_fractions:
        parse_fraction(text)


def check_paths(args: Any) -> None:
    """Refuses paths that can't be what the flag needs.

    Raises:
      ValueError: naming the flag.
    """
    named = [(f"--{name}", args[name].value) for name in PATHS]
    if args.data_dir is None and args.mode != "report":
        # Where TFDS then keeps prepared sets.
        named.append(("TFDS_DATA_DIR", os.environ.get("TFDS_DATA_DIR")))
    for name, value in named:
        for text in value if isinstance(value, list) else [value]:
            if text == "":
                raise ValueError(f"{name}: a name is empty")
            try:
                Path(text or "").expanduser()
            except RuntimeError as error:
                raise ValueError(f"{name}={text}: there is no such user") from error
            if text is not None and re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/", text):
                raise ValueError(
                    f"{name}={text}: addresses are not supported; give a folder of a mounted file "
                    "system (gcsfuse and mountpoint-s3 mount buckets)"
                )
    if args.compilation_cache:
        check_writable("compilation_cache", Path(args.compilation_cache).expanduser())
    for name in ("data_dir", "manual_dir"):
        folder = args[name].value and Path(args[name].value).expanduser()
        if folder and folder.exists() and not folder.is_dir():
            raise ValueError(f"--{name}={folder} is a file: give a folder")


def check_effects(args: Any, tasks: Sequence[str]) -> None:
    """Refuses or reports flags that change nothing, because they belong to another choice.

    Raises:
      ValueError: naming the flag and what it goes with, unless it is one of `HARMLESS`.
    """
    weightings = weightings_in_use(args)
    fewer = args.label_fraction < 1 or args.mode == "study"
    stereo = args.depth_loss != "l1" and "depth" in tasks
    codebook = args.normals_loss == "codebook" and "normals" in tasks
    conditions = {
        "nyu_layout": (args.dataset == "nyu_depth_v2", "--dataset=nyu_depth_v2"),
        "nyu_classes": (args.dataset == "nyu_depth_v2", "--dataset=nyu_depth_v2"),
        "rooms_train": (args.dataset == "rooms", "--dataset=rooms"),
        "rooms_test": (args.dataset == "rooms", "--dataset=rooms"),
        "label_fraction": ("segmentation" in tasks, "segmentation among --tasks"),
        "label_seed": (fewer, "--label_fraction below 1"),
        "labelled_per_batch": (fewer, "--label_fraction below 1"),
        "colour_jitter": (args.augment, "--augment: leave --noaugment out"),
        "backbone": (args.model == "resnet_unet", "--model=resnet_unet"),
        "pretrained": (args.model == "resnet_unet", "--model=resnet_unet"),
        "depth_loss": ("depth" in tasks, "depth among --tasks"),
        "nearest_depth": (stereo, "--depth_loss=stereo or stereo_l2"),
        "normals_source": ("normals" in tasks, "normals among --tasks"),
        "normals_loss": ("normals" in tasks, "normals among --tasks"),
        "normals_codewords": (codebook, "--normals_loss=codebook"),
        "halve_every": (args.schedule == "step", "--schedule=step"),
        **{
            name: (
                set(readers) & set(weightings),
                f"the weighting {' or '.join(readers)}"
                if len(readers) < 4
                else f"weightings such as {readers[0]}",
            )
            for name, readers in OPTIONS.items()
        },
    }
    for name, (has_effect, with_what) in conditions.items():
        value = args[name].value
        if not has_effect and value != args[name].default:
            text = ",".join(map(str, value)) if isinstance(value, list) else value
            line = f"--{name}={text} has no effect: it goes with {with_what}"
            # A flag file may be that of a run of a sweep, which has the flags of all its runs.
            if name not in HARMLESS and not replays_a_file():
                raise ValueError(line)
            print(f"note: {line}")
    if args.nyu_layout == "mtan" and args.nyu_classes != "13":
        raise ValueError(f"--nyu_classes={args.nyu_classes}: --nyu_layout=mtan has 13 classes")


def replays_a_file() -> bool:
    """Whether flags come from a file."""
    return any(word.lstrip("-").startswith("flagfile") for word in sys.argv)


def tasks_in_use(args: Any) -> list[str]:
    """The names of all tasks that the mode trains."""
    if args.mode != "study":
        return args.tasks
    if not args.arms:
        raise ValueError("--arms=: give one set of tasks or more")
    for arm in args.arms:
        names = arm.split("+")
        try:
            task_table.select(names)
        except ValueError as error:
            raise ValueError(f"--arms={arm}: {str(error).removeprefix('--tasks: ')}") from None
        if "segmentation" not in names:
            raise ValueError(f"--arms={arm}: each needs segmentation, whose labels are withheld")
    return list(dict.fromkeys(name for arm in args.arms for name in arm.split("+")))


def weightings_in_use(args: Any) -> list[str]:
    """The names of all weightings that the mode uses; none where there is one task."""
    several = len(args.tasks) > 1 or args.mode == "study"
    if args.mode in MODES_OF["weightings"]:
        return named_weightings(args) if several else []
    return [args.weighting] if several else []


def own_flags(args: Any) -> list[flags.Flag]:
    """The flags of this file."""
    return args.flags_by_module_id_dict()[id(sys.modules[__name__])]


class Facts(NamedTuple):
    """What is known of a data set before it is prepared.

    Attributes:
      train: number of training images, those held out included.
      test: number of test images.
      image_size: height and width in pixels.
      class_names: of the segmentation.
      entries: what an example holds.
    """

    train: int
    test: int
    image_size: tuple[int, int]
    class_names: tuple[str, ...]
    entries: tuple[str, ...]


def make_builder(args: Any) -> Any:
    """The TFDS builder of the data set that the flags ask for; nothing is written yet."""
    size = {}
    if args.image_size is not None:
        size = dict(zip(("height", "width"), parse_size(args.image_size), strict=True))
    options = {
        "rooms": {"train_examples": args.rooms_train, "test_examples": args.rooms_test},
        "nyu_depth_v2": {"layout": args.nyu_layout, "num_classes": int(args.nyu_classes)},
        "kitti_stereo": {},
    }[args.dataset]
    module = DATASETS[args.dataset]
    try:
        config = module.config(**options, **size)
    except ValueError as error:
        flag = "rooms_train or --rooms_test" if "examples" in str(error) else "image_size"
        raise ValueError(f"--{flag}: {error}") from None
    data_dir = Path(args.data_dir).expanduser() if args.data_dir else None
    return module.Builder(config=config, data_dir=data_dir)


def facts_of(args: Any) -> Facts:
    """What is known of the data set that the flags ask for."""
    builder = make_builder(args)
    sizes = builder.split_sizes()
    return Facts(
        train=sizes["train"],
        test=sizes["test"],
        image_size=(builder.builder_config.height, builder.builder_config.width),
        class_names=tuple(builder.info.metadata["class_names"]),
        entries=tuple(builder.info.features),
    )


def prepare(args: Any) -> dict[str, data.Dataset]:
    """Makes or converts the data set unless that is done, and returns its splits."""
    builder = make_builder(args)
    manual_dir = Path(args.manual_dir).expanduser() if args.manual_dir else None
    DATASETS[args.dataset].prepare(builder, manual_dir)
    splits = data.open_splits(builder, validation=args.validation)
    labelled = data.withhold_labels(
        splits["train"], label_fraction=args.label_fraction, label_seed=args.label_seed
    )
    return {**splits, "train": labelled}


def check_run(args: Any) -> None:
    """Refuses a run that can't work, before anything is downloaded, prepared or written.

    Raises:
      ValueError: naming the flag.
      OSError: for a folder that can't be written.
    """
    known = facts_of(args)
    tasks = make_tasks(args)
    data.check_labels(known.entries, tasks)
    per_epoch = check_sizes(args, known)
    weighting = make_weighting(args, tasks, per_epoch=per_epoch)
    if args.weighting == "fixed" and len(args.task_weights or tasks) != len(tasks):
        raise ValueError(
            f"--task_weights={','.join(args.task_weights)}: give one number for each of the "
            f"{len(tasks)} tasks"
        )
    make_schedule(args, per_epoch)
    network = make_network(args, len(known.class_names), tasks)
    parallel.choose_devices(args.devices, args.batch_size, args.eval_batch_size)
    check_step(args, network, weighting, tasks, known)
    if args.normals_loss == "codebook" and args.normals_codewords < 4:
        raise ValueError(f"--normals_codewords={args.normals_codewords}: must be at least 4")
    check_writable("workdir", folder_of(args))
    check_folder(args, known, new=True)
    open_pretrained(args, known, network)


def check_sizes(args: Any, known: Facts) -> int:
    """Refuses numbers that don't fit the data set's; returns the steps per epoch.

    Raises:
      ValueError: naming the flag.
    """
    if args.validation >= known.train:
        raise ValueError(
            f"--validation={args.validation}: 0 to {known.train - 1} of the {known.train} training "
            "images can be held out"
        )
    per_epoch = data.steps_per_epoch(range(known.train - args.validation), args.batch_size)
    if args.epochs * per_epoch > MOST_STEPS:
        raise ValueError(
            f"--epochs={args.epochs}: {args.epochs * per_epoch} steps are more than can be counted "
            f"(at most {MOST_STEPS // per_epoch} epochs)"
        )
    largest = max(known.train, known.test, args["eval_batch_size"].default)
    if args.eval_batch_size > largest:
        raise ValueError(
            f"--eval_batch_size={args.eval_batch_size}: no split has more than {largest} images"
        )
    return per_epoch


def check_step(
    args: Any,
    network: models.Network,
    weighting: Weighting,
    tasks: Sequence[task_table.Task],
    known: Facts,
) -> None:
    """Refuses batches with which the network or the weighting can't work; see step.check_options.

    Raises:
      ValueError: naming the flag.
    """
    step.check_options(
        network, weighting,
        image_size=known.image_size, batch_size=args.batch_size, gram_of=args.gradients,
        devices=parallel.choose_devices(args.devices, args.batch_size),
        labelled=labelled_per_batch(args, tasks),
    )  # fmt: skip


def check_folder(args: Any, known: Facts, *, new: bool = False) -> Path:
    """The folder of the run that the flags describe, whose length alone may be another one.

    Args:
      args: the flags.
      known: of the data set.
      new: whether there may be no run yet.

    Raises:
      ValueError: if it holds another run, or none.
    """
    # The learning rate depends on the length, and the metrics on the batches.
    held = {"epochs"} if args.schedule == "cosine" else set()
    held |= {"eval_batch_size"} if args.metric_protocol == "mtan" else set()
    defaults = {flag.name: flag.default for flag in own_flags(args)}
    free = set(LENGTH) - held
    try:
        return workdir.check(
            folder_of(args), describe(args, known), free=free, defaults=defaults, new=new
        )
    except ValueError as error:
        if "epochs" in held and " epochs=" in str(error):
            raise ValueError(
                f"{error}. With --schedule=cosine the learning rate depends on the length of the "
                "run, which therefore can't change"
            ) from error
        raise


def check_writable(flag: str, folder: Path) -> None:
    """Makes sure that files can be written to a folder, or that it can be made; writes nothing.

    Raises:
      ValueError: if it is a file or can't be written.
    """
    try:
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"--{flag}={folder} is a file: give a folder")
        # Not made here, where several processes may look at once.
        nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise ValueError(
            f"--{flag}={folder}: {os.strerror(error.errno)}: choose a folder that can be written"
        ) from error


def parse_size(text: str) -> tuple[int, int]:
    """Height and width of text such as 96x128."""
    parts = text.split("x")
    if len(parts) != 2 or not all(re.fullmatch("[0-9]{1,6}", x) and int(x) for x in parts):
        raise ValueError(f"--image_size={text}: give HEIGHTxWIDTH in pixels, such as 96x128")
    return int(parts[0]), int(parts[1])


def warn_of_leak(splits: dict[str, data.Dataset], split: str) -> None:
    """Warns if images to evaluate on are among those to train on."""
    count = data.common_images(splits["train"], splits[split])
    if count:
        print(
            f"WARNING: {count} of the {len(splits[split])} {split} images are training images too: "
            "the results on them say nothing about new images",
            file=sys.stderr,
        )


def parse_numbers(flag: str, texts: Sequence[str] | None) -> list[float] | None:
    """The numbers of a flag that is a list of them."""
    try:
        return None if texts is None else [float(text) for text in texts]
    except ValueError:
        raise ValueError(f"--{flag}={','.join(texts)}: give numbers separated by commas") from None


def method_of(args: Any) -> str:
    """The weighting's name; with a single task there is nothing to weigh."""
    return args.weighting if len(args.tasks) > 1 else "equal"


def make_weighting(args: Any, tasks: Sequence[task_table.Task], *, per_epoch: int) -> Weighting:
    """The weighting with the flags that are its own."""
    options = {
        "uw": {
            "form": args.uw_form,
            "learning_rate": args.uw_learning_rate,
            "classification": [task.classification for task in tasks],
        },
        "nash": {"max_norm": args.nash_max_norm or math.inf},
        "fixed": {"task_weights": parse_numbers("task_weights", args.task_weights)},
        "rlw": {"form": args.rlw_form},
        "dwa": {"steps_per_epoch": per_epoch, "temperature": args.dwa_temperature},
        "stch": {"steps_per_epoch": per_epoch},
        "famo": {"gamma": args.famo_gamma},
        "fairgrad": {"alpha": args.fairgrad_alpha, "max_norm": args.nash_max_norm or math.inf},
        "cagrad": {"c": args.cagrad_c},
        "mgda": {"normalization": args.mgda_normalization},
        "aligned_mtl": {"scale": args.aligned_mtl_scale},
        "gradnorm": {"alpha": args.gradnorm_alpha},
    }
    method = method_of(args)
    try:
        return METHODS[method](**options.get(method, {}))
    except ValueError as error:
        given = [name for name, readers in OPTIONS.items() if method in readers]
        given = [name for name in given if args[name].value != args[name].default]
        raise ValueError(f"--{', --'.join(given or ['weighting'])}: {error}") from error


def make_tasks(args: Any, book: codebook.Codebook | None = None) -> tuple[task_table.Task, ...]:
    """The tasks in the forms that the flags ask for; of normals, with the run's codebook."""
    return task_table.select(
        args.tasks,
        depth_loss=args.depth_loss
        if args.depth_loss == "l1"
        else f"{args.depth_loss}:nearest={args.nearest_depth}",
        normals_loss=f"codebook:codewords={args.normals_codewords}"
        if args.normals_loss == "codebook"
        else args.normals_loss,
        normals_source=args.normals_source,
        codebook=book,
    )


def open_codebook(
    args: Any, splits: dict[str, data.Dataset], folder: Path
) -> codebook.Codebook | None:
    """The codebook of the run in a folder, if it has one."""
    if args.normals_loss != "codebook" or "normals" not in args.tasks:
        return None
    sample = partial(data.sample_labels, splits["train"], task_table.NORMALS.labels[0])
    return codebook_file.of_run(folder, args.normals_codewords, sample)


def make_network(args: Any, num_classes: int, tasks: Sequence[task_table.Task]) -> models.Network:
    """The network that the flags ask for."""
    return models.build(
        tasks,
        num_classes=num_classes,
        model=args.model,
        backbone=args.backbone,
        dtype=PRECISIONS[args.precision],
        axis_name=parallel.AXIS,
    )


def labelled_per_batch(args: Any, tasks: Sequence[task_table.Task]) -> int | None:
    """How many images of each batch show their segmentation; None if all do."""
    if args.label_fraction >= 1:
        return None
    return data.labelled_images(
        tasks, batch_size=args.batch_size, labelled_per_batch=args.labelled_per_batch or None
    )


def network_name(args: Any) -> str:
    """What a table calls the network."""
    return args.backbone if args.model == "resnet_unet" else args.model


def open_pretrained(
    args: Any, known: Facts, network: models.Network, *, announce: bool = False
) -> dict[str, Any] | None:
    """The tensors of --pretrained, checked against the network; none for a run that goes on."""
    if args.pretrained is None or workdir.has_checkpoint(folder_of(args)):
        return None
    source = args.pretrained.replace("{seed}", str(args.seed))
    tensors = pretrained.read(source)
    variables = models.init(network, jax.random.key(0), known.image_size)
    loaded = pretrained.put_into(variables, tensors, source=source)
    if not announce:
        return tensors
    print(
        f"{source}: {loaded.count} tensors for the encoder, {loaded.others} for the rest; "
        f"not used: {', '.join(loaded.skipped) or 'none'}; "
        f"missing: {', '.join(loaded.missed) or 'none'}"
    )
    return tensors


def make_schedule(args: Any, per_epoch: int) -> optax.Schedule:
    """The learning rate of each step."""
    return optimizer.learning_rate_schedule(
        args.learning_rate,
        schedule=args.schedule,
        steps=args.epochs * per_epoch,
        steps_per_epoch=per_epoch,
        halve_every=args.halve_every,
        warmup_epochs=args.warmup_epochs,
    )


def folder_of(args: Any) -> Path:
    """The folder of the one run that the flags describe."""
    if args.workdir is None:
        what = method_of(args) if len(args.tasks) > 1 else args.tasks[0]
        return Path("runs") / f"{args.dataset}-{what}-{args.seed}"
    if len(args.workdir) != 1:
        raise ValueError(
            f"--workdir={','.join(args.workdir)}: --mode={args.mode} takes one folder (write one "
            "whose name has a comma in double quotes within the shell's single ones)"
        )
    return Path(args.workdir[0]).expanduser()


def out_of(args: Any, default: Path) -> Path:
    """Where to write: --out, or the default."""
    return Path(args.out).expanduser() if args.out else default


def describe(args: Any, known: Facts) -> dict[str, Any]:
    """What `config.json` says of a run."""
    defining = [flag for flag in own_flags(args) if flag.name not in PLACE_AND_SPEED]
    return {
        **{flag.name: flag.value for flag in defining},
        "weighting": method_of(args),
        # Elsewhere it changes nothing but speed.
        "eval_batch_size": args.eval_batch_size if args.metric_protocol == "mtan" else None,
        "image_size": list(known.image_size),
        "class_names": list(known.class_names),
    }


def run(args: Any) -> None:
    """Trains to the end, prints the table and draws the report."""
    check_run(args)
    splits = prepare(args)
    known = facts_of(args)
    warn_of_leak(splits, "test")
    per_epoch = data.steps_per_epoch(splits["train"], args.batch_size)
    schedule = make_schedule(args, per_epoch)
    book = open_codebook(args, splits, folder_of(args))
    tasks = make_tasks(args, book)
    network = make_network(args, len(known.class_names), tasks)
    encoder = open_pretrained(args, known, network, announce=True)
    with workdir.own(folder_of(args)) as folder:
        check_folder(args, known, new=True)

        def record() -> None:
            workdir.write(folder, describe(args, known))
            if book is not None:
                codebook_file.store(book, folder)
            write_flags(args, folder)

        result = loop.train(
            folder, splits, tasks, network, make_weighting(args, tasks, per_epoch=per_epoch),
            optimizer.adam(schedule, weight_decay=args.weight_decay), schedule,
            epochs=args.epochs, batch_size=args.batch_size, seed=args.seed,
            labelled_per_batch=args.labelled_per_batch or None,
            weighting_every=args.nash_every, gram_of=args.gradients,
            augment=args.augment, jitter=args.colour_jitter,
            evaluate_every=args.evaluate_every, evaluation_batch_size=args.eval_batch_size,
            protocol=args.metric_protocol, keep=args.keep, cache=args.cache, encoder=encoder,
            devices=parallel.choose_devices(args.devices, args.batch_size, args.eval_batch_size),
            accepted=record,
        )  # fmt: skip
        method = method_of(args) if len(tasks) > 1 else "single task"
        print(results.text_table(result, tasks, method))
        warn_of_failures(result)
        write_report([folder], folder / "report")


def warn_of_failures(result: Mapping[str, Any]) -> None:
    """Warns of steps that were skipped and of metrics that are no numbers."""
    skipped = result.get("skipped_steps")
    if skipped:
        print(f"WARNING: {skipped} steps were skipped, whose gradients were not finite")
    values = result["metrics"].items()
    unknown = [name for name, value in values if value is None or not math.isfinite(value)]
    if unknown:
        print(
            f"WARNING: no numbers for {', '.join(unknown)}: the split has no such labels, or the "
            "network's predictions are not finite"
        )


def run_evaluation(args: Any) -> None:
    """Evaluates a checkpoint on a split and prints it with the trivial predictor."""
    devices = parallel.choose_devices(args.devices, args.eval_batch_size)
    if args.split == "validation" and not args.validation:
        raise ValueError("--split=validation: there is none without --validation=N")
    check_evaluated(args)
    splits = prepare(args)
    if args.split != "train":
        warn_of_leak(splits, args.split)
    tasks, network, variables = open_run(args, splits, devices)
    how = {
        "batch_size": args.eval_batch_size,
        "devices": devices,
        "protocol": args.metric_protocol,
    }
    predict = evaluation.network_predictor(network, tasks)
    step = evaluation.evaluation_step(predict, tasks, devices)
    result = {
        "metrics": evaluation.evaluate(step, variables, splits[args.split], tasks, **how),
        "floor": evaluation.floor(splits, tasks, split=args.split, **how),
    }
    print(results.text_table(result, tasks, f"{args.checkpoint} on {args.split}"))
    warn_of_failures(result)


def check_evaluated(args: Any) -> Path:
    """The folder of the finished or unfinished run that the flags describe.

    Raises:
      ValueError: if it holds none, or another one.
    """
    free = (*LENGTH, "metric_protocol")
    defaults = {flag.name: flag.default for flag in own_flags(args)}
    return workdir.check(
        folder_of(args), describe(args, facts_of(args)), free=free, defaults=defaults
    )


def open_run(
    args: Any, splits: dict[str, data.Dataset], devices: Sequence[jax.Device]
) -> tuple[tuple[task_table.Task, ...], models.Network, models.Variables]:
    """Tasks, network and variables of a checkpoint of the run that the flags describe."""
    folder = check_evaluated(args)
    tasks = make_tasks(args, open_codebook(args, splits, folder))
    network = make_network(args, len(splits["train"].class_names), tasks)
    per_epoch = data.steps_per_epoch(splits["train"], args.batch_size)
    schedule = make_schedule(args, per_epoch)
    variables = loop.restore_variables(
        folder, splits, tasks, network, make_weighting(args, tasks, per_epoch=per_epoch),
        optimizer.adam(schedule, weight_decay=args.weight_decay),
        which=args.checkpoint, devices=devices,
    )  # fmt: skip
    return tasks, network, variables


def run_export(args: Any) -> None:
    """Writes a checkpoint's weights for other frameworks."""
    out = out_of(args, check_evaluated(args) / "weights.safetensors")
    if out.exists() and not (out.is_file() and out.suffix == ".safetensors"):
        raise ValueError(f"--out={out} exists and is no .safetensors file: give another name")
    check_writable("out", out.parent)
    _, _, variables = open_run(args, prepare(args), jax.local_devices()[:1])
    print(f"{pretrained.export(variables, out)} tensors written to {out}")


def run_sweep(args: Any) -> None:
    """Trains what is not done yet of the single-task runs and weightings, and compares them."""
    run_grid(args, grid.weightings_grid(args.tasks, parse_weightings(args), parse_seeds(args)))


def run_study(args: Any) -> None:
    """Trains what is not done yet of the arms with few labels, and compares them."""
    arms = [arm.split("+") for arm in args.arms]
    parts = [parse_fraction(text) for text in args.label_fractions]
    # The fewer labels there are, the fewer methods can work.
    with changed(args, {"label_fraction": min(parts, default=1.0)}):
        weightings = parse_weightings(args)
    run_grid(args, grid.study_grid(arms, weightings, parts, parse_seeds(args)))


def run_benchmark(args: Any) -> None:
    """Times the steps and the solver; writes benchmark.md and benchmark.json."""
    devices = parallel.choose_devices(args.devices, args.batch_size)
    if len(args.tasks) < 2:
        raise ValueError("--tasks: --mode=benchmark compares weightings of two tasks or more")
    if args.normals_loss == "codebook":
        raise ValueError("--normals_loss=codebook: --mode=benchmark has no normals to fit one to")
    tasks = make_tasks(args)
    known = facts_of(args)
    data.check_labels(known.entries, tasks)
    size, num_classes = known.image_size, len(known.class_names)
    folder = folder_of(args) if args.workdir else Path("runs/benchmark")
    check_writable("workdir", folder)
    network = make_network(args, num_classes, tasks)
    batch = speed.synthetic_batch(
        tasks, image_size=size, batch_size=args.batch_size, num_classes=num_classes
    )
    weightings = {}
    for name in parse_weightings(args):
        with changed(args, {"weighting": name}):
            weightings[name] = make_weighting(args, tasks, per_epoch=100)
        check_step(args, network, weightings[name], tasks, known)
    result = speed.compare_weightings(
        weightings, tasks, network, optimizer.adam(lambda step: args.learning_rate), batch,
        devices=devices, rounds=args.benchmark_steps, augment=args.augment,
        jitter=args.colour_jitter, gram_of=args.gradients,
        others=torch_rivals(args, tasks, num_classes, batch) if args.compare_torch else None,
    )  # fmt: skip
    result |= {
        "what": f"{network_name(args)}, {args.batch_size} images of {size[0]}x{size[1]}, "
        f"{args.precision}, {len(devices)} x {devices[0].device_kind}",
        "rounds": args.benchmark_steps,
        "num_tasks": len(tasks),
        "solvers": speed.compare_solvers(),
        "versions": workdir.versions(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    workdir.write_json(folder / "benchmark.json", result)
    text = speed.to_markdown(result)
    files.write(folder / "benchmark.md", text)
    print(f"{text}\nwritten to {folder / 'benchmark.md'}")


def torch_rivals(
    args: Any, tasks: Sequence[task_table.Task], num_classes: int, batch: Mapping[str, Any]
) -> dict[str, Callable[[], Any]]:
    """PyTorch's steps on the same batch."""
    check_twin(args, "--compare_torch")
    with needs_torch("--compare_torch"):
        from mtl_jax.bench.torch_twin import training

        channels = {task.name: task.channels or num_classes for task in tasks}
        decoded = jax.device_get(jax.jit(partial(data.decode, tasks=tasks))(dict(batch)))
        return training.rivals(
            tasks, args.model, args.backbone, channels, decoded, learning_rate=args.learning_rate
        )


def check_twin(args: Any, flag: str) -> None:
    """Refuses what PyTorch's side does not have."""
    known = {
        "model": ("resnet_unet", "segnet"),
        "depth_loss": ("l1",),
        "normals_source": ("labels",),
        "normals_loss": ("cosine",),
        "precision": ("float32",),
        "uw_form": ("common",),
        "uw_learning_rate": (0.025,),
        "nash_max_norm": (1.0,),
        "nash_every": (1,),
        "gradients": ("parameters",),
    }
    for name, values in known.items():
        if args[name].value not in values:
            known = " and ".join(map(str, values))
            raise ValueError(f"--{name}={args[name].value}: {flag} knows {known}")


@contextmanager
def needs_torch(flag: str) -> Iterator[None]:
    """Says how to get PyTorch, where it is missing."""
    try:
        yield
    except ImportError as error:
        raise ValueError(
            f"{flag} needs PyTorch ({error}): run pip install -e '.[torch]' in the clone"
        ) from error


def run_compare(args: Any) -> None:
    """Trains here and in PyTorch from the same weights on the same batches."""
    method = method_of(args)
    check_twin(args, "--mode=compare")
    if method not in ("equal", "uw", "nash"):
        raise ValueError(f"--weighting={method}: --mode=compare knows equal, uw and nash")
    with needs_torch("--mode=compare"):
        from mtl_jax.bench import compare
    tasks, known = task_table.select(args.tasks), facts_of(args)
    data.check_labels(known.entries, tasks)
    per_epoch = check_sizes(args, known)
    size = known.image_size
    network = make_network(args, len(known.class_names), tasks)
    weighting = make_weighting(args, tasks, per_epoch=per_epoch)
    check_step(args, network, weighting, tasks, known)
    folder = folder_of(args) if args.workdir else Path("runs/compare")
    check_writable("workdir", folder)
    splits = prepare(args)
    batches = [
        data.batch_at(
            splits["train"], tasks, batch_size=args.batch_size, seed=args.seed, step=number
        )
        for number in range(args.benchmark_steps)
    ]
    result = compare.compare(
        batches, tasks, network, weighting,
        method=method, model=args.model, backbone=args.backbone,
        learning_rate=args.learning_rate, seed=args.seed,
    )  # fmt: skip
    result |= {
        "what": f"{network_name(args)}, {method}, {args.batch_size} images of {size[0]}x{size[1]} "
        f"of {args.dataset}",
        "tasks": [task.name for task in tasks],
        "versions": workdir.versions(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    workdir.write_json(folder / "compare.json", result)
    text = compare.to_markdown(result)
    files.write(folder / "compare.md", text)
    picture = io.BytesIO()
    compare.loss_figure(result).savefig(picture, dpi=110)
    files.write(folder / "compare.png", picture.getvalue())
    print(f"{text}\nwritten to {folder / 'compare.md'} and compare.png")


def named_weightings(args: Any) -> list[str]:
    """The methods that --weightings names."""
    if args.weightings == ["all"]:
        return list(METHODS)
    for name in args.weightings:
        if name not in METHODS:
            raise ValueError(
                f"--weightings: no {name!r}; choose from {', '.join(METHODS)}, or all alone"
            )
    return args.weightings


def parse_weightings(args: Any) -> list[str]:
    """The methods of --weightings; of all, those that the other flags allow."""
    names = named_weightings(args)
    if args.weightings != ["all"]:
        return names
    tasks, known = make_tasks(args), facts_of(args)
    network = make_network(args, len(known.class_names), tasks)
    # What stands against this one stands against all of them.
    check_step(args, network, METHODS["equal"](), tasks, known)
    allowed = []
    for name in names:
        try:
            check_step(args, network, METHODS[name](), tasks, known)
            allowed.append(name)
        except ValueError as error:
            print(f"note: --weightings=all leaves out {name}: {error}")
    return allowed


def parse_seeds(args: Any) -> list[int]:
    """The numbers of --seeds."""
    if not all(re.fullmatch("[0-9]{1,10}", x) and int(x) <= LARGEST_SEED for x in args.seeds):
        raise ValueError(
            f"--seeds={','.join(args.seeds)}: give whole numbers up to {LARGEST_SEED}, such as "
            "0,1,2"
        )
    return [int(seed) for seed in args.seeds]


def parse_fraction(text: str) -> float:
    """The number of text such as 1/8 or 0.125.

    Raises:
      ValueError: unless it is more than 0 and at most 1.
    """
    try:
        number = float(fractions.Fraction(text))
    except (ValueError, ZeroDivisionError, OverflowError):
        number = math.nan
    if not 0 < number <= 1:
        raise ValueError(
            f"--label_fractions: {text} is no part of the images; give parts such as 1/8 or 0.125"
        )
    return number


def run_grid(args: Any, runs: Sequence[grid.Run]) -> None:
    """Trains the runs that are not done yet in one folder, and draws the report of all."""
    root = folder_of(args) if args.workdir else Path("runs") / f"{args.mode}-{args.dataset}"

    def within(function: Callable[[Any], Any]) -> Callable[[grid.Run], Any]:
        def call(one: grid.Run) -> Any:
            with changed(args, {**one.changes, "workdir": [str(root / one.name)]}):
                return function(args)

        return call

    if (root / "config.json").exists():
        raise ValueError(f"--workdir={root} holds a run: give this {args.mode} a folder of its own")
    # All of them first: a run that can't work must not be found after hours of others.
    for one in runs:
        try:
            if not within(has_finished)(one):
                within(check_run)(one)
        except ValueError as error:
            raise ValueError(f"{error} (run {one.name} of this {args.mode})") from error
    failed, in_use = grid.perform(runs, within(has_finished), within(run))
    finished = [root / run.name for run in runs if (root / run.name / "result.json").exists()]
    if finished:
        write_report(finished, root / "report")
    missing = [name for name in in_use if not (root / name / "result.json").exists()]
    if missing:
        print(
            f"the report lacks {len(missing)} of {len(runs)} runs, which other processes are "
            f"training: {', '.join(missing)}; the same command adds them when they are done"
        )
    if failed:
        raise ValueError(f"{len(failed)} of {len(runs)} runs failed: {', '.join(failed)}")


@contextmanager
def changed(args: Any, changes: Mapping[str, Any]) -> Iterator[None]:
    """Other values of some flags, for a while."""
    before = {name: args[name].value for name in changes}
    try:
        for name, value in changes.items():
            args[name].value = value
        yield
    finally:
        for name, value in before.items():
            args[name].value = value


def has_finished(args: Any) -> bool:
    """Whether the run that the flags describe has been trained to its end."""
    folder = folder_of(args)
    if workdir.finished_epoch(folder) < args.epochs:
        return False
    check_folder(args, facts_of(args))
    return True


def run_report(args: Any) -> None:
    """Draws tables and pictures of one or more runs."""
    folders = [Path(folder).expanduser() for folder in args.workdir or [folder_of(args)]]
    out = out_of(args, folders[0] / "report")
    write_report(folders, out)


def write_report(folders: Sequence[Path], out: Path) -> None:
    """Writes the report and says where it is; of several processes the first one does."""
    if workdir.is_writer():
        print(f"report: {report.write_report(folders, out)}")


def write_flags(args: Any, folder: Path) -> None:
    """Writes `flags.txt`, with which --flagfile replays the run; the first process does."""
    if not workdir.is_writer():
        return
    # Without those of one mode, so that the same file serves to evaluate, and without those of one
    # process of several.
    leave_out = {"mode", "coordinator", "num_processes", "process_id", *MODES_OF} - {"weighting"}
    kept = [x for x in own_flags(args) if x.value is not None and x.name not in leave_out]
    files.write(
        folder / "flags.txt", "".join(f"{line}\n" for line in sorted(x.serialize() for x in kept))
    )


if __name__ == "__main__":
    jax.config.config_with_absl()
    # Libraries log much that a user need not read, such as the traceback of an error that is then
    # raised here: --verbosity=0 brings it back.
    logging.set_verbosity(logging.FATAL)
    faults.silence_threads()
    app.run(main, flags_parser=parse_flags)
