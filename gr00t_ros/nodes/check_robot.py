# SPDX-License-Identifier: Apache-2.0
"""``check_robot``: the live graph against the robot YAML and the checkpoint, as one table.

Listens for a few seconds where the policy and the executor would listen, looks at who publishes and
subscribes, and tells what fits and what does not. The exit code is 0 only when it is safe to start. It makes
no publisher for anything of the robot's: it cannot command.

What is right and wrong is decided in ``gr00t_ros.checking`` and its neighbours; this module only collects.
ROS arguments (remapping, ``qos_overrides``, ``use_sim_time``) mean here what they mean for the nodes.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import importlib
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from rclpy.qos_overriding_options import QoSOverridingOptions
from std_msgs.msg import String

from gr00t_ros import checking
from gr00t_ros.causes import without_numbers
from gr00t_ros.checking import Attempts, Endpoint, TopicSeen
from gr00t_ros.checking_checkpoint import check_checkpoint
from gr00t_ros.checking_limits import check_measured, check_urdf
from gr00t_ros.checking_sources import JointLog, SourceLog
from gr00t_ros.errors import Gr00tRosError, MessageError, NotReady, RobotConfigError
from gr00t_ros.findings import Finding, Level, fail, table, warn
from gr00t_ros.nodes.plain import run_plain
from gr00t_ros.nodes.qos import silent_event_callbacks
from gr00t_ros.observation import ObservationBuilder
from gr00t_ros.robot import RobotConfig
from gr00t_ros.robot_types import MESSAGE_TYPES, POSE, StateSource, VideoSource
from gr00t_ros.share import robot_file
from gr00t_ros.urdf import UrdfError, read_urdf

NAMESPACE = "/gr00t"
EXECUTOR, POLICY = "chunk_executor", "policy"
JOINT_STATES = MESSAGE_TYPES["joint_state"]
DESCRIPTION_TOPIC = "/robot_description"
# robot_state_publisher's, and that of everything that asks for what was published before.
LATCHED = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)
# Seconds of listening: a hundred frames of a 20 Hz camera.
DURATION_S = 5.0
# Listening begins when everybody who is looked for was found, at the latest after this (s): discovery takes
# one second, and more on a busy machine. Then a moment more, for those who were not looked for.
DISCOVERY_S, SETTLE_S = 5.0, 0.5
# How often an observation is assembled while listening, and how long messages of its moment are waited for.
ATTEMPT_PERIOD_S, ATTEMPT_PATIENCE_S = 0.25, 0.1
# A middleware gives "no deadline" as zero or as centuries.
LONGEST_DEADLINE_S = 1e8


def parser() -> argparse.ArgumentParser:
    """The command line of ``check_robot``."""
    result = argparse.ArgumentParser(
        prog="check_robot",
        description="The live graph against the robot YAML and the checkpoint. Exit code 0: safe to start; "
        "1: something must be mended, the table says what; 2: the command line or the robot YAML is wrong.",
        epilog="ROS arguments come after --ros-args, as for the nodes: -r __ns:=/NAMESPACE, remappings, "
        "-p use_sim_time:=true, --params-file FILE with qos_overrides.",
    )
    result.add_argument("--robot", required=True, help="name of a shipped robot, or the path of a robot YAML")
    result.add_argument(
        "--checkpoint", metavar="DIR", help="checkpoint to hold against it (no weights are read)"
    )
    result.add_argument(
        "--urdf", type=Path, metavar="FILE", help=f"URDF file (default: what {DESCRIPTION_TOPIC} holds)"
    )
    result.add_argument(
        "--duration", type=_duration, default=DURATION_S, metavar="S",
        help="seconds to listen, after everybody was found (default: %(default)s)",
    )  # fmt: skip
    return result


def _duration(text: str) -> float:
    value = float(text)
    if not 1.0 <= value <= 3600.0:
        raise argparse.ArgumentTypeError(f"{text}: expected 1 to 3600 seconds")
    return value


class CheckRobot(Node):
    """Listens on the topics of a robot description and collects what the checks ask for."""

    def __init__(self, robot: RobotConfig, modality: Mapping[str, Any] | None) -> None:
        super().__init__(
            "check_robot",
            namespace=NAMESPACE,
            automatically_declare_parameters_from_overrides=True,
            allow_undeclared_parameters=True,
        )
        self.robot = robot
        self.urdf: str | None = None
        known = {*robot.joints, *(joint for state in robot.state.values() for joint in state.joints)}
        self.logs = [SourceLog(part, source, known) for part, source in (*robot.sources(), *_poses(robot))]
        self.joints = JointLog(robot)
        self._builder = _builder(robot, modality)
        self._listening = False
        self._made = self._ready = 0
        self._reasons: dict[str, tuple[str, int]] = {}
        kinds = {
            spec.topic: spec.message_type for spec in robot.topics if spec.topic != robot.instruction.topic
        }
        kinds.setdefault(robot.executor_joint_state_topic, JOINT_STATES)
        kinds |= {source.topic: MESSAGE_TYPES[POSE] for _, source in _poses(robot)}
        self._kinds = kinds
        for topic, kind in kinds.items():
            self.create_subscription(
                _message_class(kind),
                topic,
                self._taker(topic),
                # A copy: rclpy writes overrides into the profile that it is given.
                copy.copy(qos_profile_sensor_data),
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
                event_callbacks=silent_event_callbacks(),
            )
        self.create_subscription(
            String, DESCRIPTION_TOPIC, self._on_description, LATCHED, event_callbacks=silent_event_callbacks()
        )

    # While listening.

    def listen(self, seconds: float, stop: threading.Event) -> None:
        """Finds the others, then takes messages for ``seconds``; ends early when ``stop`` is set."""
        executor = SingleThreadedExecutor()
        executor.add_node(self)
        self._spin(executor, DISCOVERY_S, lambda: stop.is_set() or self._all_found)
        self._spin(executor, SETTLE_S, stop.is_set)
        self._listening = True
        began = due = time.monotonic()

        def attempt() -> bool:
            nonlocal due
            now = time.monotonic()
            # What was not heard in half of the time will not be.
            if now < due or not (self._all_heard or now > began + seconds / 2.0):
                return stop.is_set()
            if not self._builder.more_is_due or now > due + ATTEMPT_PATIENCE_S:
                self._attempt()
                due = now + ATTEMPT_PERIOD_S
            return stop.is_set()

        self._spin(executor, seconds, attempt)
        executor.remove_node(self)
        executor.shutdown(1.0)

    @staticmethod
    def _spin(executor: SingleThreadedExecutor, seconds: float, done: Callable[[], bool]) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not done():
            executor.spin_once(timeout_sec=0.05)

    @property
    def _all_found(self) -> bool:
        commands = [group.topic for group in self.robot.action.values()]
        return all(map(self.count_publishers, self._kinds)) and all(map(self.count_subscribers, commands))

    @property
    def _all_heard(self) -> bool:
        return all(log.heard for log in self.logs)

    def _taker(self, topic: str) -> Callable[[Any], None]:
        logs = [log for log in self.logs if log.source.topic == topic]
        measures = topic == self.robot.executor_joint_state_topic
        observed = topic in self._builder.topics

        def take(message: Any) -> None:
            if not self._listening:
                return
            now = self.now_ns()
            for log in logs:
                log.add(message, now)
            if measures:
                self.joints.add(message, now)
            if observed:
                with contextlib.suppress(MessageError):  # the logs have it
                    self._builder.add(topic, message, now)

        return take

    def _on_description(self, message: String) -> None:
        self.urdf = message.data

    def _attempt(self) -> None:
        """One observation, as the policy would make it now."""
        if self._builder.newest_frame_ns is None:
            return
        self._made += 1
        try:
            self._builder.assemble(self.now_ns(), "check")
            self._ready += 1
            return
        except NotReady as error:
            reasons = [cause.text for cause in error.causes]
        except MessageError as error:
            reasons = [str(error)]
        for reason in reasons:
            _, count = self._reasons.get(without_numbers(reason), ("", 0))
            self._reasons[without_numbers(reason)] = (reason, count + 1)

    def now_ns(self) -> int:
        """Node time."""
        return int(self.get_clock().now().nanoseconds)

    # After it.

    def findings(self, urdf: Path | None) -> list[Finding]:
        """Everything about the graph, in the order of the table."""
        ended_ns, robot = self.now_ns(), self.robot
        graph = dict(self.get_topic_names_and_types())
        found = checking.check_clock(
            bool(self.get_parameter("use_sim_time").value), ended_ns > 0, self._seen("/clock")
        )
        for log in self.logs:
            camera = isinstance(log.source, VideoSource)
            kind = MESSAGE_TYPES[log.source.type]
            about = self._source(log.part, log.source.topic, kind, graph, single=camera)
            found += about
            if log.heard or not any(finding.level == Level.FAIL for finding in about):
                found += log.check(ended_ns, robot.step_rate)
        topic = robot.executor_joint_state_topic
        if topic not in {log.source.topic for log in self.logs}:
            found += self._source(self.joints.part, topic, JOINT_STATES, graph, single=False)
        found += self.joints.check(ended_ns, robot.step_rate)
        found += checking.check_observation(Attempts(self._made, self._ready, dict(self._reasons.values())))
        found += checking.check_instruction(robot.instruction.default, self._seen(robot.instruction.topic))
        for group in robot.action.values():
            seen = self._seen(group.topic)
            found += checking.check_command(group, seen, self._offer(seen, group.interface), self._executor)
        found += checking.check_policies(self._seen("action_chunk"))
        found += check_measured(robot, self.joints.finite_positions)
        return found + self._urdf(urdf)

    @property
    def _executor(self) -> str:
        return f"{self.get_namespace().rstrip('/')}/{EXECUTOR}"

    def _seen(self, topic: str) -> TopicSeen:
        """A topic's publishers and subscribers, this node left out."""
        own = self.get_fully_qualified_name()
        return TopicSeen(
            self.resolve_topic_name(topic),
            tuple(map(_endpoint, self.get_publishers_info_by_topic(topic))),
            tuple(e for e in map(_endpoint, self.get_subscriptions_info_by_topic(topic)) if e.node != own),
        )

    def _source(
        self, part: str, topic: str, kind: str, graph: Mapping[str, list[str]], *, single: bool
    ) -> list[Finding]:
        own = self.get_fully_qualified_name()
        ours = {f"{self.get_namespace().rstrip('/')}/{name}" for name in (POLICY, EXECUTOR)}
        # This node subscribes as they do, also where they do not run yet.
        listeners = [
            replace(e, node="our node") if e.node == own else e
            for e in map(_endpoint, self.get_subscriptions_info_by_topic(topic))
            if e.node == own or e.node in ours
        ]
        return checking.check_source(part, kind, self._seen(topic), listeners, graph, single=single)

    def _offer(self, seen: TopicSeen, interface: str) -> Endpoint:
        """How the executor publishes on a command topic: as it does, or as it would."""
        for publisher in seen.publishers:
            if publisher.node == self._executor:
                return publisher

        def asked(policy: str, default: str) -> str:
            name = f"qos_overrides.{seen.topic}.publisher.{policy}"
            return str(self.get_parameter(name).value) if self.has_parameter(name) else default

        return Endpoint(
            self._executor,
            MESSAGE_TYPES[interface],
            reliable=asked("reliability", "reliable") == "reliable",
            transient_local=asked("durability", "volatile") == "transient_local",
        )

    def _urdf(self, path: Path | None) -> list[Finding]:
        where = path.name if path is not None else self.resolve_topic_name(DESCRIPTION_TOPIC)
        if path is not None:
            text: str | None = _read(path)
        else:
            text = self.urdf
        if text is None:
            remedy = "start robot_state_publisher, or give --urdf FILE"
            return [warn("limits", f"no URDF on {where}: limits not compared", "the robot's URDF", remedy)]
        try:
            return check_urdf(self.robot, read_urdf(text, where), where)
        except UrdfError as error:
            return [fail("limits", str(error), "a URDF", "give --urdf FILE, or correct the publisher")]


def _builder(robot: RobotConfig, modality: Mapping[str, Any] | None) -> ObservationBuilder:
    """For the checkpoint's sources where they are known and there, else for all of the YAML's, at present."""
    if modality is not None:
        with contextlib.suppress(RobotConfigError):  # the checkpoint's findings tell
            return ObservationBuilder(robot, modality)
    everything = {
        kind: SimpleNamespace(modality_keys=tuple(keys), delta_indices=(0,))
        for kind, keys in (("video", robot.video), ("state", robot.state))
    }
    return ObservationBuilder(robot, everything)


def _poses(robot: RobotConfig) -> Iterator[tuple[str, StateSource]]:
    """Where the executor sees the poses that it commands, as sources with its own idea of their age."""
    age = robot.executor.max_joint_state_age
    for g in robot.action.values():
        if g.measured_topic:
            source = StateSource(g.key, g.measured_topic, g.names, POSE, frame_id=g.frame_id, max_age=age)
            yield f"action.{g.key}.measured_topic", replace(source, stamp=g.measured_stamp)


def _message_class(kind: str) -> Any:
    package, _, name = kind.partition("/msg/")
    return getattr(importlib.import_module(f"{package}.msg"), name)


def _endpoint(info: Any) -> Endpoint:
    qos = info.qos_profile
    deadline_s = qos.deadline.nanoseconds / 1e9
    return Endpoint(
        f"{info.node_namespace.rstrip('/')}/{info.node_name}",
        info.topic_type,
        {ReliabilityPolicy.RELIABLE: True, ReliabilityPolicy.BEST_EFFORT: False}.get(qos.reliability),
        {DurabilityPolicy.TRANSIENT_LOCAL: True, DurabilityPolicy.VOLATILE: False}.get(qos.durability),
        deadline_s if 0.0 < deadline_s < LONGEST_DEADLINE_S else None,
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Gr00tRosError(f"--urdf {path}: cannot be read ({error}), expected a URDF file") from error


def verdict(findings: list[Finding]) -> str:
    """The last line."""
    counts = {level: sum(finding.level == level for finding in findings) for level in Level}
    told = f"{counts[Level.FAIL]} FAIL, {counts[Level.WARN]} WARN, {counts[Level.OK]} OK"
    return f"not safe to start: {told}" if counts[Level.FAIL] else f"safe to start: {told}"


def _body(arguments: list[str], stop: threading.Event) -> int:
    options = parser().parse_args(arguments)
    robot = RobotConfig.from_file(robot_file(options.robot))
    if options.urdf is not None:
        _read(options.urdf)
    findings: list[Finding] = []
    modality = None
    if options.checkpoint is not None:
        # Before listening: it takes seconds of processor time, in which messages would wait and look old.
        findings, modality = check_checkpoint(robot, options.checkpoint)
    node = CheckRobot(robot, modality)
    try:
        print(f"robot {robot.name}: listening for {options.duration:g} s", flush=True)
        node.listen(options.duration, stop)
        if stop.is_set():
            print("check_robot: interrupted", file=sys.stderr)
            return 130
        findings = [*node.findings(options.urdf), *findings]
    finally:
        node.destroy_node()
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    print(table(findings, width))
    print(verdict(findings))
    return 1 if any(finding.level == Level.FAIL for finding in findings) else 0


def main(argv: list[str] | None = None) -> int:
    """Entry point of ``check_robot``."""
    return run_plain(_body, argv, "")


if __name__ == "__main__":
    raise SystemExit(main())
