"""The files of Waymo Open Dataset v2: each segment is a drive of 20 seconds, with a file per table.

ROOT/training/camera_image/SEGMENT.parquet
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from datasets import checking
from datasets.waymo import lidar, parquet
from datasets.waymo.classes import CLASS_NAMES
from datasets.waymo.lidar import Lidar, Projections

SPLITS = {"train": "training", "test": "validation"}
# Waymo's numbers for its cameras.
CAMERAS = {"front": 1, "front_left": 2, "front_right": 3, "side_left": 4, "side_right": 5}
RETURNS = (1, 2)

_TIME, _CAMERA = "key.frame_timestamp_micros", "key.camera_name"
_LASER = {"laser": "key.laser_name"}


def _range_images(component: str) -> dict[str, str]:
    return {
        f"{part}{number}": f"[{component}].range_image_return{number}.{part}"
        for number in RETURNS
        for part in ("values", "shape")
    }


# Name of a table, which is that of its folder -> key in `parquet.rows` -> column.
TABLES = {
    "camera_image": {"time": _TIME, "camera": _CAMERA, "jpeg": "[CameraImageComponent].image"},
    "camera_segmentation": {
        "time": _TIME,
        "camera": _CAMERA,
        "png": "[CameraSegmentationLabelComponent].panoptic_label",
        "divisor": "[CameraSegmentationLabelComponent].panoptic_label_divisor",
    },
    "camera_calibration": {
        "camera": _CAMERA,
        **{
            name: f"[CameraCalibrationComponent].intrinsic.{name}"
            for name in ("f_u", "f_v", "c_u", "c_v")
        },
        "extrinsic": "[CameraCalibrationComponent].extrinsic.transform",
        "width": "[CameraCalibrationComponent].width",
        "height": "[CameraCalibrationComponent].height",
    },
    "lidar": {"time": _TIME, **_LASER, **_range_images("LiDARComponent")},
    "lidar_calibration": {
        **_LASER,
        "extrinsic": "[LiDARCalibrationComponent].extrinsic.transform",
        "lowest": "[LiDARCalibrationComponent].beam_inclination.min",
        "highest": "[LiDARCalibrationComponent].beam_inclination.max",
        "inclinations": "[LiDARCalibrationComponent].beam_inclination.values",
    },
    "lidar_camera_projection": {
        "time": _TIME,
        **_LASER,
        **_range_images("LiDARCameraProjectionComponent"),
    },
}


class Segment(NamedTuple):
    """A drive: the folder of its split, and the name of its files."""

    folder: Path
    name: str

    def path(self, table: str) -> Path:
        return self.folder / table / f"{self.name}.parquet"


class Drive(NamedTuple):
    """A segment and the times of its frames that are used, in microseconds, in order."""

    segment: Segment
    times: tuple[int, ...]


class Camera(NamedTuple):
    """A camera.

    Attributes:
      number: Waymo's.
      extrinsic: f64[4, 4], from its frame to that of the vehicle.
      intrinsics: f64[4], fx fy cx cy in pixels, where 0 is the centre of the first pixel.
      shape: height and width of its images.
    """

    number: int
    extrinsic: np.ndarray
    intrinsics: np.ndarray
    shape: tuple[int, int]


class Points(NamedTuple):
    """Returns of the laser scanners in a camera: f32[N, 2] in pixels, and f32[N] in metres."""

    pixels: np.ndarray
    depth: np.ndarray


class Frame(NamedTuple):
    """A frame at the size of its files.

    Attributes:
      image: u8[H, W, 3].
      segmentation: int8[H, W], class, -1 = void; None if it has no labels.
      points: what the laser scanners measured.
      intrinsics: f64[4], fx fy cx cy in pixels.
    """

    image: np.ndarray
    segmentation: np.ndarray | None
    points: Points
    intrinsics: np.ndarray


def find(root: Path) -> dict[str, list[Segment]]:
    """Returns the segments of each split whose photos are there, by name.

    Raises:
      ValueError: in one line that names files which are missing or not what they should be.
    """
    found = {
        split: [
            Segment(root / folder, path.stem)
            for path in sorted((root / folder / "camera_image").glob("*.parquet"))
        ]
        for split, folder in SPLITS.items()
    }
    empty = [
        f"there are no files {segments_of}/camera_image/*.parquet"
        for split, folder in SPLITS.items()
        if not found[split]
        for segments_of in [root / folder]
    ]
    checking.refuse(empty, "set `manual_dir` to the folder with training/ and validation/")
    checking.refuse(
        problem
        for segments in found.values()
        for segment in segments
        for table, columns in TABLES.items()
        if table != "camera_segmentation" or segment.path(table).exists()
        for problem in parquet.problems(segment.path(table), columns.values())
    )
    return found


def times(segment: Segment, camera: int, every: int) -> tuple[int, ...]:
    """Returns the times of a segment's frames: those with labels or, with `every`, each Nth."""
    table = "camera_image" if every else "camera_segmentation"
    path = segment.path(table)
    if not path.exists():
        return ()
    rows = parquet.rows(path, {"time": _TIME}, where={_CAMERA: [camera]})
    return tuple(sorted({row["time"] for row in rows})[:: every or 1])


def read(drive: Drive, camera: int) -> Iterator[tuple[Frame | None, list[str]]]:
    """Yields pairs for `checking.checked`: the frames of a drive, and what is wrong with each."""
    segment = drive.segment
    try:
        calibrated = read_camera(segment, camera)
        points = read_points(drive, calibrated)
        photos = _by_time(segment, "camera_image", drive.times, camera)
        labels = _by_time(segment, "camera_segmentation", drive.times, camera)
    except ValueError as error:
        yield None, [str(error)]
        return
    for time in drive.times:
        frame, problems = _frame(photos.get(time), labels.get(time), points[time], calibrated)
        place = f"{segment.path('camera_image')} at {time}"
        yield frame, checking.name(place, problems)


def read_camera(segment: Segment, number: int) -> Camera:
    """Returns the calibration of a camera.

    Raises:
      ValueError: in one line, for a file without it, or with numbers that can't be right.
    """
    path = segment.path("camera_calibration")
    rows = list(parquet.rows(path, TABLES["camera_calibration"], where={_CAMERA: [number]}))
    if len(rows) != 1:
        raise ValueError(f"{path} has {len(rows)} rows for camera {number} instead of 1")
    (row,) = rows
    if None in (row[name] for name in ("f_u", "f_v", "c_u", "c_v", "width", "height")):
        raise ValueError(f"{path} has no calibration of camera {number}")
    # Waymo's pixel coordinates begin at the corner of the first pixel.
    intrinsics = np.array([row["f_u"], row["f_v"], row["c_u"] - 0.5, row["c_v"] - 0.5], np.float64)
    shape = (row["height"], row["width"])
    checking.refuse(checking.name(path, checking.intrinsics_values(intrinsics, *shape)))
    return Camera(number, _matrix(path, row["extrinsic"]), intrinsics, shape)


def read_points(drive: Drive, camera: Camera) -> dict[int, Points]:
    """Returns what the laser scanners measured at the times of a drive in a camera.

    Raises:
      ValueError: in one line, for files that don't fit together.
    """
    seen = _read_projections(drive, camera.number)
    lidars = _read_lidars(drive.segment)
    path = drive.segment.path("lidar")
    found: dict[int, list[Points]] = {time: [] for time in drive.times}
    for row in parquet.rows(path, TABLES["lidar"], where={_TIME: drive.times}):
        for number in RETURNS:
            hits = seen.pop((row["time"], row["laser"], number), None)
            if hits is None:
                continue
            place = f"{path}, laser {row['laser']} at {row['time']}"
            image = _image(place, row, number, 4)
            scanner = lidars.get(row["laser"])
            if image is None or image.shape[:2] != hits.shape:
                raise ValueError(f"{place} is not of the same shape as its camera projection")
            if scanner is None or len(scanner.inclinations) not in (0, len(image)):
                calibrations = drive.segment.path("lidar_calibration")
                raise ValueError(f"{place} does not agree with {calibrations}")
            found[row["time"]].append(_points(image[..., 0], hits, scanner, camera))
    if seen:
        time, laser, _ = min(seen)
        raise ValueError(f"{path} lacks laser {laser} at {time}, which has a camera projection")
    return {time: _joined(parts) for time, parts in found.items()}


def _read_projections(drive: Drive, camera: int) -> dict[tuple[int, int, int], Projections]:
    """Returns what a camera sees by time, laser and number of the return."""
    path = drive.segment.path("lidar_camera_projection")
    seen = {}
    rows = parquet.rows(path, TABLES["lidar_camera_projection"], where={_TIME: drive.times})
    for row in rows:
        for number in RETURNS:
            place = f"{path}, laser {row['laser']} at {row['time']}"
            image = _image(place, row, number, 6)
            if image is not None:
                hits = lidar.projections(image, camera)
                if hits.index.size:
                    seen[row["time"], row["laser"], number] = hits
    return seen


def _read_lidars(segment: Segment) -> dict[int, Lidar]:
    path, lidars = segment.path("lidar_calibration"), {}
    for row in parquet.rows(path, TABLES["lidar_calibration"]):
        beams = row["inclinations"]
        if beams is None and None in (row["lowest"], row["highest"]):
            raise ValueError(f"{path} has no inclinations of the beams of laser {row['laser']}")
        lidars[row["laser"]] = Lidar(
            _matrix(path, row["extrinsic"]),
            row["lowest"],
            row["highest"],
            np.zeros(0) if beams is None else beams,
        )
    return lidars


def _points(ranges: np.ndarray, hits: Projections, scanner: Lidar, camera: Camera) -> Points:
    measured = ranges.ravel()[hits.index].astype(np.float64)
    points = lidar.vehicle_points(measured, hits.index, hits.shape, scanner)
    # Pixels of a range image without a return hold -1.
    depth = np.where(measured > 0, lidar.camera_depth(points, camera.extrinsic), 0)
    return Points(hits.pixels, depth.astype(np.float32))


def _joined(parts: Sequence[Points]) -> Points:
    if not parts:
        return Points(np.zeros((0, 2), np.float32), np.zeros(0, np.float32))
    return Points(*map(np.concatenate, zip(*parts, strict=True)))


def _by_time(
    segment: Segment, table: str, times: Sequence[int], camera: int
) -> dict[int, dict[str, Any]]:
    """Returns the rows of a camera, still compressed; none of a file that isn't there."""
    path = segment.path(table)
    if not path.exists():
        return {}
    rows = parquet.rows(path, TABLES[table], where={_TIME: times, _CAMERA: [camera]})
    return {row["time"]: row for row in rows}


def _frame(
    photo: Mapping[str, Any] | None,
    label: Mapping[str, Any] | None,
    points: Points,
    camera: Camera,
) -> tuple[Frame | None, list[str]]:
    """Returns a frame, or None and what is wrong with it."""
    if photo is None:
        return None, ["is missing, where the labels are of that time"]
    image = _decoded(photo["jpeg"], "RGB")
    if image is None:
        return None, ["can't be read as a JPEG: it is damaged"]
    problems = checking.image(255, ("uint8",)).form(image.dtype, image.shape, (*camera.shape, 3))
    segmentation = None
    if label is not None:
        segmentation, wrong = _classes(_decoded(label["png"]), label["divisor"], camera.shape)
        problems += [f"has a segmentation that {phrase}" for phrase in wrong]
    wrong = checking.depth_values(points.depth, may_be_empty=True) if points.depth.size else []
    problems += [f"has lidar that {phrase}" for phrase in wrong]
    if problems:
        return None, problems
    return Frame(image, segmentation, points, camera.intrinsics), []


def _classes(
    panoptic: np.ndarray | None, divisor: int, shape: tuple[int, int]
) -> tuple[np.ndarray | None, list[str]]:
    """Returns classes int8[H, W], -1 = void, or None and what is wrong with the labels."""
    if panoptic is None:
        return None, ["can't be read as a PNG: it is damaged"]
    if not divisor or divisor < 1:
        return None, [f"has the divisor {divisor}"]
    numbers = panoptic // divisor
    kind = checking.labels(0, len(CLASS_NAMES), ("uint8", "uint16", "int32"))
    problems = kind.problems(numbers, shape)
    return (None if problems else (numbers.astype(np.int16) - 1).astype(np.int8)), problems


def _decoded(content: bytes | None, mode: str | None = None) -> np.ndarray | None:
    """Returns the pixels of an image file, or None if it is damaged."""
    try:
        with Image.open(io.BytesIO(content or b""), formats=["JPEG", "PNG"]) as image:
            return np.array(image.convert(mode) if mode else image)
    # Pillow raises errors of many kinds for random bytes.
    except Exception:
        return None


def _image(place: str, row: Mapping[str, Any], number: int, channels: int) -> np.ndarray | None:
    """Returns a range image [H, W, channels], or None if there is none of this return."""
    values, shape = row[f"values{number}"], row[f"shape{number}"]
    if values is None or shape is None or not values.size:
        return None
    if len(shape) != 3 or shape[2] != channels or np.prod(shape) != values.size:
        raise ValueError(
            f"{place} has {values.size} numbers for the shape {list(map(int, shape))}, where "
            f"[height, width, {channels}] is expected"
        )
    return values.reshape(shape)


def _matrix(path: Path, values: np.ndarray | None) -> np.ndarray:
    """Returns an extrinsic f64[4, 4].

    Raises:
      ValueError: in one line, if it does not keep distances.
    """
    if values is not None and values.size == 16 and np.all(np.isfinite(values)):
        matrix = values.reshape(4, 4).astype(np.float64)
        if np.allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-3):
            return matrix
    raise ValueError(f"{path} has an extrinsic that is not a rotation and a translation")
