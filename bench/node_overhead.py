# SPDX-License-Identifier: Apache-2.0
"""What the policy node adds to the policy: from the newest camera frame received to the chunk published.

    python bench/node_overhead.py [--seconds S] [--latency MS] [--json FILE]

Real processes over real DDS: one publishes cameras and joint states, one is the policy node with an engine
that does nothing but take a fixed time, and this one listens to the chunks. Overhead is what is left of a
chunk's time after that latency. It counts from the frame's arrival in the node's process, or from the end of
the chunk before where the frame had to wait for the engine.

Rows: cameras that stamp alike and cameras one after the other; with a policy that only sleeps, and with the
real image processing around the engine; and, to compare, without the shipped Fast DDS profile. Frames are
counted at the node's subscriptions by their numbers. Everything runs on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from gr00t_ros import dds
from gr00t_ros.robot import RobotConfig
from gr00t_ros.share import config_file, robot_file

CAMERAS = ("front", "wrist", "side")
# Discovery, first shapes and caches: not what a robot sees for hours.
SETTLE_S = 3.0
JOINT_STATE_HZ = 100.0
START_TIMEOUT_S = 300.0
PIPE_DEPTH = 4  # numbers kept in a frame's first bytes, so that no two frames are equal
ROWS: tuple[tuple[str, bool, bool, bool], ...] = (  # name, stamps alike, image processing, profile
    ("same stamps", True, False, True),
    ("one after the other", False, False, True),
    ("same stamps, image processing", True, True, True),
    ("one after the other, image processing", False, True, True),
    ("same stamps, no profile", True, False, False),
)


def camera_process(arguments: argparse.Namespace) -> int:
    """Three cameras and the joint states, until the time is up."""
    import array
    import threading

    import rclpy
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import Image, JointState

    robot = RobotConfig.from_file(arguments.robot)
    rclpy.init()
    node = rclpy.create_node("cameras")
    publishers = [
        node.create_publisher(Image, v.topic, qos_profile_sensor_data) for v in robot.video.values()
    ]
    joints = node.create_publisher(JointState, robot.executor_joint_state_topic, qos_profile_sensor_data)
    width, height = arguments.size
    pixels = np.random.default_rng(0).integers(0, 256, height * width * 3, np.uint8)
    image = Image(height=height, width=width, step=width * 3, encoding="rgb8")
    state = JointState(name=list(robot.joints), position=[0.1] * len(robot.joints))
    while any(publisher.get_subscription_count() == 0 for publisher in publishers):
        time.sleep(0.05)
    period = 1.0 / arguments.rate
    start = time.monotonic()
    end = start + SETTLE_S + arguments.seconds
    stop = threading.Event()

    def publish_joints() -> None:
        while not stop.wait(1.0 / JOINT_STATE_HZ):
            state.header.stamp = node.get_clock().now().to_msg()
            joints.publish(state)

    thread = threading.Thread(target=publish_joints)
    thread.start()
    number = 0
    while time.monotonic() < end:
        stamp = None
        for index, publisher in enumerate(publishers):
            phase = 0.0 if arguments.alike else index / len(publishers)
            time.sleep(max(0.0, start + (number + phase) * period - time.monotonic()))
            if stamp is None or not arguments.alike:
                stamp = node.get_clock().now().to_msg()
            pixels[:PIPE_DEPTH] = np.frombuffer(number.to_bytes(PIPE_DEPTH, "little"), np.uint8)
            image.data = array.array("B", pixels.tobytes())
            image.header.stamp, image.header.frame_id = stamp, str(number)
            publisher.publish(image)
        number += 1
    stop.set()
    thread.join()
    time.sleep(1.0)
    node.destroy_node()
    rclpy.shutdown()
    return 0


def policy_process(arguments: argparse.Namespace, ros_arguments: list[str]) -> int:
    """The policy node around an engine that sleeps; writes what it saw to ``--record`` at the end."""
    from sensor_msgs.msg import Image

    import gr00t_model
    from gr00t_ros.msg import ActionChunk
    from gr00t_ros.nodes.lifecycle import run
    from gr00t_ros.nodes.policy_node import PolicyNode

    latency_s = arguments.latency / 1e3
    frames: list[tuple[str, int, int, int, int]] = []  # topic, number, stamp, received, callback
    # stamp, published, image processing in s, policy called, policy done
    chunks: list[tuple[int, int, float, int, int]] = []
    processing, called, done = 0.0, 0, 0
    real_get_action = gr00t_model.Gr00tPolicy.get_action

    class Sleeping:
        """An engine that gives zeros after a fixed time."""

        def __init__(self, engine: Any, shape: tuple[int, ...]) -> None:
            self._engine, self._zeros = engine, np.zeros(shape, np.float32)

        def run(self, *inputs: Any) -> np.ndarray:
            time.sleep(latency_s)
            return self._zeros

        def __getattr__(self, name: str) -> Any:
            return getattr(self._engine, name)

    def get_action(self: Any, observation: Any, *rest: Any, **named: Any) -> Any:
        nonlocal processing, called, done
        called = time.time_ns()
        if not arguments.processing:
            time.sleep(latency_s)
            done = time.time_ns()
            zeros = {k: np.zeros((1, self.horizon, w), np.float32) for k, w in self.action_widths.items()}
            return zeros, {"timing": {"processing_s": 0.0, "inference_s": latency_s, "decoding_s": 0.0}}
        if not isinstance(self._engine, Sleeping):
            shape = (1, self.config.action_horizon, self.config.max_action_dim)
            self._engine = Sleeping(self._engine, shape)
        actions, info = real_get_action(self, observation, *rest, **named)
        processing = info["timing"]["processing_s"] + info["timing"]["decoding_s"]
        done = time.time_ns()
        return actions, info

    def nanoseconds(stamp: Any) -> int:
        return int(stamp.sec * 1_000_000_000 + stamp.nanosec)

    class Watched(PolicyNode):
        """Notes arrivals and departures, and is the policy node otherwise."""

        def create_subscription(self, kind: Any, topic: str, callback: Any, *rest: Any, **named: Any) -> Any:
            if kind is not Image:
                return super().create_subscription(kind, topic, callback, *rest, **named)

            def take(message: Any, info: Any) -> None:
                header, info = message.header, info if isinstance(info, dict) else vars(info)
                number, received = int(header.frame_id), info["received_timestamp"]
                frames.append((topic, number, nanoseconds(header.stamp), received, time.time_ns()))
                callback(message)

            return super().create_subscription(kind, topic, take, *rest, **named)

        def create_lifecycle_publisher(self, kind: Any, *rest: Any, **named: Any) -> Any:
            publisher = super().create_lifecycle_publisher(kind, *rest, **named)
            if kind is ActionChunk:
                publish = publisher.publish

                def publish_and_note(message: Any) -> None:
                    publish(message)
                    stamp = nanoseconds(message.header.stamp)
                    chunks.append((stamp, time.time_ns(), processing, called, done))

                publisher.publish = publish_and_note
            return publisher

    gr00t_model.Gr00tPolicy.get_action = get_action  # type: ignore[method-assign]
    code = run(Watched, ros_arguments, "")
    processor_s = sum(os.times()[:2])
    record = {"frames": frames, "chunks": chunks, "processor_s": processor_s}
    arguments.record.write_text(json.dumps(record), encoding="utf-8")
    return code


def three_cameras(folder: Path) -> Path:
    """The SO-101's description with a third camera."""
    description = yaml.safe_load(robot_file("so101").read_text(encoding="utf-8"))
    video = description["/**"]["ros__parameters"]["robot"]["video"]
    video["keys"] = list(CAMERAS)
    for key in CAMERAS:
        video[key] = {"topic": f"/camera/{key}/image_raw", "max_age": 0.2}
    path = folder / "robot.yaml"
    path.write_text(yaml.safe_dump(description), encoding="utf-8")
    return path


def measure(arguments: argparse.Namespace, row: tuple[str, bool, bool, bool], folder: Path) -> dict[str, Any]:
    """One row: starts the processes, listens, and evaluates what the policy node noted."""
    import rclpy

    from gr00t_ros.msg import ActionChunk, PolicyStatus

    _, alike, image_processing, profile = row
    record = folder / "record.json"
    environment = dict(os.environ)
    environment |= dds.environment(arguments.dds_profile if profile else "", environment)
    me = [sys.executable, str(Path(__file__).resolve())]
    shared = ["--robot", str(folder / "robot.yaml"), "--seconds", str(arguments.seconds)]
    shared += ["--rate", str(arguments.rate), "--latency", str(arguments.latency), "--record", str(record)]
    shared += ["--size", *map(str, arguments.size)]
    policy_line = [*me, "--role", "policy", *shared, *(["--processing"] if image_processing else [])]
    policy_line += ["--ros-args", "--log-level", "warn", "-r", "__ns:=/gr00t"]
    for file in (config_file("policy.yaml"), folder / "robot.yaml"):
        policy_line += ["--params-file", str(file)]
    for parameter in (f"checkpoint:={folder / 'checkpoint'}", "autostart:=true", "device:=cpu"):
        policy_line += ["-p", parameter]
    camera_line = [*me, "--role", "cameras", *shared, *(["--alike"] if alike else [])]

    arrivals: list[float] = []
    policy = subprocess.Popen(policy_line, env=environment)
    try:
        status: list[Any] = []
        node = rclpy.create_node("listener")
        listened_from = [float("inf")]

        def take(chunk: Any) -> None:
            stamp = chunk.header.stamp.sec + chunk.header.stamp.nanosec / 1e9
            if time.monotonic() > listened_from[0]:
                arrivals.append(time.time() - stamp)

        node.create_subscription(PolicyStatus, "/gr00t/policy/status", status.append, 1)
        node.create_subscription(ActionChunk, "/gr00t/action_chunk", take, 1)
        end = time.monotonic() + START_TIMEOUT_S
        while not (status and status[-1].state != PolicyStatus.INACTIVE):
            if policy.poll() is not None or time.monotonic() > end:
                raise SystemExit("the policy node did not become active; its output is above")
            rclpy.spin_once(node, timeout_sec=0.1)
        cameras = subprocess.Popen(camera_line, env=environment)
        try:
            listened_from[0] = time.monotonic() + SETTLE_S
            while cameras.poll() is None:
                rclpy.spin_once(node, timeout_sec=0.05)
        finally:
            cameras.kill()
            cameras.wait()
        node.destroy_node()
        policy.send_signal(signal.SIGINT)
        if policy.wait(30.0) != 0:
            raise SystemExit("the policy node ended with an error; its output is above")
    finally:
        policy.kill()
        policy.wait()
    noted = json.loads(record.read_text(encoding="utf-8"))
    return evaluate(noted, arguments.latency, arrivals)


def evaluate(noted: dict[str, Any], latency_ms: float, arrivals: list[float]) -> dict[str, Any]:
    """Figures in ms from what the policy node noted (stamps and times in ns)."""
    numbers: dict[str, list[int]] = defaultdict(list)
    received: dict[int, int] = {}  # stamp -> last arrival: what the chunk was made of
    taken: dict[int, int] = {}  # stamp -> last callback
    for topic, number, stamp, arrival, callback in noted["frames"]:
        numbers[topic].append(number)
        received[stamp] = max(arrival, received.get(stamp, 0))
        taken[stamp] = max(callback, taken.get(stamp, 0))
    lost = sum(seen[-1] - seen[0] + 1 - len(set(seen)) for seen in numbers.values())
    settled = min(received) + SETTLE_S * 1e9
    overhead, waiting, processing, stages = [], [], [], []
    for before, chunk in zip(noted["chunks"], noted["chunks"][1:], strict=False):
        stamp, published, processing_s, called, done = chunk
        if stamp < settled or stamp not in received:
            continue
        begin = max(received[stamp], before[1])
        waiting.append((begin - received[stamp]) / 1e6)
        processing.append(processing_s * 1e3)
        overhead.append((published - begin) / 1e6 - latency_ms - processing_s * 1e3)
        late = (done - called) / 1e6 - latency_ms - processing_s * 1e3
        taken_at = max(taken[stamp], before[1])
        stages.append(((taken_at - begin) / 1e6, (called - taken_at) / 1e6, late, (published - done) / 1e6))
    if not overhead:
        raise SystemExit("no chunk was made in the time measured")
    with_processing = np.add(overhead, processing)
    figures = {
        "chunks": len(overhead),
        "overhead_p50_ms": float(np.median(overhead)),
        "overhead_p99_ms": float(np.quantile(overhead, 0.99)),
        "overhead_max_ms": float(np.max(overhead)),
        "with_processing_p50_ms": float(np.median(with_processing)),
        "with_processing_p99_ms": float(np.quantile(with_processing, 0.99)),
        **dict(zip(STAGES, np.median(stages, axis=0).tolist(), strict=True)),
        "waited_for_engine_p50_ms": float(np.median(waiting)),
        "stamp_to_arrival_p50_ms": float(np.median(arrivals)) * 1e3,
        "stamp_to_arrival_p99_ms": float(np.quantile(arrivals, 0.99)) * 1e3,
        "frames": sum(map(len, numbers.values())),
        "frames_lost": lost,
    }
    return {key: round(value, 3) if isinstance(value, float) else value for key, value in figures.items()}


# Medians of what the overhead consists of: from arrival to callback, from there to the policy's call, the
# sleep's own lateness, and from the policy's answer to publication.
STAGES = ("to_callback_p50_ms", "to_policy_p50_ms", "late_wake_up_p50_ms", "to_publication_p50_ms")
COLUMNS = (
    ("overhead_p50_ms", "median"),
    ("overhead_p99_ms", "p99"),
    ("with_processing_p50_ms", "median"),
    ("with_processing_p99_ms", "p99"),
    ("stamp_to_arrival_p50_ms", "median"),
    ("stamp_to_arrival_p99_ms", "p99"),
)


def show(arguments: argparse.Namespace, results: list[dict[str, Any]]) -> None:
    width, height = arguments.size
    print(
        f"{len(CAMERAS)} cameras of {width}x{height} at {arguments.rate:g} Hz, engine {arguments.latency:g} "
        f"ms, {arguments.seconds:g} s a row, {len(os.sched_getaffinity(0))} cores; times in ms"
    )
    print(f"{'':<38} {'overhead':>17} {'with processing':>17} {'stamp to arrival':>17}   frames")
    print(f"{'':<38}" + "".join(f"{name:>9}" for _, name in COLUMNS) + "     lost")
    for row in results:
        figures = "".join(f"{row[key]:9.2f}" for key, _ in COLUMNS)
        print(f"{row['row']:<38}{figures}{row['frames_lost']:>5} of {row['frames'] + row['frames_lost']}")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="measured time of a row (default 20)")
    parser.add_argument("--latency", type=float, default=20.0, help="of the engine, in ms (default 20)")
    parser.add_argument("--rate", type=float, default=30.0, help="frames a second (default 30)")
    parser.add_argument("--size", type=int, nargs=2, default=(640, 480), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--rows", type=int, nargs="*", default=range(len(ROWS)), help="only these, from 0")
    parser.add_argument(
        "--dds-profile", default=dds.SHIPPED, help="shipped or the path of a Fast DDS profile"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    for name in ("--role", "--robot", "--record"):  # of the processes that this one starts
        parser.add_argument(name, type=Path if name != "--role" else str, help=argparse.SUPPRESS)
    for name in ("--alike", "--processing"):
        parser.add_argument(name, action="store_true", help=argparse.SUPPRESS)
    given = sys.argv[1:] if argv is None else argv
    cut = given.index("--ros-args") if "--ros-args" in given else len(given)
    arguments = parser.parse_args(given[:cut])
    if arguments.role == "cameras":
        return camera_process(arguments)
    if arguments.role == "policy":
        return policy_process(arguments, given[cut:])

    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import rclpy

    from gr00t_ros.cli.random_checkpoint import write

    rclpy.init()
    results = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write(RobotConfig.from_file(three_cameras(folder)), folder / "checkpoint")
        for index in arguments.rows:
            results.append({"row": ROWS[index][0], **measure(arguments, ROWS[index], folder)})
    rclpy.shutdown()
    show(arguments, results)
    if arguments.json:
        report = {
            "cameras": len(CAMERAS),
            "size": list(arguments.size),
            "rate_hz": arguments.rate,
            "latency_ms": arguments.latency,
            "cores": len(os.sched_getaffinity(0)),
            "processor": platform.processor() or platform.machine(),
            "python": platform.python_version(),
            "rows": results,
        }
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
