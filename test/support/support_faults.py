# SPDX-License-Identifier: Apache-2.0
"""An SO-101 that things are done to: real processes, real DDS, everything recorded.

:class:`ExecutorRig` is the executor in a process of its own, with a robot that goes where it is told and a
source of smooth chunks, both in the test, so that each message can be spoiled. :class:`SystemRig` is the
executor, the policy, the cameras and the joint states, four processes. ``play`` makes one :class:`Scenario`
happen on a rig and says what was measured; ``test/gr00t_ros/faults`` and ``bench/faults.py`` play the same
ones."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from support_fault_recording import NS, Recording, Worst
from support_fault_stand_ins import Body, ChunkSource, MovingRobot, SharedPlace, SimulatedTime
from support_processes import REPO, TIMEOUT_S, NodeProcess, ProcessStarter, RosGraph, claim_domain
from support_topics import ARM_COMMANDS, GRIPPER_COMMANDS, NodeUnderTest

WAITING, EXECUTING, HOLDING, STOPPED = range(4)
# What a machine of two busy cores may add to a documented time: a process that is not scheduled for a while.
SLACK_S = 1.0
# No command for this long, while chunks keep coming, means that nothing more will be commanded. The executor
# sends its last position for 0.5 s and is silent then.
QUIET_S = 0.3
# A message may be delivered this much after it was sent.
IN_FLIGHT_S = 0.1
# After the first command, the way from where the robot stood to the motion takes less.
SETTLED_S = 0.6
EXECUTOR = "/gr00t/chunk_executor"


class Rig:
    """What both rigs share: the executor, what it sends and says, and waiting for that."""

    start = (np.zeros(5), 0.7)  # where the robot stands at first

    def __init__(self, *parameters: str) -> None:
        self.domain, self._lock = claim_domain()
        self.starter = ProcessStarter(self.domain)
        self.logs = Path(tempfile.mkdtemp(prefix="gr00t_ros_faults_"))
        self.graph = RosGraph(self.domain)
        self.recording, self.body = Recording(*self.start), Body(*self.start)
        self.status: list[tuple[int, Any]] = []
        self.diagnostics: list[tuple[int, Any]] = []
        self._deaf = False
        self._hear()
        self.listen()
        self.executor = self.start_executor("enabled:=true", *parameters)

    def listen(self) -> None:
        """Takes the commands, as the robot's controllers do."""
        from rclpy.qos import QoSProfile
        from std_msgs.msg import Float64MultiArray
        from trajectory_msgs.msg import JointTrajectory

        deep, node = QoSProfile(depth=1000), self.graph.node
        self._ears = [
            node.create_subscription(JointTrajectory, ARM_COMMANDS, self._on_arm, deep),
            node.create_subscription(Float64MultiArray, GRIPPER_COMMANDS, self._on_gripper, deep),
        ]

    def deafen(self) -> None:
        """Nobody takes the commands any more."""
        self._deaf = True
        for subscription in self._ears:
            self.graph.node.destroy_subscription(subscription)

    def _hear(self) -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        from rclpy.qos import QoSProfile

        from gr00t_ros.msg import ExecutorStatus

        def keep(to: list[tuple[int, Any]]) -> Callable[[Any], None]:
            return lambda message: to.append((time.monotonic_ns(), message))

        # Deep: that a test is slow must not look like a command that was never sent.
        deep = QoSProfile(depth=1000)
        node = self.graph.node
        node.create_subscription(ExecutorStatus, "/gr00t/executor/status", keep(self.status), deep)
        node.create_subscription(DiagnosticArray, "/diagnostics", keep(self.diagnostics), deep)

    def _on_arm(self, message: Any) -> None:
        self.recording.take_arm(message)
        self.body.take_arm(message)

    def _on_gripper(self, message: Any) -> None:
        self.recording.take_gripper(message)
        self.body.take_gripper(message)

    def node(self, module: str, *parameters: str) -> NodeProcess:
        """One of the package's nodes, configured for the SO-101 and started by itself."""
        arguments = ["--ros-args", "-r", "__ns:=/gr00t"]
        for file in ("config/policy.yaml", "config/robots/so101.yaml"):
            arguments += ["--params-file", str(REPO / file)]
        for parameter in ("autostart:=true", *parameters):
            arguments += ["-p", parameter]
        return self.starter(f"gr00t_ros.nodes.{module}", *arguments, env={"ROS_LOG_DIR": str(self.logs)})

    def start_executor(self, *parameters: str) -> NodeProcess:
        # Commands are kept for a test that is slow to read: by default the newest replaces all before it.
        kept = [f"qos_overrides.{topic}.publisher.depth:=200" for topic in (ARM_COMMANDS, GRIPPER_COMMANDS)]
        process = self.node("chunk_executor", *kept, *parameters)
        process.wait_for("configured")
        return process

    @property
    def control(self) -> NodeUnderTest:
        """Parameters and transitions of the executor."""
        return NodeUnderTest(self.executor, self.graph, EXECUTOR)

    def close(self) -> None:
        self.starter.close()
        self.graph.close()
        self._lock.close()

    # Waiting.

    def state(self) -> Any:
        """The newest status of the executor."""
        return self.status[-1][1]

    def told(self, since_ns: int, condition: Callable[[Any], bool], what: str) -> int:
        """Monotonic time of the first status since then for which ``condition`` holds."""

        def found() -> int:
            return next((at for at, status in list(self.status) if at >= since_ns and condition(status)), 0)

        self.graph.wait_until(
            found, f"a status with {what}; the last one is {self.status[-1:]}; {self.executor.output}"
        )
        return found()

    def until(self, state: int, word: str = "", since_ns: int = 0) -> int:
        """Waits for a state with ``word`` in its reason; when it was told."""
        since_ns = since_ns or time.monotonic_ns()
        return self.told(
            since_ns,
            lambda status: status.state == state and word in status.reason,
            f"state {state}, {word!r}",
        )

    def diagnosed(self, level: bytes, word: str) -> None:
        """Waits until /diagnostics says so about the executor."""
        since_ns = time.monotonic_ns()

        def found() -> bool:
            return any(
                at >= since_ns and status.level == level and word in status.message
                for at, message in list(self.diagnostics)
                for status in message.status
                if "chunk_executor" in status.name
            )

        self.graph.wait_until(found, f"{word!r} in /diagnostics; the last is {self.diagnostics[-1:]}")

    def moving(self, since_ns: int = 0, timeout: float = TIMEOUT_S) -> int:
        """Waits until the arm is commanded to move, now or since then; when that was first."""
        begin_ns = since_ns or time.monotonic_ns()

        def found() -> int:
            return next(
                (
                    at
                    for at, message in list(self.recording.arm)
                    if at >= begin_ns and np.abs(message.points[0].velocities).max() > 0.05
                ),
                0,
            )

        self.graph.wait_until(found, f"motion; the last status is {self.status[-1:]}", timeout)
        return found()

    def quiet(self) -> None:
        """Waits until no command comes any more."""

        def silent() -> bool:
            return time.monotonic_ns() - self.recording.last_ns() > (QUIET_S + IN_FLIGHT_S) * NS

        self.graph.wait_until(silent, f"silence; the last status is {self.status[-1:]}")

    def sizes(self) -> dict[str, int]:
        """Of the log files, by name."""
        return {file.name: file.stat().st_size for file in self.logs.glob("*.log")}

    def call(self, name: str) -> Any:
        """``start`` or ``stop``."""
        from std_srvs.srv import Trigger

        return self.graph.call(f"/gr00t/executor/{name}", Trigger)

    def restore(self) -> None:
        """Everything is well again, as far as the rig did the harm."""

    def record(self) -> None:
        """Begins a new recording where the robot stands, and waits until it moves."""
        self._sent, self._sender = self._stopped(), self.executor
        self.recording = Recording(*self.recording.place())
        self.call("start")
        self.until(EXECUTING)
        self.moving()
        time.sleep(SETTLED_S)

    def lost(self) -> int:
        """Ends the motion; how many commands of the recording were lost on the way, as far as the executor
        lived through it and somebody listened."""
        sent = self._stopped() - self._sent
        comparable = self.executor is self._sender and not self._deaf
        self._deaf = False
        return sent - len(self.recording.arm) - len(self.recording.gripper) if comparable else 0

    def _stopped(self) -> int:
        """Stops and waits until nothing is sent any more; the number of commands sent so far."""
        self.call("stop")
        self.quiet()
        self.until(STOPPED)
        return int(self.state().commands_sent)


class ExecutorRig(Rig):
    """The executor alone; robot and chunks come from the test."""

    def __init__(self) -> None:
        super().__init__()
        self.robot = MovingRobot(self.graph, self.body)
        self.source = ChunkSource(self.graph)
        self.clock: SimulatedTime | None = None

    def restore(self) -> None:
        self.robot.restore()
        self.source.restore()
        if self.clock is not None:
            self.simulate_time(None)

    def close(self) -> None:
        self.source.close()
        self.robot.close()
        super().close()

    def simulate_time(self, clock: SimulatedTime | None) -> None:
        """Robot, chunks and executor live in simulated time; None brings them back."""
        now_ns = self.graph.now_ns if clock is None else clock.now_ns
        self.clock, self.robot.now_ns, self.source.now_ns = clock, now_ns, now_ns
        self.robot.clock = clock is not None
        assert self.control.set(use_sim_time=clock is not None) == []


class SystemRig(Rig):
    """Policy, executor, cameras and joint states, each a process."""

    def __init__(self) -> None:
        from std_msgs.msg import String

        from support_checkpoints import tiny_checkpoint

        super().__init__()
        self._checkpoint = tiny_checkpoint()
        self.policy_status: list[tuple[int, Any]] = []
        self._hear_policy()
        self._place = self.logs / "place"
        self._sharing = SharedPlace(self.body, self._place)
        self.joints = self.start_joints()
        self.cameras = self.start_cameras()
        self.policy = self.start_policy()
        self.modes = self.graph.publisher("/test/cameras", String)

    def _hear_policy(self) -> None:
        from gr00t_ros.msg import PolicyStatus

        self.graph.node.create_subscription(
            PolicyStatus,
            "/gr00t/policy/status",
            lambda message: self.policy_status.append((time.monotonic_ns(), message)),
            10,
        )

    def start_policy(self) -> NodeProcess:
        process = self.node("policy_node", f"checkpoint:={self._checkpoint}", "device:=cpu", "rate:=5.0")
        process.wait_for("loaded", 120.0)
        return process

    def start_cameras(self) -> NodeProcess:
        return self.starter("support_fault_sources", "cameras")

    def start_joints(self) -> NodeProcess:
        return self.starter("support_fault_sources", "joints", str(self._place))

    def close(self) -> None:
        self._sharing.close()
        super().close()

    def camera_mode(self, mode: str) -> None:
        from std_msgs.msg import String

        self.modes.publish(String(data=mode))

    def policy_told(self, since_ns: int, state: int, word: str) -> int:
        """Waits for a state of the policy with ``word`` in its reason; when it was told."""

        def found() -> int:
            return next(
                (
                    at
                    for at, status in list(self.policy_status)
                    if at >= since_ns and status.state == state and word in status.reason
                ),
                0,
            )

        self.graph.wait_until(
            found, f"policy state {state}, {word!r}; the last status is {self.policy_status[-1:]}"
        )
        return found()


@dataclass(frozen=True)
class Outcome:
    """What was measured, in s after the fault; None where the scenario has no such thing."""

    stop_s: float | None
    report_s: float | None
    recovery_s: float | None
    note: str
    worst: Worst


def nothing(rig: Any) -> None:
    """What needs no doing."""


def a_while(rig: Any, since_ns: int) -> str:
    """Long enough for five chunks."""
    time.sleep(1.0)
    return ""


@dataclass(frozen=True)
class Scenario:
    """One fault. ``fault``, ``detection``, ``reaction`` and ``recovery`` are the table's words.

    Before the motion begins, ``prepare`` is called; then ``inflict`` makes it happen, ``report`` waits until
    it is told (rig, since: when), ``mend`` ends it and may note something. ``stop_s`` is the documented time
    until nothing moves any more; None: motion goes on, and ``during`` looks at that and may note something.
    ``latched``: only executor/start ends the stop. Without ``unbroken`` motion may pause meanwhile, as a
    policy's does on a slow machine.
    """

    name: str
    fault: str
    detection: str
    reaction: str
    recovery: str
    inflict: Callable[[Any], None]
    report: Callable[[Any, int], int] | None = None
    mend: Callable[[Any], str | None] = lambda rig: rig.restore()
    stop_s: float | None = None
    latched: bool = False
    unbroken: bool = True
    prepare: Callable[[Any], None] = nothing
    during: Callable[[Any, int], str] = a_while


def play(scenario: Scenario, rig: Any) -> Outcome:
    """Makes it happen to a rig in motion; AssertionError where it goes otherwise than documented. A recording
    that lacks commands, which a busy machine may lose on the way, proves nothing: it is made again."""
    for _ in range(3):
        stop_s, report_s, recovery_s, note = _play(scenario, rig)
        if not rig.lost():
            return Outcome(stop_s, report_s, recovery_s, note, rig.recording.check())
    raise AssertionError("commands were lost on the way to the test, three times")


def _play(scenario: Scenario, rig: Any) -> tuple[float | None, float | None, float | None, str]:
    rig.restore()
    scenario.prepare(rig)
    rig.record()
    fault_ns = time.monotonic_ns()
    scenario.inflict(rig)
    told_ns = scenario.report(rig, fault_ns) if scenario.report else None
    stop_s = recovery_s = None
    note = ""
    if scenario.stop_s is None:
        note = scenario.during(rig, fault_ns)
        other = [status for at, status in list(rig.status) if at >= fault_ns and status.state != EXECUTING]
        assert not (scenario.unbroken and other), f"motion was to go on, but {other[0]}"
        note = scenario.mend(rig) or note
        rig.moving()
    else:
        rig.quiet()
        stop_s = max(0.0, (rig.recording.rest_ns() - fault_ns) / NS)
        assert stop_s <= scenario.stop_s + SLACK_S, (
            f"moved for {stop_s:.3f} s, documented {scenario.stop_s:g} s"
        )
        mended_ns = time.monotonic_ns()
        note = scenario.mend(rig) or ""
        if scenario.latched:
            rig.until(STOPPED, since_ns=mended_ns)
            time.sleep(0.5)  # chunks come, and nothing moves
            rig.quiet()
            rig.until(STOPPED)
            mended_ns = time.monotonic_ns()
            rig.call("start")
        recovery_s = (rig.moving(mended_ns) - mended_ns) / NS
        rig.until(EXECUTING)
    return stop_s, None if told_ns is None else (told_ns - fault_ns) / NS, recovery_s, note
