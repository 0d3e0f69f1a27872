# SPDX-License-Identifier: Apache-2.0
"""How fast recordings become a dataset, and a dataset training samples.

    python bench/dataset.py [--only conversion|loading] [--seconds S S] [--images raw|jpeg] [--json FILE]

Conversion: a bag of two 640x480 cameras at 30 Hz, joint states at 100 Hz and commands is made up (raw images
are 55 MB a second), and converted by ``bag_to_dataset`` in a process of its own: shrunk to the network's 256
edge, then at full size. Two lengths show whether memory grows with the recording. "cpu" is processor time of
all threads and processes for one frame: where other programs run beside this one, compare that. Loading is
what ``bench/dataset_loading.py`` measures, which has options of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import rosbags
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from gr00t_ros.robot import RobotConfig
from gr00t_ros.share import robot_file

ROBOT = "so101"
SIZE = (480, 640)
RATE = 30
JOINT_RATE = 100
START_NS = 1_700_000_000_000_000_000
# Different pictures; they come again and again, there and back, so that a long bag is made quickly.
PICTURES = 90
SIZES = (256, None)


def pictures() -> list[np.ndarray]:
    """A camera that pans over a picture with edges, soft parts and sensor noise."""
    rng = np.random.default_rng(0)
    height, width = SIZE
    wide = cv2.blur(rng.integers(0, 256, (height, width + 4 * PICTURES, 3), dtype=np.uint8), (31, 31))
    wide = cv2.normalize(wide, None, 20, 235, cv2.NORM_MINMAX)
    for _ in range(60):
        corner = rng.integers(0, wide.shape[1]), rng.integers(0, height)
        color = [int(value) for value in rng.integers(0, 256, 3)]
        cv2.rectangle(wide, corner, (corner[0] + 60, corner[1] + 40), color, -1)
    noise = rng.normal(scale=2.0, size=(8, height, width, 3))
    frames = []
    for number in range(PICTURES):
        frame = wide[:, 4 * number : 4 * number + width] + noise[number % 8]
        frames.append(np.clip(frame, 0, 255).astype(np.uint8))
    return frames + frames[-2:0:-1]


def write_bag(folder: Path, seconds: float, images: str) -> int:
    """Makes the bag; returns the bytes it has."""
    robot = RobotConfig.from_file(robot_file(ROBOT))
    store = get_typestore(Stores.ROS2_JAZZY)
    kinds = store.types
    frames = pictures()
    joints = list(robot.joints)
    empty = np.zeros(0)

    def header(stamp: int) -> Any:
        time_of = kinds["builtin_interfaces/msg/Time"](sec=stamp // 10**9, nanosec=stamp % 10**9)
        return kinds["std_msgs/msg/Header"](stamp=time_of, frame_id="")

    def image(stamp: int, frame: np.ndarray) -> Any:
        if images == "jpeg":
            data = np.frombuffer(cv2.imencode(".jpg", frame[:, :, ::-1])[1].tobytes(), np.uint8)
            return kinds["sensor_msgs/msg/CompressedImage"](header=header(stamp), format="jpeg", data=data)
        return kinds["sensor_msgs/msg/Image"](
            header=header(stamp),
            height=SIZE[0],
            width=SIZE[1],
            encoding="rgb8",
            is_bigendian=0,
            step=3 * SIZE[1],
            data=frame.reshape(-1),
        )

    def point(stamp: int, names: Sequence[str], values: np.ndarray) -> Any:
        duration = kinds["builtin_interfaces/msg/Duration"](sec=0, nanosec=100_000_000)
        points = [
            kinds["trajectory_msgs/msg/JointTrajectoryPoint"](
                positions=values,
                velocities=empty,
                accelerations=empty,
                effort=empty,
                time_from_start=duration,
            )
        ]
        return kinds["trajectory_msgs/msg/JointTrajectory"](
            header=header(stamp), joint_names=list(names), points=points
        )

    with Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections: dict[str, Any] = {}

        def put(topic: str, kind: str, stamp: int, message: Any) -> None:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=store)
            writer.write(connections[topic], stamp + 2_000_000, store.serialize_cdr(message, kind))

        kind = "sensor_msgs/msg/CompressedImage" if images == "jpeg" else "sensor_msgs/msg/Image"
        put("/gr00t/instruction", "std_msgs/msg/String", START_NS, kinds["std_msgs/msg/String"](data="bench"))
        ticks = [(k * 10**9 // JOINT_RATE, 0, k) for k in range(round(seconds * JOINT_RATE))]
        ticks += [(k * 10**9 // RATE + 5_000_000, 1, k) for k in range(round(seconds * RATE))]
        for offset, what, number in sorted(ticks):
            stamp = START_NS + offset
            angles = np.sin(offset / 1e9 * np.linspace(0.3, 0.9, len(joints))) * 0.5
            if what == 0:
                message = kinds["sensor_msgs/msg/JointState"](
                    header=header(stamp), name=joints, position=angles, velocity=empty, effort=empty
                )
                put("/joint_states", "sensor_msgs/msg/JointState", stamp, message)
                continue
            for place, camera in enumerate(robot.video.values()):
                frame = frames[(number + 40 * place) % len(frames)]
                suffix = "/compressed" if images == "jpeg" else ""
                put(camera.topic + suffix, kind, stamp, image(stamp, frame))
            for group in robot.action.values():
                values = np.array([angles[joints.index(joint)] for joint in group.joints])
                if group.interface == "joint_trajectory":
                    message = point(stamp, group.joints, values)
                    put(group.topic, "trajectory_msgs/msg/JointTrajectory", stamp, message)
                else:
                    layout = kinds["std_msgs/msg/MultiArrayLayout"](dim=[], data_offset=0)
                    message = kinds["std_msgs/msg/Float64MultiArray"](layout=layout, data=values)
                    put(group.topic, "std_msgs/msg/Float64MultiArray", stamp, message)
    return sum(path.stat().st_size for path in folder.iterdir())


def robot_yaml(folder: Path, images: str) -> Path:
    """The shipped robot, with the topics of the bag."""
    text = robot_file(ROBOT).read_text(encoding="utf-8")
    path = folder / "robot.yaml"
    path.write_text(text.replace("/image_raw", "/image_raw/compressed") if images == "jpeg" else text)
    return path


def convert(bag: Path, robot: Path, output: Path, size: int | None, seconds: float) -> dict[str, Any]:
    """One conversion in a process of its own."""
    command = [sys.executable, "-m", "gr00t_ros.cli.bag_to_dataset", str(bag), "--robot", str(robot)]
    command += ["--output", str(output), "--fps", str(RATE), *(["--size", str(size)] if size else [])]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    told = process.stdout.read().decode(errors="replace")
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.stdout.close()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"bag_to_dataset failed:\n{told}")
    info = json.loads((output / "meta/info.json").read_text())
    frames = 2 * info["total_frames"]
    return {
        "size": size or SIZE[0],
        "seconds": seconds,
        "rows": info["total_frames"],
        "wall_s": wall,
        "times_real_time": info["total_frames"] / RATE / wall,
        "frames_per_s": frames / wall,
        "cpu_ms_per_frame": 1e3 * (usage.ru_utime + usage.ru_stime) / frames,
        "peak_mib": usage.ru_maxrss / 1024,
        "video_kbit_per_frame": 8e-3 * sum(p.stat().st_size for p in output.rglob("*.mp4")) / frames,
    }


def conversion(lengths: Sequence[float], images: str) -> list[dict[str, Any]]:
    """All rows of the table."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="bench_dataset_") as name:
        folder = Path(name)
        robot = robot_yaml(folder, images)
        for length in lengths:
            bag = folder / f"bag_{length:g}"
            size_of_bag = write_bag(bag, length, images)
            print(f"{length:g} s of {images} images, {size_of_bag / 1e9:.2f} GB", file=sys.stderr)
            for size in SIZES:
                output = folder / f"dataset_{length:g}_{size}"
                rows.append(convert(bag, robot, output, size, length))
            for path in bag.iterdir():
                path.unlink()
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """For the terminal."""
    lines = ["  edge  recorded  real time  frames/s  cpu/frame   peak memory  video/frame"]
    for row in rows:
        lines.append(
            f"{row['size']:>6} {row['seconds']:>7g} s {row['times_real_time']:>8.1f} x"
            f"{row['frames_per_s']:>10.0f} {row['cpu_ms_per_frame']:>7.2f} ms {row['peak_mib']:>9.0f} MiB"
            f"{row['video_kbit_per_frame']:>8.1f} kbit"
        )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=("conversion", "loading"), help="one half")
    parser.add_argument("--seconds", type=float, nargs="+", default=(20.0, 60.0), help="lengths of the bags")
    parser.add_argument("--images", choices=("raw", "jpeg"), default="raw", help="what the cameras publish")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    arguments = parser.parse_args(argv)
    report: dict[str, Any] = {
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
            "python": platform.python_version(),
            "av": av.__version__,
            "rosbags": getattr(rosbags, "__version__", ""),
        }
    }
    if arguments.only != "loading":
        rows = conversion(arguments.seconds, arguments.images)
        report["conversion"] = {"images": arguments.images, "rows": rows}
        print(table(rows))
    if arguments.only != "conversion":
        import dataset_loading  # loads torch, which conversion does without

        with tempfile.TemporaryDirectory(prefix="bench_loading_") as folder:
            made = dataset_loading.made_up(Path(folder))
            loaded = dataset_loading.measure(made, workers=[0, 1, 2], batch=32, seconds=10.0)
            report["loading"] = {"dataset": dataset_loading.describe(made), "rows": loaded}
        print(report["loading"]["dataset"])
        print(dataset_loading.table(loaded))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
