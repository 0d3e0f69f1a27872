# SPDX-License-Identifier: Apache-2.0
"""What the lifecycle nodes share: transitions that survive mistakes, autostart, diagnostics, and a main
that ends well.

``policy_node`` and ``chunk_executor`` derive from :class:`ManagedNode` and are started by :func:`run`. A
mistake of the user during configure (wrong file, wrong value) is one ERROR line and a failed transition:
the process stays, and the node can be configured again after the parameter is put right.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.timer import Timer

from gr00t_ros.causes import one_line
from gr00t_ros.errors import Gr00tRosError
from gr00t_ros.nodes.parameters import Parameters, ParameterSpec
from gr00t_ros.nodes.plain import refuse_arguments, run_ros

# diagnostics aggregators take a status as stale after 5 s; once a second is the habit of diagnostic_updater.
DIAGNOSTICS_PERIOD_S = 1.0
# How long a call into rclpy may keep Python's signal handlers waiting.
SPIN_PERIOD_S = 0.2
# For how long a node that ends still answers those who wait for it, and how many callbacks an answer that is
# ready takes at most to go out: timers may come between.
ANSWER_S = 1.0
ANSWER_SPINS = 20

AUTOSTART = ParameterSpec(
    "autostart", False, "configure and activate the node by itself after the start", read_only=True
)


class ManagedNode(LifecycleNode):
    """A lifecycle node whose subclass fills in configure, activate, deactivate, cleanup and diagnose.

    Those hooks raise an error of ``user_errors`` for what a user can put right. configure and activate may
    raise anything; deactivate and cleanup release what is there, in any state, and must not raise.
    """

    user_errors: ClassVar[tuple[type[Exception], ...]] = (Gr00tRosError,)

    def __init__(self, name: str, specs: tuple[ParameterSpec, ...]) -> None:
        super().__init__(
            name, automatically_declare_parameters_from_overrides=True, allow_undeclared_parameters=True
        )
        self.parameters = Parameters(self, (AUTOSTART, *specs))
        self.active = False
        # Why the last transition failed; empty when it did not.
        self.problem = ""
        # True while a transition keeps the executor busy: only then may a signal interrupt the main thread.
        self.in_transition = False
        # Timers run on steady time: status and diagnostics go on when simulated time stands still.
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.create_steady_timer(DIAGNOSTICS_PERIOD_S, self._publish_diagnostics)
        self._autostart: Timer | None = None
        if self.parameters["autostart"]:
            self._autostart = self.create_steady_timer(0.0, self._start)

    def set_parameters_atomically(self, parameter_list: list[Parameter]) -> SetParametersResult:
        """As rclpy's, which the parameter services call; see :meth:`Parameters.widened`."""
        return super().set_parameters_atomically(self.parameters.widened(parameter_list))

    # What a subclass fills in.

    def configure(self) -> None:
        """Reads parameters, loads, creates publishers."""

    def activate(self) -> None:
        """Subscribes and starts threads."""

    def deactivate(self) -> None:
        """Stops threads and unsubscribes; also called on the way to cleanup and shutdown."""

    def cleanup(self) -> None:
        """Releases what configure made, however much of it there is."""

    @property
    def awaited(self) -> bool:
        """Whether somebody waits for an answer that ``close`` has made ready and only spinning sends."""
        return False

    def diagnose(self) -> tuple[bytes, str, Mapping[str, Any]]:
        """Level (of DiagnosticStatus), one sentence, and values."""
        return DiagnosticStatus.OK, "", {}

    def diagnose_inactive(self) -> tuple[bytes, str, Mapping[str, Any]]:
        """What ``diagnose`` says while the node is not active."""
        if self.problem:
            return DiagnosticStatus.ERROR, self.problem, {}
        return DiagnosticStatus.OK, "not active", {}

    # rclpy's transitions.

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Runs ``configure``; a failure leaves the node unconfigured."""

        def undo() -> None:
            self.parameters.frozen = False
            self.cleanup()

        self.parameters.frozen = True
        return self._transition("configure", self.configure, undo, super().on_configure, state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Runs ``activate``; a failure leaves the node inactive."""
        result = self._transition("activate", self.activate, self.deactivate, super().on_activate, state)
        self.active = result == TransitionCallbackReturn.SUCCESS
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Runs ``deactivate``."""
        self.active = False
        self.deactivate()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Runs ``cleanup``; parameters may be changed from here on."""
        self.parameters.frozen = False
        self.cleanup()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Releases everything."""
        self.close()
        return super().on_shutdown(state)

    def close(self) -> None:
        """Releases everything, in any state: the end of the process or of the lifecycle."""
        self.active = False
        self.deactivate()
        self.cleanup()

    def _transition(
        self,
        name: str,
        work: Callable[[], None],
        undo: Callable[[], None],
        inherited: Callable[[LifecycleState], TransitionCallbackReturn],
        state: LifecycleState,
    ) -> TransitionCallbackReturn:
        self.in_transition = True
        self.problem = ""
        try:
            work()
            return inherited(state)
        except self.user_errors as error:
            self.problem = f"cannot {name}: {one_line(error)}"
            self.get_logger().error(self.problem)
        except Exception as error:
            # Not a user's mistake but ours: the trace is what a bug report needs. The node still stays alive.
            self.problem = f"cannot {name}, internal error: {one_line(error)}"
            self.get_logger().error(f"{self.problem}\n{traceback.format_exc()}")
        finally:
            self.in_transition = False
        undo()
        return TransitionCallbackReturn.FAILURE

    def _LifecycleNodeMixin__change_state(self, transition_id: int) -> TransitionCallbackReturn:  # noqa: N802
        """Every transition, asked for by service or by ``trigger_*``.

        rclpy's private method of this name is all that stands between the service and the state machine. In
        Humble and Jazzy it raises when a transition is impossible in the present state; that error would
        leave ``spin_once`` and end the process, without an answer to whoever asked. Later distributions
        answer that it failed, and so does this.
        """
        try:
            return super()._LifecycleNodeMixin__change_state(transition_id)  # type: ignore[misc]
        except RuntimeError as error:  # RCLError
            self.get_logger().warning(f"transition {transition_id} refused: {one_line(error)}")
            return TransitionCallbackReturn.FAILURE

    def _start(self) -> None:
        assert self._autostart is not None
        self._autostart.cancel()
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    # Helpers of the subclasses.

    def create_steady_timer(self, period_s: float, callback: Callable[[], None]) -> Timer:
        """A timer on monotonic time, whatever ``use_sim_time`` says."""
        return self.create_timer(period_s, callback, clock=self._steady)

    # rclpy ties each calling line to one severity, so a sentence that is told by others passes through these.

    def tell_info(self, text: str) -> None:
        """Logs ``text`` at this severity."""
        self.get_logger().info(text)

    def tell_warning(self, text: str) -> None:
        """Logs ``text`` at this severity."""
        self.get_logger().warning(text)

    def tell_error(self, text: str) -> None:
        """Logs ``text`` at this severity."""
        self.get_logger().error(text)

    def now_ns(self) -> int:
        """ROS time: the system's clock, or simulated time."""
        clock = self.get_clock()
        # The system's clock is what rclpy would read; asked for here it costs a tenth.
        return int(clock.now().nanoseconds) if clock.ros_time_is_active else time.time_ns()

    def _publish_diagnostics(self) -> None:
        level, message, values = self.diagnose()
        status = DiagnosticStatus(
            level=level,
            name=f"{self.get_fully_qualified_name()[1:]}: {self.get_name()}",
            message=message,
            hardware_id=str(self.parameters.robot().get("name", "")),
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )
        array = DiagnosticArray(status=[status])
        array.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(array)


def run(make: Callable[[], ManagedNode], argv: list[str] | None, description: str) -> int:
    """The main function of a lifecycle node: spins on one thread until SIGINT, SIGTERM or shutdown.

    SIGINT also ends a node that is in the middle of loading a model. Returns the exit code: 0 after an
    orderly end, 2 when the command line or a node parameter is wrong (one line on stderr says what).
    """
    stopping = False
    node: ManagedNode | None = None

    def stop() -> None:
        nonlocal stopping
        stopping = True
        if node is None or node.in_transition:
            raise KeyboardInterrupt

    def answer(node: ManagedNode, executor: SingleThreadedExecutor) -> None:
        """A client is told of the end too: nothing that runs after this would tell it."""
        if not node.awaited:
            return
        end = time.monotonic() + ANSWER_S
        while node.awaited and time.monotonic() < end:
            executor.spin_once(timeout_sec=0.01)
        for _ in range(ANSWER_SPINS):
            executor.spin_once(timeout_sec=0.0)

    def body(arguments: list[str]) -> int:
        nonlocal node
        refuse_arguments(arguments)
        executor: SingleThreadedExecutor | None = None
        try:
            node = make()
            executor = SingleThreadedExecutor()
            executor.add_node(node)
            while rclpy.ok() and not stopping:
                executor.spin_once(timeout_sec=SPIN_PERIOD_S)
        except KeyboardInterrupt:
            pass
        finally:
            if node is not None:
                node.in_transition = False
                node.close()
                if executor is not None:
                    answer(node, executor)
                node.destroy_node()
        return 0

    try:
        return run_ros(body, argv, description, stop)
    except KeyboardInterrupt:  # a signal before there was a node
        return 0
