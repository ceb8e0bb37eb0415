"""Files in the schema of Waymo Open Dataset v2, of a street and a wall that two lasers scan."""

import io

import numpy as np
import pytest
from PIL import Image

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

HEIGHT, WIDTH = 40, 60
FOCAL = (50.0, 52.0)
CENTRE = (30.5, 18.0)
WALL = 25.0  # metres in front of the vehicle's origin, which is on the ground
TIMES = (1000, 1100, 1200, 1300, 1400)
LABELLED = (1100, 1300)
DIVISOR = 1000

# Height and width of the range images, position, yaw, and beams from the lowest to the highest.
LASERS = {
    1: (
        (12, 240),
        (1.4, 0.1, 2.2),
        2.6,
        np.linspace(-0.5, 0.06, 12) ** 3 + np.linspace(-0.3, 0, 12),
    ),
    2: ((8, 100), (4.0, 0.0, 1.0), 0.0, None),
}
LOWEST, HIGHEST = -0.6, 0.2
CAMERAS = {1: ((1.5, 0.2, 2.0), 0.1), 2: ((1.5, 0.5, 2.0), 0.8)}


def pose(position, yaw):
    """Returns the matrix of a sensor that is level."""
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]
    matrix[:3, 3] = position
    return matrix


def distance(origins, rays):
    """Returns the multiples of rays [..., 3] at which they meet the ground or the wall."""
    with np.errstate(divide="ignore"):
        ground = np.where(rays[..., 2] < 0, -origins[..., 2] / rays[..., 2], np.inf)
        wall = np.where(rays[..., 0] > 0, (WALL - origins[..., 0]) / rays[..., 0], np.inf)
    return np.minimum(ground, wall)


def depth_at(camera, pixels):
    """Returns the depth that a camera sees at pixels [N, 2], whose z is its distance along x."""
    position, yaw = CAMERAS[camera]
    across, down = ((pixels[:, i] - CENTRE[i]) / FOCAL[i] for i in (0, 1))
    rays = np.stack([np.ones_like(across), -across, -down], -1) @ pose(position, yaw)[:3, :3].T
    return distance(np.array(position), rays)


def scan(laser):
    """Returns range image [H, W, 4] and camera projection [H, W, 6] of a laser."""
    (height, width), position, _, beams = LASERS[laser]
    if beams is None:
        beams = LOWEST + (np.arange(height) + 0.5) * (HIGHEST - LOWEST) / height
    inclination = beams[::-1, None]
    # Of the vehicle's frame: column 0 is behind it, and the next ones are on its left.
    azimuth = np.pi - (np.arange(width) + 0.5) / width * 2 * np.pi
    flat = np.cos(inclination)
    rays = np.stack(
        [np.cos(azimuth) * flat, np.sin(azimuth) * flat, np.sin(inclination) + 0 * azimuth], -1
    )
    ranges = distance(np.array(position), rays)
    hit = np.isfinite(ranges)
    points = np.array(position) + np.where(hit, ranges, 1)[..., None] * rays
    projection = np.zeros((height, width, 6), np.float32)
    for camera, (place, yaw) in CAMERAS.items():
        matrix = pose(place, yaw)
        x, y, z = np.moveaxis((points - matrix[:3, 3]) @ matrix[:3, :3], -1, 0)
        with np.errstate(divide="ignore"):
            u, v = CENTRE[0] - FOCAL[0] * y / x, CENTRE[1] - FOCAL[1] * z / x
        seen = hit & (x > 0.1) & (u >= 0) & (u < WIDTH) & (v >= 0) & (v < HEIGHT)
        second = seen & (projection[..., 0] > 0)
        for chosen, start in ((seen & ~second, 0), (second, 3)):
            projection[chosen, start : start + 3] = np.stack([0 * u + camera, u, v], -1)[chosen]
    image = np.zeros((height, width, 4), np.float32)
    image[..., 0] = np.where(hit, ranges, -1)
    return image, projection


def classes(time):
    """Returns the classes of a frame as Waymo numbers them: bands, the first of them undefined."""
    return np.repeat(np.arange(HEIGHT) // 4 * 3 + time // 1000 - 1, WIDTH).reshape(HEIGHT, WIDTH)


def encoded(array, form):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, form)
    return buffer.getvalue()


def tables(name):
    """Returns the tables of a segment: name -> column -> values."""
    rng = np.random.default_rng([*name.encode()])
    scans = {laser: scan(laser) for laser in LASERS}
    frames = [(time, camera) for time in TIMES for camera in CAMERAS]
    labelled = [(time, camera) for time in LABELLED for camera in CAMERAS]
    # In another order than the photos.
    scanned = [(time, laser) for laser in LASERS for time in reversed(TIMES)]
    calibration = "[CameraCalibrationComponent]"
    beams = "[LiDARCalibrationComponent].beam_inclination"
    return {
        "camera_image": keys(name, frames)
        | {
            "[CameraImageComponent].image": [
                encoded(rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8), "JPEG") for _ in frames
            ]
        },
        "camera_segmentation": keys(name, labelled)
        | {
            "[CameraSegmentationLabelComponent].panoptic_label_divisor": [DIVISOR] * len(labelled),
            "[CameraSegmentationLabelComponent].panoptic_label": [
                encoded((classes(time) * DIVISOR + 7 * camera).astype(np.uint16), "PNG")
                for time, camera in labelled
            ],
        },
        "camera_calibration": {
            "key.segment_context_name": [name] * len(CAMERAS),
            "key.camera_name": pa.array(list(CAMERAS), pa.int8()),
            **dict(
                zip(
                    (f"{calibration}.intrinsic.{key}" for key in ("f_u", "f_v", "c_u", "c_v")),
                    ([value] * len(CAMERAS) for value in (*FOCAL, *CENTRE)),
                    strict=True,
                )
            ),
            f"{calibration}.extrinsic.transform": transforms(CAMERAS.values()),
            f"{calibration}.width": [WIDTH] * len(CAMERAS),
            f"{calibration}.height": [HEIGHT] * len(CAMERAS),
        },
        "lidar": keys(name, scanned, "laser")
        | range_images("LiDARComponent", [scans[laser][0] for _, laser in scanned]),
        "lidar_calibration": {
            "key.segment_context_name": [name] * len(LASERS),
            "key.laser_name": pa.array(list(LASERS), pa.int8()),
            "[LiDARCalibrationComponent].extrinsic.transform": transforms(
                (position, yaw) for _, position, yaw, _ in LASERS.values()
            ),
            f"{beams}.min": [LOWEST] * len(LASERS),
            f"{beams}.max": [HIGHEST] * len(LASERS),
            f"{beams}.values": pa.array(
                [laser[3] for laser in LASERS.values()], pa.list_(pa.float64())
            ),
        },
        "lidar_camera_projection": keys(name, scanned[::-1], "laser")
        | range_images(
            "LiDARCameraProjectionComponent", [scans[laser][1] for _, laser in scanned[::-1]]
        ),
    }


def keys(name, pairs, sensor="camera"):
    times, numbers = zip(*pairs, strict=True)
    return {
        "key.segment_context_name": [name] * len(pairs),
        "key.frame_timestamp_micros": pa.array(times, pa.int64()),
        f"key.{sensor}_name": pa.array(numbers, pa.int8()),
    }


def transforms(poses):
    return pa.array([pose(*each).ravel() for each in poses], pa.list_(pa.float64(), 16))


def range_images(component, images):
    """Returns the columns of a first return, and of a second one 5 m behind it at some pixels."""
    behind = [image.copy() for image in images]
    for image in behind:
        if image.shape[-1] == 4:
            image[..., 0] = np.where(image[..., 0] > 0, image[..., 0] + 5, -1)
            image[::2, :, 0] = -1
    columns = {}
    for number, returns in ((1, images), (2, behind)):
        prefix = f"[{component}].range_image_return{number}"
        columns[f"{prefix}.values"] = pa.array(
            [each.ravel() for each in returns], pa.list_(pa.float32())
        )
        columns[f"{prefix}.shape"] = pa.array(
            [each.shape for each in returns], pa.list_(pa.int32(), 3)
        )
    return columns


def write(root, made=None, **splits):
    """Writes segments: name of a split's folder -> names of its segments."""
    for split, names in splits.items():
        for name in names:
            for table, columns in (made or tables(name)).items():
                path = root / split / table / f"{name}.parquet"
                path.parent.mkdir(parents=True, exist_ok=True)
                pq.write_table(pa.table(columns), path, row_group_size=4)
