# SPDX-License-Identifier: Apache-2.0
"""The ``chunk_executor`` node: the only one that commands the robot.

Takes ``action_chunk``, the measured joints and the policy's sign of life, gives one command topic a group,
``executor/status``, ``/diagnostics`` and the services ``executor/stop`` and ``executor/start``. What to
command is decided by ``gr00t_ros.execution``; this module moves messages in and out and keeps the pace.

Two threads. rclpy's executor thread serves transitions, parameters, services and timers. The control thread
(``control_loop``) runs the periods on monotonic time: each reads what is newest on the topics (at most one
chunk), asks the watchdogs, computes and publishes. No callback runs for a message, so that a flood of them
costs nothing here. No model is imported: the process stays light, and lives on when the policy's dies.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from rclpy.qos import QoSProfile, ReliabilityPolicy
from std_srvs.srv import Trigger

from gr00t_ros.causes import CauseLog, without_numbers
from gr00t_ros.commands import GroupCommand
from gr00t_ros.control_loop import ControlLoop, braking_s
from gr00t_ros.errors import Gr00tRosError
from gr00t_ros.execution import Execution, State
from gr00t_ros.faults import Fault, Reaction
from gr00t_ros.msg import ExecutorStatus
from gr00t_ros.nodes.command_output import CommandOutput
from gr00t_ros.nodes.executor_inputs import Inputs
from gr00t_ros.nodes.executor_status import Snapshot, diagnosis, status_message
from gr00t_ros.nodes.lifecycle import ManagedNode, run
from gr00t_ros.nodes.log_lines import LogLines
from gr00t_ros.nodes.parameters import ParameterSpec
from gr00t_ros.pacing import Pace
from gr00t_ros.realtime import lock_memory, try_priority, unlock_memory
from gr00t_ros.robot import RobotConfig
from gr00t_ros.tighter_limits import within_urdf
from gr00t_ros.watchdogs import Watchdogs

DESCRIPTION = __doc__ or ""
# The policy reads the committed plan from the status: ten times a second is once or twice a chunk.
STATUS_PERIOD_S = 0.1
# The newest message is the one that counts; a queue would only make it older.
NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
# How long deactivate waits for the control thread: many periods at the lowest rate.
JOIN_TIMEOUT_S = 2.0
AUTO, ON, OFF = "auto", "on", "off"

PARAMETERS = (
    ParameterSpec("rate", 50.0, "command rate", "Hz", 10.0, 1000.0),
    ParameterSpec(
        "lookahead", 0.2, "time after which a trajectory is at rest when nothing newer comes", "s", 0.02, 1.0
    ),
    ParameterSpec(
        "hold_time", 0.5, "time for which the last position is sent after motion ended", "s", 0.0, 3600.0
    ),
    ParameterSpec("enabled", False, "execute chunks at once; false waits stopped for executor/start"),
    ParameterSpec("urdf", "", "URDF file whose limits hold where they are tighter; empty: the YAML's alone"),
    ParameterSpec("dry_run", False, "publish commands below dry_run/ instead; the robot is not moved"),
    ParameterSpec(
        "real_time",
        AUTO,
        "real-time priority and locked memory: auto (where allowed, with a warning where not), on or off",
        choices=(AUTO, ON, OFF),
    ),
)


class ChunkExecutor(ManagedNode):
    """See the module."""

    def __init__(self) -> None:
        super().__init__("chunk_executor", PARAMETERS)
        # Guards the execution. Held while messages are read, a period computed or the plan copied; messages
        # are built and published outside.
        self._lock = threading.RLock()
        self._execution: Execution | None = None
        # Why it stays stopped until executor/start, also through a cleanup and a new configure.
        self._stopped = ""
        self._unmoved = ""  # the reason of the execution's first state
        self._robot: RobotConfig | None = None
        self._output: CommandOutput | None = None
        self._dry_run = False
        # Kept after a deactivation for as long as its thread has not ended.
        self._loop: ControlLoop | None = None
        self._ending = False
        self._status_due_s = 0.0
        self._real_time = ""  # how the control thread is scheduled, in words
        self._pace = Pace(1.0 / self.parameters["rate"])
        self._late_told = 0
        self._inputs: Inputs | None = None
        self._watchdogs: Watchdogs | None = None
        self._reported: list[str] = []  # what the status says about faults
        self._lines = LogLines(self)
        self._warn = partial(self._lines.later, self.tell_warning)
        self._states, self._others = CauseLog(self._warn), CauseLog(self._warn)
        self._said: tuple[State, str] | None = None
        self._announced: tuple[int, int] | None = None  # the chunk that the last status names
        self._status = self.create_publisher(ExecutorStatus, "executor/status", NEWEST)
        self.create_service(Trigger, "executor/stop", self._on_stop)
        self.create_service(Trigger, "executor/start", self._on_start)

    # Lifecycle.

    def configure(self) -> None:
        """Reads the robot description, asks for real time and creates the command publishers."""
        robot = self._within_urdf(RobotConfig.from_flat(self.parameters.robot()))
        period_s = 1.0 / self.parameters["rate"]
        if self.parameters["lookahead"] < 2.0 * period_s:
            raise Gr00tRosError(
                f"parameter lookahead: got {self.parameters['lookahead']:g} s, expected at least "
                f"two periods of rate {self.parameters['rate']:g} Hz, {2.0 * period_s:g} s"
            )
        self._ask_for_real_time()
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
        self._pace = Pace(period_s)
        self._dry_run = self.parameters["dry_run"]
        self._output = CommandOutput(self, robot.action.values(), NEWEST, dry_run=self._dry_run)
        groups = ", ".join(
            f"{g.key} as {g.interface} on {topic}"
            for g, topic in zip(robot.action.values(), self._output.topics, strict=True)
        )
        self.get_logger().info(f"configured for robot {robot.name}: {groups}")
        if self._dry_run:
            self.get_logger().warning("dry run: the robot is not moved; commands go to topics below dry_run/")

    def _within_urdf(self, robot: RobotConfig) -> RobotConfig:
        """The robot with the tighter of its limits and the URDF's."""
        path = self.parameters["urdf"]
        if not path:
            return robot
        robot, changed = within_urdf(robot, path)
        what = f"tighter for {', '.join(changed)}" if changed else "nowhere tighter"
        self.get_logger().info(f"limits of the robot YAML and of {path}, which is {what}")
        return robot

    def _ask_for_real_time(self) -> None:
        """Raises Gr00tRosError where the parameter insists on what is not allowed."""
        wanted = self.parameters["real_time"]
        if wanted == OFF:
            self._real_time = "off"
            return
        problems = [problem for problem in (try_priority(), lock_memory()) if problem]
        if problems and wanted == ON:
            raise Gr00tRosError(
                f"parameter real_time is on, but {'; '.join(problems)} (docs/how-to/real_time.md)"
            )
        self._real_time = "; ".join(problems) or "SCHED_FIFO, memory locked"
        if problems:
            self.get_logger().warning(
                f"without real time: {'; '.join(problems)}. Periods may begin late under load "
                "(docs/how-to/real_time.md)"
            )

    def activate(self) -> None:
        """Subscribes and starts the control thread. Raises Gr00tRosError while the last one has not ended."""
        if self._loop is not None and self._loop.alive:
            raise Gr00tRosError(
                "the control thread of the last activation has not ended: it is stalled, probably in the "
                "middleware. Activate once it has ended, or start the process anew"
            )
        execution, output = self._execution, self._output
        assert execution is not None
        assert output is not None
        watched = () if self._dry_run else output.topics
        self._watchdogs = Watchdogs(execution.robot.executor, watched, time.monotonic_ns())
        self._inputs = Inputs(self, execution, self._watchdogs, NEWEST, self._warn, self.now_ns())
        self._pace, self._late_told = Pace(self._pace.period_s), 0
        self._ending, self._status_due_s = False, 0.0
        self._loop = ControlLoop(
            self._pace,
            self._turn,
            partial(self._failed, execution),
            real_time=self.parameters["real_time"] != OFF,
        )
        self._loop.start()

    def deactivate(self) -> None:
        """Brakes what would run on by itself, then ends the control thread; nothing is commanded after it."""
        if self._loop is not None:
            self._brake(self._loop)
            if self._loop.end(JOIN_TIMEOUT_S):
                self._loop = None
        if self._inputs is not None:
            self._inputs.close()
            self._inputs = None
        execution = self._execution
        if execution is not None:
            with self._lock:
                # What was planned before a pause must not be executed after it.
                execution.reset("not active")
                if not self.parameters["enabled"] and execution.state != State.STOPPED:
                    execution.stop(self._unmoved)  # a start was for the activation that has ended
            self._reported = []
            if self._loop is not None:  # it may be stalled where a status would stall too
                self.tell_error("the control thread is stalled: it has not ended with the deactivation")
            elif self.context.ok():
                self._publish_status()
                self._lines.write()

    def _brake(self, loop: ControlLoop) -> None:
        """A velocity that was sent is followed until its controller's own timeout: zero is the last word."""
        execution = self._execution
        if execution is None:  # of an activation before the last configuration
            return
        with self._lock:
            self._ending = True  # no chunk is taken any more
            execution.end("not active any more")
        end = time.monotonic() + braking_s(execution.robot)
        while execution.moving and loop.alive and time.monotonic() < end:
            time.sleep(self._pace.period_s)
        if execution.moving:
            self.tell_error("not active any more, and what moved could not be brought to rest")

    def cleanup(self) -> None:
        """Lets go of the command topics. A stop outlives it; that ``enabled`` was false does not."""
        execution = self._execution
        if execution is not None and execution.state == State.STOPPED and execution.reason != self._unmoved:
            self._stopped = execution.reason
        if self._output is not None:
            self._output.close()
        unlock_memory()
        self._output = self._execution = self._robot = None

    # The services: rclpy's thread.

    def _on_stop(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._stopped = "stopped by executor/stop"
        with self._lock:
            if self._execution is not None:
                self._execution.stop(self._stopped)
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
        response.message = (
            "waiting for the next chunk" if response.success else "not active: activate the node, then start"
        )
        return response

    # The control thread.

    def _turn(self, late_s: float) -> None:
        """One period and what is told of it."""
        began = time.monotonic()
        changed = self._period(late_s)
        accepted = self._execution.accepted if self._execution is not None else None
        # A chunk that was accepted changes the plan, and the next one is planned from that.
        if changed or began >= self._status_due_s or accepted != self._announced:
            self._status_due_s = began + STATUS_PERIOD_S
            self._publish_status()

    def _failed(self, execution: Execution, error: Exception) -> None:
        """An error that nobody foresaw: whatever moves is braked, and stays until executor/start."""
        with self._lock:
            if execution.state != State.STOPPED:  # a second stop would begin to brake anew
                execution.stop("internal error, see the log")
        trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        self._others.add("internal", f"stopped by an internal error:\n{trace}")

    def _period(self, late_s: float) -> bool:
        """One period, which began ``late_s`` too late; whether state, reason or faults changed."""
        execution, watchdogs = self._execution, self._watchdogs
        assert execution is not None
        assert watchdogs is not None
        faults: tuple[Fault, ...] = ()
        with self._lock:
            now_ns, mono_ns = self.now_ns(), time.monotonic_ns()
            try:
                faults = self._listen(execution, watchdogs, now_ns, mono_ns, late_s)
            except Exception as error:
                # What came in cannot be known; what brakes goes out all the same.
                self._failed(execution, error)
            commands = execution.step(now_ns, mono_ns, faults)
            problem = execution.problem
            after = (execution.state, execution.reason)
        self._send(execution, commands, now_ns, mono_ns)
        if faults and faults[0].reaction >= Reaction.STOP:
            watchdogs.dropped()
        reported = [fault.reason for fault in faults]
        if problem:
            reported.insert(0, problem)
        if self._said == after and self._reported == reported:
            return False
        if self._said != after:
            self._said = after
            self._tell(*after)
        self._reported = reported
        self._others.update({fault: fault for fault in reported if fault != after[1]}, "watchdog: ")
        return True

    def _listen(
        self, execution: Execution, watchdogs: Watchdogs, now_ns: int, mono_ns: int, late_s: float
    ) -> tuple[Fault, ...]:
        """Reads what came in; the faults of this period."""
        output, inputs = self._output, self._inputs
        assert output is not None
        if inputs is not None:
            inputs.read(now_ns, mono_ns, chunks=not self._ending)
        if not self._dry_run:
            subscribers = output.subscribers()
            watchdogs.counted(subscribers, mono_ns)
            execution.unheard([output.key(topic) for topic, n in subscribers.items() if not n])
        if execution.state == State.STOPPED or execution.accepted is None:
            watchdogs.dropped()
        return watchdogs.check(now_ns, mono_ns, round(late_s * 1e9))

    def _send(
        self, execution: Execution, commands: Sequence[GroupCommand], now_ns: int, mono_ns: int
    ) -> None:
        """Publishes what was made at ``mono_ns``, unless this process stood still since: after half the
        lookahead a trajectory is half over, and the next period makes a new one."""
        output = self._output
        assert output is not None
        for place, command in enumerate(commands):
            if time.monotonic_ns() - mono_ns > self.parameters["lookahead"] / 2.0 * 1e9:
                with self._lock:
                    execution.unsent([late.group.key for late in commands[place:]])
                self._others.add("stale", "commands that came too late to be followed were not sent")
                return
            try:
                output.publish(command, now_ns)
            except Exception as error:  # the other groups are told to brake all the same
                self._failed(execution, error)

    # What is told.

    def _tell(self, state: State, reason: str) -> None:
        text = f"{state.name.lower()}{': ' if reason else ''}{reason}"
        if state == State.STOPPED:
            self._lines.later(self.tell_error, text)
            return
        tell = self.tell_warning if state == State.HOLDING else self.tell_info
        # A slow policy starts and stops the robot once a chunk: every change goes into the status, few into
        # the log.
        self._states.remove("")
        self._states.add(without_numbers(text), text, partial(self._lines.later, tell))

    def _publish_status(self) -> None:
        execution = self._execution
        if execution is None:
            return
        with self._lock:
            shot = Snapshot.of(execution, self.now_ns())
        self._announced = shot.accepted
        priority = self._loop is not None and self._loop.has_priority
        self._status.publish(
            status_message(shot, self._pace, self._reported, realtime=priority, dry_run=self._dry_run)
        )

    def diagnose(self) -> tuple[bytes, str, Mapping[str, Any]]:
        """Level, sentence and values for ``/diagnostics``."""
        execution = self._execution
        if execution is None or not self.active:
            return self.diagnose_inactive()
        late = self._pace.late_periods
        told, self._late_told = self._late_told, late
        return diagnosis(
            execution,
            self._pace,
            self._reported,
            late=late - told,
            realtime=self._real_time,
            dry_run=self._dry_run,
            alive=self._loop is not None and self._loop.alive,
        )


def main(argv: list[str] | None = None) -> int:
    """Runs the node until SIGINT or SIGTERM."""
    return run(ChunkExecutor, argv, DESCRIPTION)


if __name__ == "__main__":
    raise SystemExit(main())
