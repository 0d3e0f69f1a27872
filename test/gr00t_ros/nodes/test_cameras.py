# SPDX-License-Identifier: Apache-2.0
"""Camera traffic over real DDS: the shipped profile is in use where frames pass, and what image_transport's
compressed plugin publishes is understood."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from gr00t_ros.nodes.conversions import nanoseconds, time_msg
from gr00t_ros.system import policy_programs
from support_checkpoints import tiny_checkpoint
from support_processes import Collector, NodeProcess, ProcessStarter, RosGraph
from support_topics import FRONT, ROBOT, WRIST, FakeRobot, pixels, so101_node

pytestmark = pytest.mark.ros

TASK, SEED = "pick up the block", 5
PROFILE_SEGMENT = 33_554_432  # bytes, config/dds/fastdds.xml


def largest_segment(process: NodeProcess) -> int:
    """Bytes of the largest shared memory segment of Fast DDS in a process."""
    sizes = [0]
    for line in Path(f"/proc/{process.process.pid}/maps").read_text().splitlines():
        if "/dev/shm/fast" in line:
            start, end = line.split()[0].split("-")
            sizes.append(int(end, 16) - int(start, 16))
    return max(sizes)


@pytest.mark.parametrize(("profile", "expected"), [("shipped", True), ("", False)])
def test_the_profile_is_in_use_where_frames_pass(
    processes: ProcessStarter, graph: RosGraph, monkeypatch: pytest.MonkeyPatch, profile: str, expected: bool
) -> None:
    for name in ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE", "ROS_LOCALHOST_ONLY"):
        monkeypatch.delenv(name, raising=False)
    policy_program, executor_program = policy_programs({"autostart": "false", "dds_profile": profile})
    # One after the other: a process maps the segments of those that it meets, too.
    executor = processes.program(executor_program)
    graph.wait_until(lambda: largest_segment(executor) > 0, "the executor's segment")
    assert largest_segment(executor) < PROFILE_SEGMENT, "frames do not pass the executor"
    policy = processes.program(policy_program)
    graph.wait_until(lambda: largest_segment(policy) > 0, "the policy's segment")
    assert (largest_segment(policy) >= PROFILE_SEGMENT) == expected, policy.output
    for process in (policy, executor):
        assert "Error" not in process.output, process.output


def encoded(picture: np.ndarray, extension: str) -> tuple[bytes, np.ndarray]:
    """A compressed picture, and the RGB pixels that are in it."""
    done, data = cv2.imencode(extension, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    assert done
    return data.tobytes(), cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


# Formats as compressed_image_transport writes them: the encoding of the raw image, then what is in the data.
# The last ones are of camera drivers that publish compressed images themselves.
FORMATS = [
    ("rgb8; jpeg compressed bgr8", ".jpg"),
    ("bgr8; jpeg compressed bgr8", ".jpg"),
    ("bayer_rggb8; jpeg compressed bgr8", ".jpg"),
    ("bgr8; png compressed bgr8", ".png"),
    ("rgb8; png compressed bgr8", ".png"),
    ("jpeg", ".jpg"),
    ("png", ".png"),
]


@dataclass
class Compressed:
    """The policy node of an SO-101 with compressed cameras, and what each camera sends now."""

    process: NodeProcess
    graph: RosGraph
    robot: FakeRobot
    chunks: Collector
    content: dict[str, tuple[str, bytes]]  # camera topic -> format, data


@pytest.fixture(scope="module")
def running() -> Iterator[Compressed]:
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import CompressedImage

    from gr00t_ros.msg import ActionChunk

    parameters = [
        f"robot.video.{key}.topic:={source.topic}/compressed" for key, source in ROBOT.video.items()
    ]
    parameters += [f"checkpoint:={tiny_checkpoint()}", f"instruction:={TASK}", f"seed:={SEED}"]
    parameters += ["rate:=10", "device:=cpu", "autostart:=true", "real_time_chunking:=false"]
    with so101_node("gr00t_ros.nodes.policy_node", *parameters) as (process, graph):
        chunks = graph.collect("/gr00t/action_chunk", ActionChunk, 10)
        robot = FakeRobot(graph, cameras=False)
        bench = Compressed(process, graph, robot, chunks, {})
        publishers = {
            topic: graph.node.create_publisher(
                CompressedImage, f"{topic}/compressed", qos_profile_sensor_data
            )
            for topic in (FRONT, WRIST)
        }
        stop = threading.Event()

        def publish() -> None:
            while not stop.wait(0.05):
                now = time_msg(graph.now_ns())
                for topic, (kind, data) in dict(bench.content).items():
                    message = CompressedImage(format=kind, data=data)
                    message.header.stamp = now
                    publishers[topic].publish(message)

        thread = threading.Thread(target=publish, daemon=True)
        thread.start()
        process.wait_for("loaded", 120.0)
        yield bench
        stop.set()
        thread.join(10.0)
        robot.close()


@functools.cache
def offline_policy() -> Any:
    from gr00t_model import Gr00tPolicy

    return Gr00tPolicy(tiny_checkpoint(), ROBOT.embodiment_tag, device="cpu")


@pytest.mark.parametrize(("kind", "extension"), FORMATS, ids=lambda value: value.replace(" ", "_"))
def test_a_compressed_frame_gives_the_chunk_of_its_pixels(
    running: Compressed, kind: str, extension: str
) -> None:
    seen = {}
    for key, topic, seed in (("front", FRONT, 3), ("wrist", WRIST, 4)):
        # Blurred, as pictures are: JPEG of noise would be nearly grey.
        picture = cv2.blur(pixels(seed), (9, 9)) // 2 + np.array([90, 40, 0], np.uint8)
        data, seen[key] = encoded(picture, extension)
        running.content[topic] = (kind, data)
    changed = running.graph.now_ns()

    def chunk() -> Any:
        new = [chunk for chunk in list(running.chunks) if nanoseconds(chunk.header.stamp) > changed]
        return new[0] if new else None

    running.graph.wait_until(chunk, f"a chunk of {kind!r} frames; {running.process.output}")
    message = chunk()
    state = {
        key: np.array([[[running.robot.positions[joint] for joint in source.joints]]], np.float32)
        for key, source in ROBOT.state.items()
    }
    policy = offline_policy()
    observation = {
        "video": {key: picture[None, None] for key, picture in seen.items()},
        "state": state,
        "language": {key: [[TASK]] for key in policy.modality["language"].modality_keys},
    }
    stamp = nanoseconds(message.header.stamp)
    actions, _ = policy.get_action(observation, t_obs_ns=stamp, seed=SEED)
    for group in message.groups:
        got = np.array(group.values).reshape(message.horizon, group.width)
        np.testing.assert_allclose(got, actions[group.key][0], atol=1e-4)
    swapped = {key: np.ascontiguousarray(picture[..., ::-1]) for key, picture in observation["video"].items()}
    other, _ = policy.get_action({**observation, "video": swapped}, t_obs_ns=stamp, seed=SEED)
    assert np.abs(other["arm"] - actions["arm"]).max() > 1e-3, (
        "colours must matter, or this test sees nothing"
    )


def test_a_depth_image_is_refused_in_one_line(running: Compressed) -> None:
    data, _ = encoded(pixels(1), ".png")
    running.content[WRIST] = ("16UC1; compressedDepth png", data)
    running.process.wait_for(r"video\.wrist: found a depth image .*, expected a colour image as JPEG or PNG")
    time.sleep(0.3)
    assert len([line for line in running.process.lines if "depth image" in line]) == 1
