"""Trains, evaluates and reports. The flags stand here and nowhere else: see --help.

python launch.py --dataset=rooms --weighting=nash
"""

import fractions
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from absl import app, flags, logging

from datasets.kitti_stereo import kitti_stereo_dataset_builder as kitti_stereo
from datasets.nyu_depth_v2 import nyu_depth_v2_dataset_builder as nyu_depth_v2
from datasets.rooms import rooms_dataset_builder as rooms
from mtl_jax import (
    benchmark,
    codebook,
    data,
    evaluate,
    feed,
    models,
    optimizer,
    parallel,
    pretrained,
    report,
    results,
    step,
    sweep,
    train,
    workdir,
)
from mtl_jax import tasks as task_table
from mtl_jax.models import resnet
from mtl_jax.weighting import METHODS, Weighting

DEFAULT_SIZES = {"nyu_depth_v2": "288x384", "rooms": "96x128", "kitti_stereo": "128x416"}
LARGEST_SEED = 2**31 - 2
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
    "run: in --mode=benchmark time the same network in PyTorch, too; needs mtl_jax[torch].",
)  # fmt: skip
flags.DEFINE_bool("debug", False, "run: show the whole traceback of an error.")

# -- data --
flags.DEFINE_enum("dataset", "nyu_depth_v2", list(DEFAULT_SIZES), "data: what to train on.")
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
    "half of the batch. With segmentation alone all do.", lower_bound=0,
)  # fmt: skip
flags.DEFINE_enum(
    "cache", "none", list(feed.CACHES),
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
    "model: .safetensors or .pth file of a ResNet of torchvision, timm or "
    "segmentation_models_pytorch to start the encoder from, or what --mode=export wrote, of which "
    "the whole trunk and the heads are taken; {seed} in its name stands for --seed. A run that "
    "goes on does not read it.",
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
    "weighting: of nash and fairgrad, largest norm of the trunk's combined gradient in the steps "
    "that update the weights, which are then held; 0: any.",
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
    "metric_protocol", "pooled", list(evaluate.PROTOCOLS),
    "evaluation: over all pixels of the split; or mtan, depth and normals averaged over batches as "
    "in the literature (which has --eval_batch_size=2).",
)  # fmt: skip
flags.DEFINE_string("checkpoint", "latest", "evaluation: latest, best, or the number of a step.")
flags.DEFINE_enum(
    "split", "test", ["test", "validation", "train"], "evaluation: split for --mode=evaluate."
)

# What a run is: a work directory goes on only with the same values. The rest may change.
DEFINES_A_RUN = (
    "dataset", "nyu_layout", "nyu_classes", "image_size", "rooms_train", "rooms_test",
    "validation", "label_fraction", "label_seed", "labelled_per_batch", "augment",
    "colour_jitter", "tasks", "pretrained", "depth_loss", "nearest_depth", "normals_source",
    "normals_loss", "normals_codewords", "model", "backbone", "precision", "weighting", "uw_form",
    "uw_learning_rate", "nash_max_norm", "nash_every", "gradients", "task_weights", "rlw_form",
    "dwa_temperature", "famo_gamma", "fairgrad_alpha", "cagrad_c", "mgda_normalization",
    "aligned_mtl_scale", "gradnorm_alpha", "batch_size", "learning_rate", "schedule",
    "halve_every", "warmup_epochs", "weight_decay", "seed", "metric_protocol",
)  # fmt: skip


def main(argv: Sequence[str]) -> None:
    """Runs the mode; what a user can mend is said in one line, with exit status 1."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}: flags begin with --")
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
    if args.compilation_cache:
        jax.config.update("jax_compilation_cache_dir", os.path.expanduser(args.compilation_cache))
    try:
        check_flags(args)
        if args.coordinator:
            parallel.join(args.coordinator, args.num_processes, args.process_id)
            if not workdir.is_writer():
                sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (one process speaks for all)
        modes[args.mode](args)
    except train.Stopped as stopped:
        print(f"{stopped}; the same command goes on from there")
    except (ValueError, OSError, FloatingPointError) as error:
        if args.debug:
            raise
        sys.exit(f"launch.py: {error}")


def check_flags(args: Any) -> None:
    """Refuses what makes no sense whatever the data set.

    Raises:
      ValueError: naming the flag.
    """
    task_table.select(args.tasks)
    if args.image_size is not None:
        parse_size(args.image_size)
    if args.colour_jitter and not args.augment:
        raise ValueError("--colour_jitter is a part of --augment: leave --noaugment out")
    if args.coordinator and args.mode in ("benchmark", "compare", "export"):
        raise ValueError(f"--coordinator: --mode={args.mode} runs in one process")
    if not args.coordinator and (args.num_processes, args.process_id) != (None, None):
        raise ValueError("--num_processes and --process_id go with --coordinator=HOST:PORT")


def prepare(args: Any) -> dict[str, data.Dataset]:
    """Makes or converts the data set if need be; its splits."""
    size = {}
    if args.image_size is not None:
        size = dict(zip(("height", "width"), parse_size(args.image_size), strict=True))
    if args.dataset == "rooms":
        config = rooms.config(
            train_examples=args.rooms_train, test_examples=args.rooms_test, **size
        )
        module = rooms
    elif args.dataset == "kitti_stereo":
        config, module = kitti_stereo.config(**size), kitti_stereo
    else:
        config = nyu_depth_v2.config(args.nyu_layout, num_classes=int(args.nyu_classes), **size)
        module = nyu_depth_v2
    data_dir, manual_dir = (
        Path(folder).expanduser() if folder else None for folder in (args.data_dir, args.manual_dir)
    )
    builder = module.Builder(config=config, data_dir=data_dir)
    module.prepare(builder, manual_dir)
    splits = data.open_splits(builder, validation=args.validation)
    labelled = data.withhold_labels(
        splits["train"], fraction=args.label_fraction, seed=args.label_seed
    )
    return {**splits, "train": labelled}


def parse_size(text: str) -> tuple[int, int]:
    """Height and width of text such as 96x128."""
    parts = text.split("x")
    if len(parts) != 2 or not all(part.isdecimal() and int(part) for part in parts):
        raise ValueError(f"--image_size={text}: give HEIGHTxWIDTH in pixels, such as 96x128")
    return int(parts[0]), int(parts[1])


def warn_of_leak(splits: dict[str, data.Dataset], split: str) -> None:
    """Says so if images to evaluate on are among those to train on."""
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


def make_weighting(args: Any, *, per_epoch: int) -> Weighting:
    """The weighting with the flags that are its own."""
    options = {
        "uw": {
            "form": args.uw_form,
            "learning_rate": args.uw_learning_rate,
            "classification": [task == "segmentation" for task in args.tasks],
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
    return METHODS[method](**options.get(method, {}))


def make_tasks(args: Any, book: codebook.Codebook | None = None) -> tuple[task_table.Task, ...]:
    """The tasks in the forms that the flags ask for; of normals, with the run's codebook."""
    return task_table.select(
        args.tasks,
        depth_loss=args.depth_loss,
        nearest_depth=args.nearest_depth,
        normals_source=args.normals_source,
        normals_codebook=book,
    )


def open_codebook(
    args: Any, splits: dict[str, data.Dataset], folder: Path
) -> codebook.Codebook | None:
    """The codebook of the run in a folder, if it has one."""
    if args.normals_loss != "codebook" or "normals" not in args.tasks:
        return None
    sample = partial(data.sample_normals, splits["train"])
    return codebook.of_run(folder, args.normals_codewords, sample)


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
        tasks, batch_size=args.batch_size, labelled=args.labelled_per_batch or None
    )


def network_name(args: Any) -> str:
    """What a table calls the network."""
    return args.backbone if args.model == "resnet_unet" else args.model


def open_pretrained(
    args: Any, splits: dict[str, data.Dataset], network: models.Network
) -> dict[str, Any] | None:
    """The tensors of --pretrained, checked against the network; none for a run that goes on."""
    if args.pretrained is None or workdir.has_checkpoint(folder_of(args)):
        return None
    if args.model != "resnet_unet":
        raise ValueError(f"--pretrained goes with --model=resnet_unet, not {args.model}")
    source = args.pretrained.replace("{seed}", str(args.seed))
    tensors = pretrained.read(source)
    variables = models.init(network, jax.random.key(0), splits["train"].image_size)
    loaded = pretrained.put_into(variables, tensors, source=source)
    print(
        f"{source}: {loaded.count} tensors for the encoder, {loaded.others} for the rest; "
        f"not used: {', '.join(loaded.skipped) or 'none'}; "
        f"missing: {', '.join(loaded.missed) or 'none'}"
    )
    return tensors


def make_schedule(args: Any, splits: dict[str, data.Dataset]) -> optax.Schedule:
    """The learning rate of each step."""
    per_epoch = data.steps_per_epoch(splits["train"], args.batch_size)
    return optimizer.learning_rate_schedule(
        args.learning_rate,
        schedule=args.schedule,
        steps=args.epochs * per_epoch,
        steps_per_epoch=per_epoch,
        halve_every=args.halve_every,
        warmup_epochs=args.warmup_epochs,
    )


def folder_of(args: Any) -> Path:
    """The run's folder, of which there is one."""
    if args.workdir is None:
        what = method_of(args) if len(args.tasks) > 1 else args.tasks[0]
        return Path("runs") / f"{args.dataset}-{what}-{args.seed}"
    if len(args.workdir) != 1:
        raise ValueError(f"--workdir={','.join(args.workdir)}: --mode={args.mode} takes one folder")
    return Path(args.workdir[0]).expanduser()


def out_of(args: Any, default: Path) -> Path:
    """What --out says."""
    return Path(args.out).expanduser() if args.out else default


def describe(args: Any, splits: dict[str, data.Dataset]) -> dict[str, Any]:
    """What `config.json` says of a run."""
    return {
        **{name: args[name].value for name in DEFINES_A_RUN},
        "weighting": method_of(args),
        "epochs": args.epochs,
        # Elsewhere it changes nothing but speed.
        "eval_batch_size": args.eval_batch_size if args.metric_protocol == "mtan" else None,
        "image_size": list(splits["train"].image_size),
        "class_names": list(splits["train"].class_names),
    }


def run(args: Any) -> None:
    """Trains to the end, prints the table and draws the report."""
    tasks = make_tasks(args)
    devices = parallel.choose_devices(args.devices, args.batch_size, args.eval_batch_size)
    splits = prepare(args)
    per_epoch = data.steps_per_epoch(splits["train"], args.batch_size)
    weighting = make_weighting(args, per_epoch=per_epoch)
    data.check_labels(splits["train"], tasks)
    multiple = 1 if args.model == "resnet_unet" else 32
    models.check_image_size(splits["train"].image_size, multiple_of=multiple)
    warn_of_leak(splits, "test")
    schedule = make_schedule(args, splits)
    adam = optimizer.adam(schedule, weight_decay=args.weight_decay)
    # Before the folder is claimed, so that a better flag can follow a bad one.
    weighting.init(len(tasks), ())
    step.check_options(
        make_network(args, len(splits["train"].class_names), tasks), weighting,
        image_size=splits["train"].image_size, batch_size=args.batch_size, devices=devices,
        gram_of=args.gradients, labelled=labelled_per_batch(args, tasks),
    )  # fmt: skip
    book = open_codebook(args, splits, folder_of(args))
    tasks = make_tasks(args, book)
    network = make_network(args, len(splits["train"].class_names), tasks)
    encoder = open_pretrained(args, splits, network)
    # A run may be made longer later, unless its learning rate depends on its length.
    free = () if args.schedule == "cosine" else ("epochs",)
    folder = workdir.claim(folder_of(args), describe(args, splits), free=free)
    if book is not None:
        codebook.store(book, folder)
    write_flags(args, folder)
    result = train.train(
        folder, splits, tasks, network, weighting, adam, schedule,
        epochs=args.epochs, batch_size=args.batch_size, seed=args.seed,
        labelled_per_batch=args.labelled_per_batch or None,
        weighting_every=args.nash_every, gram_of=args.gradients,
        augmentation=args.augment, jitter=args.colour_jitter,
        evaluate_every=args.evaluate_every, evaluation_batch_size=args.eval_batch_size,
        protocol=args.metric_protocol, keep=args.keep, cache=args.cache, encoder=encoder,
        devices=devices,
    )  # fmt: skip
    print(results.text_table(result, tasks, method_of(args) if len(tasks) > 1 else "single task"))
    write_report([folder], folder / "report")


def run_evaluation(args: Any) -> None:
    """Evaluates a checkpoint on a split and prints the table beside the trivial predictor."""
    devices = parallel.choose_devices(args.devices, args.eval_batch_size)
    splits = prepare(args)
    if args.split not in splits:
        raise ValueError(f"--split={args.split}: there is none without --validation=N")
    if args.split != "train":
        warn_of_leak(splits, args.split)
    tasks, network, variables = open_run(args, splits, devices)
    how = {
        "batch_size": args.eval_batch_size,
        "devices": devices,
        "protocol": args.metric_protocol,
    }
    predict = evaluate.network_predictor(network, tasks)
    step = evaluate.evaluation_step(predict, tasks, devices)
    result = {
        "metrics": evaluate.evaluate(step, variables, splits[args.split], tasks, **how),
        "floor": evaluate.floor(splits, tasks, split=args.split, **how),
    }
    print(results.text_table(result, tasks, f"{args.checkpoint} on {args.split}"))


def open_run(
    args: Any, splits: dict[str, data.Dataset], devices: Sequence[jax.Device]
) -> tuple[tuple[task_table.Task, ...], models.Network, models.Variables]:
    """Tasks, network and variables of a checkpoint of the run that the flags describe."""
    free = ("epochs", "metric_protocol", "eval_batch_size")
    folder = workdir.check(folder_of(args), describe(args, splits), free=free)
    tasks = make_tasks(args, open_codebook(args, splits, folder))
    network = make_network(args, len(splits["train"].class_names), tasks)
    per_epoch = data.steps_per_epoch(splits["train"], args.batch_size)
    variables = train.restore_variables(
        folder, splits, tasks, network, make_weighting(args, per_epoch=per_epoch),
        optimizer.adam(make_schedule(args, splits), weight_decay=args.weight_decay),
        which=args.checkpoint, devices=devices,
    )  # fmt: skip
    return tasks, network, variables


def run_export(args: Any) -> None:
    """Writes a checkpoint's weights for other frameworks."""
    splits = prepare(args)
    _, _, variables = open_run(args, splits, jax.local_devices()[:1])
    out = out_of(args, folder_of(args) / "weights.safetensors")
    print(f"{pretrained.export(variables, out)} tensors written to {out}")


def run_sweep(args: Any) -> None:
    """Trains what is not done yet of the single-task runs and weightings, and compares them."""
    run_grid(args, sweep.weightings_grid(args.tasks, parse_weightings(args), parse_seeds(args)))


def run_study(args: Any) -> None:
    """Trains what is not done yet of the arms with few labels, and compares them."""
    arms = [arm.split("+") for arm in args.arms]
    for arm in arms:
        task_table.select(arm)
    parts = [parse_fraction(text) for text in args.label_fractions]
    run_grid(args, sweep.study_grid(arms, parse_weightings(args), parts, parse_seeds(args)))


def run_benchmark(args: Any) -> None:
    """Times the steps and the solver; writes benchmark.md and benchmark.json."""
    devices = parallel.choose_devices(args.devices, args.batch_size)
    if len(args.tasks) < 2:
        raise ValueError("--tasks: --mode=benchmark compares weightings of two tasks or more")
    if args.normals_loss == "codebook":
        raise ValueError("--normals_loss=codebook: --mode=benchmark has no normals to fit one to")
    tasks = make_tasks(args)
    size = parse_size(args.image_size or DEFAULT_SIZES[args.dataset])
    models.check_image_size(size)
    folder = folder_of(args) if args.workdir else Path("runs/benchmark")
    folder.mkdir(parents=True, exist_ok=True)
    num_classes = int(args.nyu_classes) if args.dataset == "nyu_depth_v2" else 13
    network = make_network(args, num_classes, tasks)
    batch = benchmark.synthetic_batch(
        tasks, image_size=size, batch_size=args.batch_size, num_classes=num_classes
    )
    weightings = {}
    for name in parse_weightings(args):
        with changed(args, {"weighting": name}):
            weightings[name] = make_weighting(args, per_epoch=100)
    result = benchmark.compare_weightings(
        weightings, tasks, network, optimizer.adam(lambda step: args.learning_rate), batch,
        devices=devices, rounds=args.benchmark_steps, augmentation=args.augment,
        jitter=args.colour_jitter, gram_of=args.gradients,
        others=torch_rivals(args, tasks, num_classes, batch) if args.compare_torch else None,
    )  # fmt: skip
    result |= {
        "what": f"{network_name(args)}, {args.batch_size} images of {size[0]}x{size[1]}, "
        f"{args.precision}, {len(devices)} x {devices[0].device_kind}",
        "rounds": args.benchmark_steps,
        "num_tasks": len(tasks),
        "solvers": benchmark.compare_solvers(),
        "versions": workdir.versions(),
    }
    workdir.write_json(folder / "benchmark.json", result)
    text = benchmark.to_markdown(result)
    (folder / "benchmark.md").write_text(text, encoding="utf-8")
    print(f"{text}\nwritten to {folder / 'benchmark.md'}")


def torch_rivals(
    args: Any, tasks: Sequence[task_table.Task], num_classes: int, batch: Mapping[str, Any]
) -> dict[str, Callable[[], Any]]:
    """PyTorch's steps on the same batch."""
    check_twin(args, "--compare_torch")
    with needs_torch("--compare_torch"):
        from mtl_jax.torch_twin import training

        channels = {task.name: task.channels or num_classes for task in tasks}
        decoded = jax.device_get(jax.jit(data.decode)(dict(batch)))
        return training.rivals(
            args.model, args.backbone, channels, decoded, learning_rate=args.learning_rate
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
            told = " and ".join(map(str, values))
            raise ValueError(f"--{name}={args[name].value}: {flag} knows {told}")


@contextmanager
def needs_torch(flag: str) -> Iterator[None]:
    """Says how to get PyTorch, where it is missing."""
    try:
        yield
    except ImportError as error:
        raise ValueError(f"{flag} needs PyTorch ({error}): pip install 'mtl_jax[torch]'") from error


def run_compare(args: Any) -> None:
    """Trains here and in PyTorch from the same weights on the same batches."""
    method = method_of(args)
    check_twin(args, "--mode=compare")
    if method not in ("equal", "uw", "nash"):
        raise ValueError(f"--weighting={method}: --mode=compare knows equal, uw and nash")
    tasks = task_table.select(args.tasks)
    splits = prepare(args)
    data.check_labels(splits["train"], tasks)
    folder = folder_of(args) if args.workdir else Path("runs/compare")
    folder.mkdir(parents=True, exist_ok=True)
    size = splits["train"].image_size
    batches = [
        data.batch_at(
            splits["train"], tasks, batch_size=args.batch_size, seed=args.seed, step=number
        )
        for number in range(args.benchmark_steps)
    ]
    per_epoch = data.steps_per_epoch(splits["train"], args.batch_size)
    with needs_torch("--mode=compare"):
        from mtl_jax import compare

        result = compare.compare(
            batches, tasks, make_network(args, len(splits["train"].class_names), tasks),
            make_weighting(args, per_epoch=per_epoch), method=method, model=args.model,
            backbone=args.backbone, learning_rate=args.learning_rate, seed=args.seed,
        )  # fmt: skip
    result |= {
        "what": f"{network_name(args)}, {method}, {args.batch_size} images of {size[0]}x{size[1]} "
        f"of {args.dataset}",
        "tasks": [task.name for task in tasks],
        "versions": workdir.versions(),
    }
    workdir.write_json(folder / "compare.json", result)
    text = compare.to_markdown(result)
    (folder / "compare.md").write_text(text, encoding="utf-8")
    compare.loss_figure(result).savefig(folder / "compare.png", dpi=110)
    print(f"{text}\nwritten to {folder / 'compare.md'} and compare.png")


def parse_weightings(args: Any) -> list[str]:
    """The methods of --weightings."""
    names = list(METHODS) if args.weightings == ["all"] else args.weightings
    unknown = [name for name in names if name not in METHODS]
    if unknown:
        raise ValueError(f"--weightings: no {unknown[0]!r}; choose from {', '.join(METHODS)}")
    return names


def parse_seeds(args: Any) -> list[int]:
    """The numbers of --seeds."""
    if not all(seed.isdecimal() and int(seed) <= LARGEST_SEED for seed in args.seeds):
        raise ValueError(
            f"--seeds={','.join(args.seeds)}: give whole numbers up to {LARGEST_SEED}, such as "
            "0,1,2"
        )
    return [int(seed) for seed in args.seeds]


def parse_fraction(text: str) -> float:
    """The number of text such as 1/8 or 0.125."""
    try:
        return float(fractions.Fraction(text))
    except (ValueError, ZeroDivisionError, OverflowError):
        raise ValueError(f"--label_fractions: {text} is none; give such as 1/8 or 0.125") from None


def run_grid(args: Any, runs: Sequence[sweep.Run]) -> None:
    """Trains the runs that are not done yet in one folder, and draws the report of all."""
    root = folder_of(args) if args.workdir else Path("runs") / f"{args.mode}-{args.dataset}"

    def within(function: Callable[[Any], Any]) -> Callable[[sweep.Run], Any]:
        def call(one: sweep.Run) -> Any:
            with changed(args, {**one.changes, "workdir": [str(root / one.name)]}):
                return function(args)

        return call

    failed = sweep.perform(runs, within(has_finished), within(run))
    finished = [root / run.name for run in runs if (root / run.name / "result.json").exists()]
    if finished:
        write_report(finished, root / "report")
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
    """Whether the run that the flags describe has come to its end."""
    folder = folder_of(args)
    if not (folder / "result.json").exists():
        return False
    workdir.check(folder, describe(args, prepare(args)), free=("epochs",))
    return workdir.read_json(folder / "result.json")["epoch"] >= args.epochs


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
    own = args.flags_by_module_id_dict()[id(sys.modules[__name__])]
    # Without the mode, so that the same file serves to evaluate, and on any number of processes.
    leave_out = ("mode", "coordinator", "num_processes", "process_id")
    kept = [flag for flag in own if flag.value is not None and flag.name not in leave_out]
    lines = [flag.serialize() for flag in kept]
    (folder / "flags.txt").write_text("".join(f"{line}\n" for line in sorted(lines)))


if __name__ == "__main__":
    jax.config.config_with_absl()
    # Libraries log much that a user need not read: --verbosity=0 brings it back.
    logging.set_verbosity(logging.ERROR)
    app.run(main)
