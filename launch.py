"""Multi-task dense prediction in JAX: one network for segmentation, depth and normals.

  python launch.py --flagfile=docs/quickstart.flags
  python launch.py --dataset=rooms --weighting=fairgrad:alpha=2 --weigh_every=10
  python launch.py --mode=evaluate --workdir=FOLDER
  python launch.py --mode=predict --workdir=FOLDER --input=PHOTOS --out=PREDICTIONS
  python launch.py --mode=sweep --dataset=rooms --weightings=nash,fairgrad:alpha=1 --seeds=0,1,2

Modes:
  train      starts or resumes a run, evaluates it and writes its report
  evaluate   evaluates a checkpoint of the run in --workdir
  predict    predicts the photos or the video in --input with the run in --workdir
  demo       serves a page that shows what the run in --workdir predicts for your photos
  report     writes tables and figures of the runs in one or more --workdir
  export     writes the network of the run in --workdir as a folder that works on its own
  prepare    prepares the data set and stops
  sweep      trains single-task runs and --weightings for all --seeds, and compares them
  study      trains each of --arms with each of --label_fractions of the labels
  diagnose   shows whether the tasks' gradients conflict or differ in size, and what may help
  benchmark  times training with each of --weightings, predictions by each of --models, or the input
  compare    trains the same network here and in PyTorch and compares them

Main flags (options follow a name, as in NAME:key=value,key=value; docs/guide.md lists them all):
  --mode: one of the above. evaluate, export, demo and report need only --workdir, predict also
      --input.
  --dataset: rooms, which is rendered; nyu_depth_v2, which is downloaded; kitti_stereo, cityscapes
      or waymo, from files that you download to --manual_dir; folder, your own images in --folder;
      or FILE.py:FUNCTION, a function of yours that returns NumPy arrays. Options include
      rooms:train=1000,test=200, nyu_depth_v2:classes=13, folder:depth_scale=1000 and
      folder:channels=1 (grey images; 4: colours and the depth of a sensor); with rooms:stream=true
      new rooms are rendered for every batch. docs/data.md describes the sets.
  --data_dir: folder of prepared data sets. By default the folder of TensorFlow Datasets, which is
      that of the variable TFDS_DATA_DIR or ~/tensorflow_datasets.
  --workdir: folder of a run or sweep; a report takes several, separated by commas. By default a
      folder in runs/ that is named after the data set, the weighting and the seed.
  --tasks: tasks to learn: segmentation, depth, normals, or inverse_depth (which only
      cityscapes:layout=mtan has).
  --model: resnet_unet:backbone=resnet34, segnet, mtan (SegNet with attention), or
      small:channels=16, a small U-Net for experiments on a CPU.
      resnet_unet:frozen=true keeps the pretrained encoder as it is. For batches of few images,
      norm=group normalises each image alone, and norm=frozen, an option of resnet_unet, uses the
      stored statistics of --pretrained.
  --weighting: how the tasks are weighted: equal, uw, nash:max_norm=1 or one of the 35 others in
      docs/weightings.md; or your own function, FILE.py:FUNCTION.
  --weigh_every: steps between updates of the weights, for weightings by the gradients.
  --epochs: passes over the training images.
  --batch_size: images per step, over all devices and all parts of --accumulate.
  --learning_rate: peak learning rate.
  --schedule: how the learning rate changes: step:halve_every=100 (epochs), cosine or constant.
  --seed: seed of initialisation, data order and augmentation.

Data:
  --manual_dir: folder of the files of nyu_depth_v2, kitti_stereo, cityscapes or waymo, laid out as
      datasets/NAME/README.md says.
  --folder: folder of your images for --dataset=folder. It holds images/{train,val}/ and, where you
      have labels, masks/, depth/ and normals/; see datasets/folder/README.md.
  --image_size: HEIGHTxWIDTH of the prepared images. By default the data set's own size; see
      docs/data.md.
  --validation: number of training images to hold out, the same ones for every seed. Evaluations
      during training then use them instead of the test split, and the best checkpoint is kept.
  --label_fraction: fraction of the training images that keep their segmentation labels, such as
      1/8; the others train only the other tasks. The subsets of one --label_seed are nested.
  --label_seed: seed that chooses the images that keep their segmentation labels.
  --labelled_per_batch: with --label_fraction below 1, the number of images per batch with
      segmentation labels; 0 is half of the batch. modo and sdmgrad need at least 3.
  --cache: where images are kept once they have been read: none, host or device. It changes only
      the speed. Rooms of rooms:stream=true are not kept.
  --augment: whether to change training images at random: by flips, --crop_scales and
      --colour_jitter; --noaugment turns this off.
  --crop_scales: factors by which images are enlarged in training, one at random for each, before a
      part of the original size is cut out. With 1 alone, images are only flipped.
  --colour_jitter: how far brightness, contrast and saturation vary in training, 0 to 1.

Network and losses:
  --pretrained: file of ResNet weights, in safetensors or PyTorch format, to start the encoder from;
      or weights.safetensors of an exported network of any kind, all of whose weights are used.
      {seed} in the name stands for --seed.
  --segmentation_loss: ce:label_smoothing=0 (cross-entropy), focal:gamma=2 or dice. Class weights of
      ce and focal: weights=frequency gives rare classes more weight, and weights=1+2+0.5 sets the
      weight of each class.
  --depth_loss: l1, scale_invariant:invariance=0.5 and berhu:threshold=0.2 learn depth from labels;
      stereo:nearest=0.3 and stereo_l2 learn it from stereo pairs without labels; nearest is the
      nearest depth in metres. Options for the smoothness of stereo:
      smoothness=0.001,edges=1,order=1,fill=false.
  --normals_source: what normals are learned from: labels, or depth, from which they are computed.
  --normals_loss: cosine, or codebook:codewords=20, a classification of directions.
  --precision: float32 or bfloat16, for the network's computations; parameters, losses and the Gram
      matrix (inner products of the tasks' gradients) are always float32.
  --gradients: the gradients whose inner products make the Gram matrix: parameters, those with
      respect to the parameters of the trunk, as published; recomputed, the same gradients, computed
      again for the step instead of kept, which saves memory and costs one more backward pass; or
      features, those with respect to the trunk's output, an approximation with one backward pass of
      the trunk.

Training and evaluation:
  --warmup_epochs: epochs of linear warm-up.
  --optimizer: adam, adamw:weight_decay=0.01 or sgd:momentum=0.9. Options of all three: clip=1.0
      scales the gradient down to norm 1.0 if it is longer; encoder_rate=0.1 trains the encoder of
      resnet_unet at a tenth of the learning rate.
  --accumulate: number of equal parts of a batch that pass through the network one after the other,
      to save memory. Losses and gradients are those of the whole batch; only batch normalisation
      sees each part alone.
  --average: decay of an exponential moving average of the network's weights over the steps, such
      as 0.999. The average is then evaluated, exported and used for predictions; 0 keeps none.
  --keep: number of the last checkpoints to keep.
  --evaluate_every: epochs between evaluations.
  --patience: with --validation, number of evaluations without an improvement after which training
      stops; 0 trains for all --epochs.
  --eval_batch_size: images per batch in an evaluation or prediction.
  --metric_protocol: pooled, over all pixels of the split; or mtan, depth and normals averaged over
      batches, as in the literature (with --eval_batch_size=2).
  --checkpoint: the checkpoint that evaluate, export, diagnose, predict and demo use: latest, best
      or the number of a step.
  --split: the images to evaluate on: test, validation or train.

Predictions:
  --input: a photo, a folder of photos, a pattern such as 'photos/*.jpg', or a video.
  --sensor_depth: folder of the depth maps of these photos, with the same names, for a network
      trained with folder:channels=4.
  --overwrite: whether to replace files of earlier predictions.
  --save_arrays: whether to write all predictions of a photo to one NumPy file as well.
  --flip_test: whether to average the predictions with those of the mirrored photos, or of the
      mirrored images of an evaluation.
  --tile: number of overlapping tiles along each side of a large photo, for finer details; the
      network sees each of them as it sees a whole photo.
  --point_cloud: whether to write the points that a photo shows as a PLY file.
  --focal_length: focal length of the photos in pixels, for --point_cloud. By default that of their
      EXIF data, or else that of the training images.
  --host: address at which the page of a demo is served; 0.0.0.0 serves it to the whole network.
  --port: port of that page. By default 7860, or any free one if that is taken.

Several runs and processes:
  --weightings: weightings to compare, with or without options; or all.
  --seeds: seeds of a sweep or study.
  --learning_rates: rates from which a sweep chooses one for each weighting and each single task, by
      the first seed's results on the --validation images. By default all use --learning_rate.
  --arms: sets of tasks that a study compares.
  --label_fractions: fractions of the labels in a study.
  --benchmark: what a benchmark times: training, its steps on synthetic images; inference,
      predictions by one network for all tasks and by one network per task; or input, the images per
      second of files, of each --cache, of augmentation and of a step.
  --models: networks of a benchmark of inference. By default resnet_unet with the backbones
      resnet18, resnet34 and resnet50, and segnet.
  --diagnose_steps: number of steps that a diagnosis observes: the first ones of a training run
      with equal weights or, if --workdir holds a run, steps at its checkpoint, which do not change
      the run.
  --benchmark_steps: number of steps, or of predictions, in a benchmark or comparison.
  --compare_torch: whether a benchmark also times PyTorch and, where it is installed, TorchJD.
  --out: folder to write to. By default WORKDIR/report; for predictions WORKDIR/predictions; for an
      export WORKDIR/export; for a diagnosis WORKDIR.
  --devices: number of devices that share each batch; 0 is all.
  --coordinator: HOST:PORT of process 0, if several processes train together, such as one per host;
      or auto under Slurm, Open MPI, Kubernetes or on a TPU pod. All other flags must be the same
      in every process.
  --num_processes: number of processes that train together.
  --process_id: number of this process, from 0.
  --compilation_cache: folder that keeps compiled programs, so that later runs start faster; none
      keeps none. By default the folder in the environment variable JAX_COMPILATION_CACHE_DIR, or
      else ~/.cache/mtl_jax/programs, from which old programs are deleted at 1 GB.
  --debug: whether to show the whole traceback of an error.
"""

import os
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

from mtl_jax import faults

if __name__ == "__main__":
    # Before the other imports, which fail where the environment is broken.
    faults.prepare_process("launch.py")

import jax
from absl import app, flags, logging

import datasets
from mtl_jax import data, parallel, tasks
from mtl_jax.commands import (
    assembly,
    checks,
    compilation,
    exporting,
    memory,
    one_run,
    parsing,
    sweeps,
)
from mtl_jax.data.outline import Outline
from mtl_jax.runs import grid, settings, terminal, workdir
from mtl_jax.runs.text import as_text
from mtl_jax.training import evaluation, outcome, step

FLAG_FILE = re.compile("--?flagfile")
HELP_ENTRY = re.compile(r"^  --(\w+): (.*\n(?: {6}.*\n)*)", re.MULTILINE)
HELP = {name: " ".join(text.split()) for name, text in HELP_ENTRY.findall(__doc__)}


class Text(flags.ArgumentParser):
    """Parses a flag by a function of its text."""

    def __init__(self, function: Callable[[str], Any]):
        self.function = function

    def parse(self, argument: Any) -> Any:
        return self.function(argument) if isinstance(argument, str) else argument


def each(parse: Callable[[str], Any]) -> Text:
    """Returns a parser of values separated by commas."""
    return Text(lambda text: [parse(item) for item in flags.ListParser().parse(text)])


def define(default: Any, parser: flags.ArgumentParser, *names: str) -> None:
    for name in names:
        flags.DEFINE(parser, name, default, HELP[name])


# Each mode has the name of a function below.
MODES = re.findall(r"^  (\w+) {2,}\S", __doc__, re.MULTILINE)
COUNT, POSITIVE = flags.IntegerParser(0), flags.IntegerParser(1)

define("train", flags.EnumParser(MODES), "mode")
define("nyu_depth_v2", Text(datasets.parse), "dataset")
define(None, flags.ListParser(), "workdir")
define(None, flags.ArgumentParser(), "data_dir", "manual_dir", "out")
define(None, Text(lambda folder: folder or compilation.OFF), "compilation_cache")
define(None, flags.ArgumentParser(), "pretrained", "coordinator", "input", "folder", "sensor_depth")
define(None, COUNT, "num_processes", "process_id")
define("0", Text(parsing.parse_seed), "seed")
define(0, COUNT, "label_seed", "labelled_per_batch", "validation", "patience")
define(0, flags.IntegerParser(), "devices")
define(None, Text(datasets.parse_size), "image_size")
define("1", Text(parsing.parse_fraction), "label_fraction")
define("none", flags.EnumParser(data.CACHES), "cache")
define("1,1.2,1.5", Text(parsing.parse_crop_scales), "crop_scales")
define(0.0, flags.FloatParser(0.0, 1.0), "colour_jitter")
define("segmentation,depth,normals", Text(parsing.parse_tasks), "tasks")
define("resnet_unet", Text(parsing.parse_model), "model")
define("ce", Text(parsing.parse_segmentation_loss), "segmentation_loss")
define("l1", Text(parsing.parse_depth_loss), "depth_loss")
define("cosine", Text(parsing.parse_normals_loss), "normals_loss")
define("labels", flags.EnumParser(tasks.NORMALS_SOURCES), "normals_source")
define("float32", flags.EnumParser(list(assembly.PRECISIONS)), "precision")
define("nash", Text(parsing.parse_weighting), "weighting")
define("parameters", flags.EnumParser(step.GRADIENTS), "gradients")
define("equal,uw,nash", Text(parsing.parse_weightings), "weightings")
define("0,1,2", each(parsing.parse_seed), "seeds")
define(None, each(parsing.parse_rate), "learning_rates")
define(tasks.ARMS, each(parsing.parse_arm), "arms")
define("1/30,1/8,1/4,1/2,1", each(parsing.parse_fraction), "label_fractions")
define(200, POSITIVE, "epochs")
define(8, POSITIVE, "batch_size", "eval_batch_size")
define("127.0.0.1", flags.ArgumentParser(), "host")
define(None, flags.IntegerParser(1, 65535), "port")
define(1, POSITIVE, "weigh_every", "keep", "evaluate_every", "tile", "accumulate")
define(None, flags.FloatParser(1e-3, 1e9), "focal_length")
define("training", flags.EnumParser(["training", "inference", "input"]), "benchmark")
define(None, Text(parsing.parse_models), "models")
define(10, POSITIVE, "benchmark_steps")
define(100, POSITIVE, "diagnose_steps")
define(1e-4, flags.FloatParser(1e-30, 100.0), "learning_rate")
define("step", Text(parsing.parse_schedule), "schedule")
define("adam", Text(parsing.parse_optimizer), "optimizer")
define(0.0, flags.FloatParser(0.0), "warmup_epochs")
define(0.0, flags.FloatParser(), "average")
define("pooled", flags.EnumParser(evaluation.PROTOCOLS), "metric_protocol")
define("latest", Text(parsing.parse_checkpoint), "checkpoint")
define("test", flags.EnumParser(["test", "validation", "train"]), "split")
flags.DEFINE_bool("augment", True, HELP["augment"])
for name in ("save_arrays", "overwrite", "flip_test", "point_cloud", "compare_torch", "debug"):
    flags.DEFINE_bool(name, False, HELP[name])


def main(argv: Sequence[str]) -> None:
    """Runs the mode; any error is reported in one line, with exit status 1."""
    args = SimpleNamespace(**{flag.name: flag.value for flag in own_flags()})
    try:
        with faults.interruptible():
            if len(argv) > 1:
                raise ValueError(f"unknown argument {argv[1]!r}: give flags as --name=value")
            checks.check(args)
            prepare_jax(args)
            globals()[args.mode](settle(args))
    except faults.Stopped as stopped:
        leave(f"{stopped}; the same command continues from there")
    except (Exception, KeyboardInterrupt) as error:
        if args.debug:
            sys.excepthook = sys.__excepthook__
            raise
        leave(faults.explain(error), at_once=isinstance(error, KeyboardInterrupt))


def leave(reason: str, *, at_once: bool = False) -> NoReturn:
    """Ends the program with exit status 1 and prints the reason as its last line.

    Args:
      reason: one line, with settings in backticks.
      at_once: see `faults.end_at_once`.
    """
    # Where both streams go into one pipe, earlier output must not follow the reason.
    sys.stdout.flush()
    # The library repeats the value, as in --model=vgg:x=1: 'vgg:x=1': ...
    line = re.sub(r"^(--\w+=)(.+?): '\2': ", r"\1\2: ", in_flags(reason))
    if at_once:
        faults.end_at_once(f"launch.py: {line}")
    sys.exit(f"launch.py: {line}")


def in_flags(text: str) -> str:
    """Returns a text of the library with flags for the arguments in backticks."""
    return re.sub(r"`(\w+)`", lambda x: f"--{x[1]}" if x[1] in flags.FLAGS else x[0], text)


def own_flags() -> list[flags.Flag]:
    """Returns the flags of this file, in their order."""
    return flags.FLAGS.flags_by_module_id_dict()[id(sys.modules[__name__])]


def parse_flags(argv: Sequence[str]) -> list[str]:
    """Parses the command line; reports what is wrong with it in one line."""
    if {"--help", "-help", "-h", "-?"} & set(argv[1:]):
        print(help_text())
        sys.exit()
    try:
        return flags.FLAGS(argv)
    # A flag file that is missing or not text raises errors of other kinds.
    except (flags.Error, ValueError, OSError) as error:
        # The flag already names the setting that the library names in backticks.
        line = re.sub(": `[a-z_]+`: ", ": ", " ".join(str(error).split()), count=1)
        if isinstance(error, UnicodeDecodeError):
            given = " ".join(word for word in argv if FLAG_FILE.match(word))
            line = f"{given}: the file is not text ({line})"
        leave(f"{line.removeprefix('flag ').removeprefix('ERROR:: ')} (--help lists all flags)")


def help_text() -> str:
    """Returns the docstring of this file with the defaults of the flags."""

    def entry(found: re.Match[str]) -> str:
        default = as_text(flags.FLAGS[found[1]].default_unparsed)
        line = f"--{found[1]}{'=' * bool(default)}{default}: {HELP[found[1]]}"
        return textwrap.fill(line, 99, initial_indent="  ", subsequent_indent="      ") + "\n"

    return HELP_ENTRY.sub(entry, __doc__)


def prepare_jax(args: SimpleNamespace) -> None:
    """Joins the other processes, checks the devices and sets up the compilation cache."""
    faults.check_xla_flags()
    memory.keep_freed()
    if args.coordinator:
        print(f"waiting for {args.coordinator} and the other processes", flush=True)
        parallel.join(args.coordinator, args.num_processes, args.process_id)
    parallel.check_devices()
    if not workdir.is_writer():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (only the first process prints)
    if line := compilation.keep_programs(args.compilation_cache, mode=args.mode):
        print(in_flags(line))


def settle(args: SimpleNamespace) -> SimpleNamespace:
    """Resolves paths and the user's own functions, whose files may use JAX.

    Prints a note on each setting that has no effect.
    """
    args, from_file = parsing.resolved(args), any(map(FLAG_FILE.match, sys.argv))
    defaults = SimpleNamespace(**{flag.name: flag.default for flag in own_flags()})
    for note in checks.without_effect(args, defaults, from_file=from_file):
        print(f"note: {in_flags(note)}")
    return args


def builder_of(args: SimpleNamespace) -> "datasets.StreamingBuilder":
    """Returns the builder of the data set; nothing is written yet."""
    return datasets.builder(
        args.dataset,
        image_size=args.image_size,
        data_dir=args.data_dir,
        folder=args.folder,
        manual_dir=args.manual_dir,
    )


def outline_of(args: SimpleNamespace) -> Outline:
    """Returns the facts about the data set that need none of its files."""
    return datasets.outline(builder_of(args))


def prepare(args: SimpleNamespace) -> dict[str, data.Dataset]:
    """Prepares the data set, unless that is done already, and returns its splits."""
    builder = builder_of(args)
    datasets.prepare(builder, manual_dir=args.manual_dir)
    splits = data.open_splits(builder, validation=args.validation, stream=builder.stream())
    few = {"label_fraction": args.label_fraction, "label_seed": args.label_seed}
    return splits | {"train": data.withhold_labels(splits["train"], **few)}


def train(args: SimpleNamespace) -> None:
    """Trains to the end, prints the table and draws the report."""
    fit(args)
    write_report([settings.folder_of(args)], settings.folder_of(args) / "report")


def fit(args: SimpleNamespace) -> None:
    """Trains to the end and prints the table."""
    outline = outline_of(args)
    one_run.check_run(args, outline)
    print(f"devices: {parallel.kinds(assembly.devices_of(args))}", flush=True)
    splits = prepare(args)
    outcome.warn_of_leak(splits, "test")
    result, network = one_run.train(args, splits, outline)
    label = settings.label(args.weighting) if len(args.tasks) > 1 else "single task"
    print(terminal.text_table(result, network.tasks, label))
    outcome.warn_of_failures(result)


def of_folder(args: SimpleNamespace) -> SimpleNamespace:
    """Returns the settings of the run in --workdir, with the command's own paths and speed."""
    given = [flag.name for flag in own_flags() if not flag.using_default_value]
    return settings.of_run(args, given=given, may_change=("metric_protocol", "folder"))


def evaluate(args: SimpleNamespace) -> None:
    """Evaluates a checkpoint on a split and prints it with the trivial predictor."""
    args = of_folder(args)
    devices = assembly.devices_of(args, "eval_batch_size")
    if args.split == "validation" and not args.validation:
        raise ValueError(
            "`split`=validation: the run was trained without `validation`=N; set `split` to test "
            "or train"
        )
    datasets.check_prepared(builder_of(args))
    version = outline_of(args).data
    splits = prepare(args)
    outcome.warn_of_leak(splits, args.split)
    codebook = assembly.codebook_of(args, splits)
    network, variables = one_run.restore(args, codebook=codebook, devices=devices)
    judge = assembly.judge_of(args, network, splits, flip_test=args.flip_test)
    measured = judge.evaluate(variables, args.split)
    found = {"split": args.split, "metrics": measured.metrics}
    found |= {"floor": judge.floor(args.split), "labels": judge.labels(args.split)}
    label = f"{args.checkpoint} on {args.split}" + ", flip test" * args.flip_test
    print(terminal.text_table(found, network.tasks, label))
    outcome.warn_of_failures(found)
    if line := one_run.keep_details(args, judge, variables, measured, version=version):
        print(line)


def export(args: SimpleNamespace) -> None:
    """Writes a folder with the network of a checkpoint, for use without this project."""
    args = of_folder(args)
    terms = datasets.terms(args.dataset)
    out, names = exporting.export_run(args, licence=terms.licence, limits=terms.limits)
    if "model.onnx" not in names:
        print('note: for model.onnx as well, pip install -e ".[onnx]" and repeat the command')
    print(f"{out}: {', '.join(names)}")


def predict(args: SimpleNamespace) -> None:
    """Writes what a network predicts for photos or a video."""
    # Here, because Matplotlib takes long to import.
    from mtl_jax.commands import predictions

    if settings.holds_run(args):
        args = of_folder(args)
    for line in predictions.predict(args):
        print(line)


def demo(args: SimpleNamespace) -> None:
    """Serves a page that shows what a network predicts for photos."""
    # Here, because Matplotlib takes long to import.
    from mtl_jax.commands import demos

    if settings.holds_run(args):
        args = of_folder(args)
    for line in demos.demo(args):
        print(line, flush=True)


def report(args: SimpleNamespace) -> None:
    """Draws tables and pictures of one or more runs."""
    folders = [Path(folder).expanduser() for folder in args.workdir or [settings.folder_of(args)]]
    write_report(folders, Path(args.out or folders[0] / "report").expanduser())


def write_report(folders: Sequence[Path], out: Path) -> None:
    """Writes the report and says where it is; if there are several processes, the first does."""
    # Here, because Matplotlib takes long to import.
    from mtl_jax import report

    if workdir.is_writer():
        print(f"report: {report.write_report(folders, out)}")


def sweep(args: SimpleNamespace) -> None:
    """Trains what is not done yet of the single-task runs and weightings, and compares them."""
    runs = grid.weightings_grid(args.tasks, weightings_of(args), args.seeds)
    # Drawing a report of each run would take longer than training it.
    train_one = fit if args.learning_rates else train
    sweeps.run(args, outline_of(args), runs, train=train_one, report=write_report)


def study(args: SimpleNamespace) -> None:
    """Trains what is not done yet of the arms with few labels, and compares them."""
    arms, parts = [arm.split("+") for arm in args.arms], args.label_fractions
    # The fewer labels there are, the fewer methods can work.
    fewest = SimpleNamespace(**vars(args) | {"label_fraction": min(parts, default=1.0)})
    runs = grid.study_grid(arms, weightings_of(fewest), parts, args.seeds)
    sweeps.run(args, outline_of(args), runs, train=train, report=write_report)


def weightings_of(args: SimpleNamespace) -> list[str]:
    """Returns the texts of --weightings; for `all`, those that the other settings allow."""
    if args.weightings != ["all"]:
        return args.weightings
    reasons = sweeps.reasons_against(args, outline_of(args))
    for name, reason in reasons.items():
        if reason:
            print(f"note: --weightings=all leaves out {name}: {in_flags(reason)}")
    return [name for name, reason in reasons.items() if not reason]


def diagnose(args: SimpleNamespace) -> None:
    """Shows whether the tasks' gradients conflict, at a run's checkpoint or in a new run."""
    # Here, because Matplotlib takes long to import.
    from mtl_jax.commands import diagnosing

    if settings.holds_run(args):
        args = of_folder(args)
    outline = outline_of(args)
    args = diagnosing.check(args, outline)
    print(diagnosing.run(args, prepare(args), outline))


def benchmark(args: SimpleNamespace) -> None:
    """Times training steps, predictions or the input; writes Markdown and JSON."""
    # Here, because it is not needed in other modes and imports what may not be installed.
    from mtl_jax.commands import benchmarks

    if args.benchmark == "inference":
        print(benchmarks.inference(args, outline_of(args)))
    elif args.benchmark == "input":
        print(benchmarks.feed(args, outline_of(args), lambda: prepare(args)))
    else:
        print(benchmarks.training(args, outline_of(args), weightings_of(args)))


def compare(args: SimpleNamespace) -> None:
    """Trains here and in PyTorch from the same weights on the same batches."""
    from mtl_jax.commands import benchmarks

    print(benchmarks.compare(args, outline_of(args), lambda: prepare(args)))


if __name__ == "__main__":
    jax.config.config_with_absl()
    # Libraries log the tracebacks of errors that are raised here anyway; --verbosity=0 shows them.
    logging.set_verbosity(logging.FATAL)
    faults.silence_threads()
    app.run(main, flags_parser=parse_flags)
