# SPDX-License-Identifier: Apache-2.0
"""What the whole graph promises: policy, executor and simulated robot together, watched from outside.

The launch tests (``test/launch``) and the plain ones (``test/gr00t_ros/nodes/test_whole_graph.py``) start the
same programs in two ways and ask the same of them; both read it from here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gr00t_ros.robot import RobotConfig
from gr00t_ros.share import robot_file
from support_processes import RosGraph

ROBOT = RobotConfig.from_file(robot_file("so101"))
# Loading torch and building the tokenizer take seconds on a small machine; nothing waits this long.
TIMEOUT_S = 120.0
# An arm counts as resting when no joint moved further than this in REST_STATES joint states (0.5 s).
REST_RAD, REST_STATES = 0.01, 50


class WholeGraph:
    """Hears everything; each method is one promise, to be asked for in this order."""

    def __init__(self, graph: RosGraph) -> None:
        from sensor_msgs.msg import JointState
        from trajectory_msgs.msg import JointTrajectory

        from gr00t_ros.msg import ActionChunk, ExecutorStatus

        self.graph = graph
        self.chunks = graph.collect("/gr00t/action_chunk", ActionChunk, 10)
        self.status = graph.collect("/gr00t/executor/status", ExecutorStatus, 10)
        self.joints = graph.collect(ROBOT.executor_joint_state_topic, JointState)
        self.commands = graph.collect(ROBOT.action["arm"].topic, JointTrajectory, 10)

    def wait(self, condition: Callable[[], Any], what: str) -> None:
        """Waits for ``condition``; an AssertionError says what did not come, and the executor's last word."""
        try:
            self.graph.wait_until(condition, what, TIMEOUT_S)
        except AssertionError as error:
            last = self.status[-1] if self.status else None
            said = f"state {last.state}, {last.reason!r}, faults {list(last.faults)}" if last else "nothing"
            raise AssertionError(f"{error}; the executor said {said}") from None

    def state_of(self, name: str) -> str:
        """The lifecycle state of a node."""
        from lifecycle_msgs.srv import GetState

        service = f"/gr00t/{name}/get_state"
        return str(self.graph.call(service, GetState, timeout=TIMEOUT_S).current_state.label)

    def call(self, service: str) -> Any:
        """The answer of executor/stop or executor/start."""
        from std_srvs.srv import Trigger

        return self.graph.call(f"/gr00t/executor/{service}", Trigger, timeout=TIMEOUT_S)

    def positions(self, count: int) -> np.ndarray:
        """The last measured joints, [count, joints]."""
        return np.array([list(message.position) for message in list(self.joints)[-count:]])

    def resting(self) -> bool:
        """Whether the arm has stood still for a while."""
        recent = self.positions(REST_STATES)
        return len(recent) == REST_STATES and bool(np.ptp(recent, axis=0).max() < REST_RAD)

    def both_nodes_become_active(self) -> None:
        """By themselves, without anybody asking for transitions."""
        for name in ("chunk_executor", "policy"):
            self.wait(lambda name=name: self.state_of(name) == "active", f"{name} to be active")

    def disabled_means_no_command(self) -> None:
        """Chunks come, and nothing is commanded until executor/start."""
        from gr00t_ros.msg import ExecutorStatus

        self.wait(lambda: len(self.chunks) >= 3, "chunks")
        self.wait(lambda: self.status and self.status[-1].state == ExecutorStatus.STOPPED, "STOPPED")
        assert len(self.commands) == 0, "commands before executor/start"
        assert self.call("start").success

    def chunks_become_motion(self) -> None:
        """Chunks in order, commands inside every limit, and an arm that moves."""
        self.wait(lambda: len(self.chunks) >= 3, "chunks")
        self.wait(lambda: len(self.commands) >= 20, "commands")
        self.wait(lambda: np.ptp(self.positions(10_000), axis=0).max() > 0.02, "the arm to move")
        sequences = [chunk.sequence for chunk in list(self.chunks)]
        assert sequences == sorted(set(sequences))
        self.commands_keep_the_limits()

    def commands_keep_the_limits(self) -> None:
        """Every position that was ever commanded."""
        arm = ROBOT.action["arm"]
        for command in list(self.commands):
            assert list(command.joint_names) == list(arm.joints)
            for point in command.points:
                for joint, position in zip(arm.joints, point.positions, strict=True):
                    assert ROBOT.limits[joint].min <= position <= ROBOT.limits[joint].max, joint

    def stop_holds_until_start(self) -> None:
        """executor/stop brings the arm to rest, whatever the policy goes on to say, until executor/start."""
        from gr00t_ros.msg import ExecutorStatus

        assert self.call("stop").success
        self.wait(lambda: self.status[-1].state == ExecutorStatus.STOPPED, "STOPPED")
        self.wait(self.resting, "the arm to rest")
        heard, held = len(self.chunks), self.positions(1)[0]
        self.wait(lambda: len(self.chunks) > heard + 2, "chunks while stopped")
        assert self.status[-1].state == ExecutorStatus.STOPPED
        np.testing.assert_allclose(self.positions(1)[0], held, atol=REST_RAD)
        assert self.call("start").success
        self.wait(lambda: self.status[-1].state == ExecutorStatus.EXECUTING, "EXECUTING after start")

    def the_arm_holds_when_the_policy_dies(self, kill: Callable[[], None]) -> None:
        """Without a policy the plan ends and the arm rests; the executor says why and lives on."""
        from gr00t_ros.msg import ExecutorStatus

        self.wait(lambda: self.status[-1].state == ExecutorStatus.EXECUTING, "EXECUTING")
        kill()
        self.wait(lambda: self.status[-1].state != ExecutorStatus.EXECUTING, "the end of the plan")
        self.wait(self.resting, "the arm to rest")
        assert self.status[-1].state in (ExecutorStatus.HOLDING, ExecutorStatus.STOPPED)
        assert self.status[-1].reason
        assert self.state_of("chunk_executor") == "active"
        self.commands_keep_the_limits()
