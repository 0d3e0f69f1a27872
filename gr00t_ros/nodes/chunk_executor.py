# SPDX-License-Identifier: Apache-2.0
"""The ``chunk_executor`` node: the only one that commands the robot.

Takes ``action_chunk`` and the measured joints, gives one command topic a group, ``executor/status``,
``/diagnostics`` and the services ``executor/stop`` and ``executor/start``. What to command is decided by
``gr00t_ros.execution``; this module moves messages in and out and keeps the pace: rclpy's executor thread
only stores, a thread of its own runs the periods on monotonic time, so that a slow callback delays no
command. No model is imported here: the process stays light, and lives on when the policy's dies.
"""

from __future__ import annotations

import copy
import threading
import time
import traceback
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from gr00t_ros.causes import CauseLog, without_numbers
from gr00t_ros.errors import ChunkRefused, Gr00tRosError, MessageError
from gr00t_ros.execution import Execution, State
from gr00t_ros.msg import ActionChunk, ExecutorStatus
from gr00t_ros.nodes.conversions import (
    chunk_from_msg,
    command_msg,
    duration_msg,
    group_msgs,
    nanoseconds,
    time_msg,
)
from gr00t_ros.nodes.lifecycle import ManagedNode, run
from gr00t_ros.nodes.parameters import ParameterSpec
from gr00t_ros.robot import RobotConfig
from gr00t_ros.robot_types import FLOAT64_MULTI_ARRAY, JOINT_STATE, JOINT_TRAJECTORY

DESCRIPTION = __doc__ or ""
COMMAND_TYPES = {
    JOINT_TRAJECTORY: JointTrajectory,
    FLOAT64_MULTI_ARRAY: Float64MultiArray,
    JOINT_STATE: JointState,
}
# The policy reads the committed plan from the status: ten times a second is once or twice a chunk.
STATUS_PERIOD_S = 0.1
# The newest message is the one that counts; a queue would only make it older.
# rclpy writes qos_overrides into the profile it is given, so what can be overridden gets a copy.
NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
# How long deactivate waits for the control thread: many periods at the lowest rate.
JOIN_TIMEOUT_S = 2.0

PARAMETERS = (
    ParameterSpec("rate", 50.0, "command rate", "Hz", 10.0, 1000.0),
    ParameterSpec(
        "lookahead", 0.2, "time after which a trajectory is at rest when nothing newer comes", "s", 0.02, 1.0
    ),
    ParameterSpec(
        "hold_time", 0.5, "time for which the last position is sent after motion ended", "s", 0.0, 3600.0
    ),
    ParameterSpec("enabled", True, "execute chunks at once; false waits stopped for executor/start"),
)


class ChunkExecutor(ManagedNode):
    """See the module."""

    def __init__(self) -> None:
        super().__init__("chunk_executor", PARAMETERS)
        # Guards the execution. Held while a message is stored, a period computed (about a millisecond) or the
        # plan read; messages are read and built outside.
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._execution: Execution | None = None
        # Why it stays stopped until executor/start, also through a cleanup and a new configure.
        self._stopped = ""
        self._unmoved = ""  # the reason of the execution's first state
        self._robot: RobotConfig | None = None
        self._thread: threading.Thread | None = None
        self._running = False
        self._command_publishers: dict[str, Publisher] = {}
        self._inputs: list[Subscription] = []
        self._refusals = CauseLog(self.tell_warning)
        self._states = CauseLog(self.tell_info)
        self._said: tuple[State, str] | None = None
        self._announced: tuple[int, int] | None = None  # the chunk that the last status names
        self._periods: deque[float] = deque(maxlen=1)
        self._period_s = 0.0
        self._late = 0  # periods that began after their time was over
        self._status = self.create_publisher(ExecutorStatus, "executor/status", NEWEST)
        self.create_service(Trigger, "executor/stop", self._on_stop)
        self.create_service(Trigger, "executor/start", self._on_start)

    # Lifecycle.

    def configure(self) -> None:
        """Reads the robot description and creates the command publishers."""
        robot = RobotConfig.from_flat(self.parameters.robot())
        period_s = 1.0 / self.parameters["rate"]
        if self.parameters["lookahead"] < 2.0 * period_s:
            raise Gr00tRosError(
                f"parameter lookahead: got {self.parameters['lookahead']:g} s, expected at least "
                f"two periods of rate {self.parameters['rate']:g} Hz, {2.0 * period_s:g} s"
            )
        self._robot = robot
        self._execution = Execution(
            robot,
            period_s=period_s,
            lookahead_s=self.parameters["lookahead"],
            hold_s=self.parameters["hold_time"],
            enabled=self.parameters["enabled"],
        )
        self._unmoved = self._execution.reason
        if self._stopped:
            self._execution.stop(self._stopped)
        self._period_s = period_s
        self._periods = deque(maxlen=max(1, round(self.parameters["rate"])))
        self._command_publishers = {
            group.key: self.create_lifecycle_publisher(
                COMMAND_TYPES[group.interface],
                group.topic,
                copy.copy(NEWEST),
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            )
            for group in robot.action.values()
        }
        groups = ", ".join(f"{g.key} as {g.interface} on {g.topic}" for g in robot.action.values())
        self.get_logger().info(f"configured for robot {robot.name}: {groups}")

    def activate(self) -> None:
        """Subscribes and starts the control thread."""
        assert self._robot is not None
        overridable = QoSOverridingOptions.with_default_policies()
        self._inputs = [
            self.create_subscription(ActionChunk, "action_chunk", self._on_chunk, NEWEST),
            self.create_subscription(
                JointState,
                self._robot.executor.joint_state_topic,
                self._on_joint_state,
                copy.copy(qos_profile_sensor_data),
                qos_overriding_options=overridable,
            ),
        ]
        self._running = True
        self._thread = threading.Thread(target=self._loop, name="control", daemon=True)
        self._thread.start()

    def deactivate(self) -> None:
        """Ends the control thread; nothing is commanded after it."""
        self._running = False
        self._wake.set()
        if self._thread is not None:
            self._thread.join(JOIN_TIMEOUT_S)
            self._thread = None
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        self._inputs = []
        if self._execution is not None:
            # What was planned before a pause must not be executed after it.
            self._execution.reset("not active")
            if self.context.ok():
                self._publish_status()

    def cleanup(self) -> None:
        """Lets go of the command topics. A stop outlives it; that ``enabled`` was false does not."""
        execution = self._execution
        if execution is not None and execution.state == State.STOPPED and execution.reason != self._unmoved:
            self._stopped = execution.reason
        for publisher in self._command_publishers.values():
            self.destroy_lifecycle_publisher(publisher)
        self._command_publishers = {}
        self._execution = self._robot = None

    # What comes in: rclpy's thread.

    def _on_chunk(self, message: ActionChunk) -> None:
        if self._execution is None:
            return
        try:
            try:
                chunk = chunk_from_msg(message)
            except ChunkRefused as refusal:
                with self._lock:
                    self._execution.refuse(str(refusal))
                raise
            with self._lock:
                self._execution.offer(chunk, self.now_ns())
        except ChunkRefused as refusal:
            if self._execution.state == State.STOPPED:
                return  # why it stopped has been said; that nothing is executed since then is no news
            # One sentence a reason: numbers in it change from chunk to chunk.
            self._refusals.add("chunk " + without_numbers(str(refusal)), f"chunk refused: {refusal}")
        else:
            self._refusals.remove("chunk ")

    def _on_joint_state(self, message: JointState) -> None:
        if self._execution is None:
            return
        try:
            with self._lock:
                stamp_ns = nanoseconds(message.header.stamp)
                self._execution.measure(message.name, message.position, stamp_ns, self.now_ns())
        except MessageError as error:
            self._refusals.add("joints " + without_numbers(str(error)), f"message refused: {error}")
        else:
            self._refusals.remove("joints ")

    def _on_stop(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._stopped = "stopped by executor/stop"
        with self._lock:
            if self._execution is not None:
                self._execution.stop(self._stopped)
        self._wake.set()
        response.success = True
        response.message = "stopped until executor/start"
        return response

    def _on_start(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        with self._lock:
            # A start is for now: an inactive node that took it would move the robot whenever it is activated.
            response.success = self.active and self._execution is not None
            if response.success and self._execution is not None:
                self._stopped = ""
                self._execution.start()
        self._wake.set()
        response.message = (
            "waiting for the next chunk" if response.success else "not active: activate the node, then start"
        )
        return response

    # What goes out: the control thread.

    def _loop(self) -> None:
        due = last = time.monotonic()
        status_due = due
        while self._running:
            began = time.monotonic()
            self._periods.append(began - last)
            last = began
            changed = self._period()
            # A chunk that was accepted changes the plan, and the next one is planned from that.
            if changed or began >= status_due or self._news():
                self._publish_status()
                status_due = began + STATUS_PERIOD_S
            due += self._period_s
            now = time.monotonic()
            if now > due:
                self._late += 1
                due = now
            if self._wake.wait(due - now):
                # A stop or start acts at once, and the pace starts anew from it.
                self._wake.clear()
                due = time.monotonic()

    def _news(self) -> bool:
        """Whether a chunk was accepted since the last status."""
        execution = self._execution
        return execution is not None and execution.accepted != self._announced

    def _period(self) -> bool:
        """One period; whether the state or its reason changed."""
        execution = self._execution
        assert execution is not None
        try:
            with self._lock:
                now_ns = self.now_ns()
                commands = execution.step(now_ns, time.monotonic_ns())
                after = (execution.state, execution.reason)
            for command in commands:
                self._command_publishers[command.group.key].publish(command_msg(command, now_ns))
        except Exception:
            # Whatever it is, it must neither end the thread nor send anything further.
            with self._lock:
                execution.stop("internal error, see the log")
                after = (execution.state, execution.reason)
            self._refusals.add("internal", f"stopped by an internal error:\n{traceback.format_exc()}")
            return True
        if self._said == after:
            return False
        self._said = after
        self._tell(*after)
        return True

    def _tell(self, state: State, reason: str) -> None:
        text = f"{state.name.lower()}{': ' if reason else ''}{reason}"
        if state == State.STOPPED:
            self.tell_error(text)
            return
        tell = self.tell_warning if state == State.HOLDING else self.tell_info
        # A slow policy starts and stops the robot once a chunk: every change goes into the status, few into
        # the log.
        self._states.remove("")
        self._states.add(without_numbers(text), text, tell)

    def _publish_status(self) -> None:
        execution = self._execution
        if execution is None:
            return
        with self._lock:
            now_ns = self.now_ns()
            plan, accepted = execution.plan(now_ns), execution.accepted
            state, reason = execution.state, execution.reason
            counters = replace(execution.counters)
        message = ExecutorStatus(
            state=int(state),
            reason=reason,
            chunks_accepted=counters.chunks_accepted,
            chunks_refused=counters.chunks_refused,
            last_refusal=counters.last_refusal,
            commands_sent=counters.commands_sent,
            commands_clipped=counters.commands_clipped,
            stops=counters.stops,
            period=self._period_s,
        )
        if accepted is not None:
            message.session, message.sequence = accepted
        self._announced = accepted
        message.header.stamp = time_msg(now_ns)
        if plan is not None:
            message.plan_start, message.plan_step = time_msg(plan.start_ns), duration_msg(plan.step_ns)
            message.plan = group_msgs(plan.groups)
            message.plan_horizon = len(plan.groups[0].values) if plan.groups else 0
        if self._periods:
            message.measured_period = sum(self._periods) / len(self._periods)
        self._status.publish(message)

    def diagnose(self) -> tuple[bytes, str, Mapping[str, Any]]:
        """Level, sentence and values for ``/diagnostics``."""
        execution = self._execution
        if execution is None or not self.active:
            return self.diagnose_inactive()
        counters = execution.counters
        level = {State.HOLDING: DiagnosticStatus.WARN, State.STOPPED: DiagnosticStatus.ERROR}
        return (
            level.get(execution.state, DiagnosticStatus.OK),
            f"{execution.state.name.lower()}{': ' if execution.reason else ''}{execution.reason}",
            {
                "chunks accepted": counters.chunks_accepted,
                "chunks refused": counters.chunks_refused,
                "last refusal": counters.last_refusal,
                "joint states refused": counters.joint_states_refused,
                "commands sent": counters.commands_sent,
                "commands clipped": counters.commands_clipped,
                **{f"values clipped: {kind}": count for kind, count in execution.clips.items()},
                "stops": counters.stops,
                "late periods": self._late,
            },
        )


def main(argv: list[str] | None = None) -> int:
    """Runs the node until SIGINT or SIGTERM."""
    return run(ChunkExecutor, argv, DESCRIPTION)


if __name__ == "__main__":
    raise SystemExit(main())
