# SPDX-License-Identifier: Apache-2.0
"""What the action visualizer spends on a chunk: from the message to the serialized markers, part by part.

    python bench/visualizer.py [--chunks N] [--json FILE]

In this process, on one thread, as in the node: chunk from message and checked, forward kinematics and shapes,
markers as bytes. Robots: the SO-101 with its own URDF (one arm, meshes; needs the extra `demo`) and a
made-up one with two arms of seven joints. Chunks have 16 and 50 steps, and differ from one another. Times are
medians in ms of this thread's time on a core, which other work adds little to; *wall* is by the clock on
the wall; *least* is what a chunk takes where nobody shares the core.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rclpy.serialization import serialize_message

from gr00t_ros.chunk import Chunk, check_chunk, chunk_group
from gr00t_ros.errors import SimulationError
from gr00t_ros.nodes.conversions import chunk_from_msg, chunk_msg
from gr00t_ros.nodes.marker_wire import marker_writer
from gr00t_ros.robot import RobotConfig
from gr00t_ros.share import robot_file
from gr00t_ros.visualization.description import read_description
from gr00t_ros.visualization.scene import Scene

STEPS = (16, 50)
NOW_NS = 10**18
PARTS = ("message", "kinematics", "markers", "all", "wall")


def two_arms() -> tuple[RobotConfig, str]:
    """A robot of two arms, boxes and cylinders, and its URDF."""
    sides = {side: [f"{side}_{i}" for i in range(7)] for side in ("left", "right")}
    links, joints = ['<link name="base_link"/>'], []
    for names in sides.values():
        parent = "base_link"
        for i, name in enumerate(names):
            box = '<visual><geometry><box size="0.05 0.05 0.1"/></geometry></visual>'
            links.append(f'<link name="{name}_link">{box}</link>')
            axis = "0 0 1" if i % 2 else "0 1 0"
            joints.append(
                f'<joint name="{name}" type="revolute"><parent link="{parent}"/><child link="{name}_link"/>'
                f'<origin xyz="0 0.02 0.1" rpy="0.1 0 0"/><axis xyz="{axis}"/></joint>'
            )
            parent = f"{name}_link"
    arms = [*sides["left"], *sides["right"]]
    group = {"representation": "joint_position", "interface": "joint_trajectory"}
    action = {
        side: group | {"joints": names, "topic": f"/{side}/joint_trajectory"} for side, names in sides.items()
    }
    robot = {
        "name": "two_arms",
        "embodiment_tag": "new_embodiment",
        "step_rate": 20.0,
        "video": {"keys": ["front"], "front": {"topic": "/camera/front/image_raw"}},
        "state": {"keys": ["arms"], "arms": {"topic": "/joint_states", "joints": arms}},
        "action": {"keys": list(sides)} | action,
        "limits": {joint: {"min": -3.0, "max": 3.0, "velocity": 2.0} for joint in arms},
    }
    return RobotConfig.from_mapping(robot), f"<robot>{''.join(links + joints)}</robot>"


def so101() -> tuple[RobotConfig, str] | None:
    """The SO-101, where its URDF is installed."""
    from gr00t_ros.sim.scene import robot_model_path

    try:
        urdf = robot_model_path().with_suffix(".urdf")
    except SimulationError:
        return None
    return RobotConfig.from_file(robot_file("so101")), read_description(urdf)


def chunks(robot: RobotConfig, steps: int, count: int) -> list[Any]:
    """Messages of swinging joints; one in eight leaves a limit."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(count):
        t = np.arange(steps)[:, None] * 0.05 + 0.2 * number
        groups = []
        for config in robot.action.values():
            reach = np.array([robot.limits[joint].max for joint in config.joints])
            swing = 0.4 * reach * np.sin(t + np.arange(len(reach))) * (2.8 if number % 8 == 0 else 1.0)
            groups.append(chunk_group(config, swing + rng.normal(0.0, 0.01, swing.shape)))
        start_ns = NOW_NS + number * 200_000_000
        chunk = Chunk(1, number, "swing", start_ns, start_ns, robot.step_ns, tuple(groups), 4)
        found.append(chunk_msg(chunk))
    return found


def serialized(markers: Any) -> bytes:
    """What goes over the wire."""
    return markers if isinstance(markers, bytes) else bytes(serialize_message(markers))


def measure(robot: RobotConfig, urdf: str, steps: int, count: int) -> dict[str, list[float]]:
    """Times of ``count`` chunks by part, in ms."""
    scene, markers = Scene(robot), marker_writer()
    scene.set_model(urdf)
    scene.measure(robot.joints, [0.1] * len(robot.joints), NOW_NS)
    times: dict[str, list[float]] = {part: [] for part in PARTS}

    def timed(part: str, work: Callable[[], Any]) -> Any:
        begun = time.thread_time()
        result = work()
        times[part].append(1e3 * (time.thread_time() - begun))
        return result

    for message in chunks(robot, steps, count):
        now_ns = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        begun, wall = time.thread_time(), time.perf_counter()
        chunk = timed("message", lambda m=message, n=now_ns: check_chunk(chunk_from_msg(m), robot, n))
        shapes = timed("kinematics", lambda c=chunk, n=now_ns: (scene.take_chunk(c), scene.shapes(n, 0.0))[1])
        timed("markers", lambda s=shapes: serialized(markers.update(s)))
        times["all"].append(1e3 * (time.thread_time() - begun))
        times["wall"].append(1e3 * (time.perf_counter() - wall))
    return times


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--chunks", type=int, default=400, help="chunks of each row")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    options = parser.parse_args(argv)
    rows = []
    print(f"{'ms a chunk':<22}" + "".join(f"{part:>15}" for part in PARTS) + f"{'p99':>9}{'least':>9}")
    for name, robot in (("so101", so101()), ("two arms of 7 joints", two_arms())):
        if robot is None:
            print(f"{name}: its URDF is not installed (extra demo)")
            continue
        for steps in STEPS:
            times = measure(*robot, steps, options.chunks)
            row = {part: float(np.median(values)) for part, values in times.items()}
            worst = float(np.percentile(times["all"], 99))
            least = min(times["all"])
            rows.append({"robot": name, "steps": steps, **row, "p99": worst, "least": least})
            figures = "".join(f"{row[part]:>15.2f}" for part in PARTS)
            print(f"{name + ', ' + str(steps):<22}{figures}{worst:>9.2f}{least:>9.2f}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
