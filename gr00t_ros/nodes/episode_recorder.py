# SPDX-License-Identifier: Apache-2.0
"""``episode_recorder``: one bag for each episode, begun and ended by service.

    ros2 run gr00t_ros episode_recorder --ros-args --params-file ROBOT_YAML

Records every topic of the robot YAML (or all topics) as MCAP, message for message as they came, and says at
the end of each episode how good it turned out. Services: ``episode_recorder/start`` (with an instruction),
``stop``, ``discard`` and ``label``. Topic: ``episode_recorder/events``, the same as marks in time, which
split a recording that ``ros2 bag record`` makes meanwhile. The robot description comes as parameters; the
node's own parameters are in config/record.yaml.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from std_srvs.srv import Trigger

from gr00t_ros.causes import CauseLog, one_line
from gr00t_ros.errors import Gr00tRosError, RecordingError
from gr00t_ros.freed_memory import keep_freed_memory
from gr00t_ros.instruction import Instruction
from gr00t_ros.msg import EpisodeEvent
from gr00t_ros.nodes.arrivals import Arrivals
from gr00t_ros.nodes.episode_marks import EpisodeMarks
from gr00t_ros.nodes.heard_instruction import InstructionTopic
from gr00t_ros.nodes.parameters import Parameters
from gr00t_ros.nodes.plain import refuse_arguments, run_plain
from gr00t_ros.nodes.recorded_topics import RecordedTopics, Taken
from gr00t_ros.nodes.recorder_parameters import MEGABYTE, PARAMETERS
from gr00t_ros.nodes.recorder_status import diagnosis, summary, topic_lines
from gr00t_ros.observation import check_instruction
from gr00t_ros.recording.audit import GOOD
from gr00t_ros.recording.definitions import Definitions
from gr00t_ros.recording.episode import Episode, cut_short
from gr00t_ros.recording.episode_folder import EpisodeFolder
from gr00t_ros.recording.episode_record import EpisodeRecord
from gr00t_ros.recording.expectations import expectations
from gr00t_ros.recording.marked_episode import MarkedEpisode
from gr00t_ros.robot import RobotConfig
from gr00t_ros.srv import LabelEpisode, StartEpisode

DESCRIPTION = __doc__ or ""
NAMESPACE = "/gr00t"
# How often the running episode is looked at, and the graph for new publishers.
TICK_S, LOOK_S = 0.1, 0.5
DIAGNOSTICS_PERIOD_S = 1.0
SPIN_PERIOD_S = 0.2


class EpisodeRecorder(Node):
    """See the module. Services, timers and the graph are one thread's, messages another's."""

    def __init__(self) -> None:
        super().__init__(
            "episode_recorder",
            namespace=NAMESPACE,
            automatically_declare_parameters_from_overrides=True,
            allow_undeclared_parameters=True,
        )
        self.parameters = Parameters(self, PARAMETERS)
        described = self.parameters.robot()
        if not described:
            raise Gr00tRosError("no robot description: give --ros-args --params-file ROBOT_YAML")
        self.robot = RobotConfig.from_flat(described)
        self.expected = expectations(self.robot, self.resolve_topic_name)
        self.folder = EpisodeFolder(Path(self.parameters["output"]).expanduser().absolute())
        self.folder.prepare()
        self.episode: Episode | None = None
        self._marked: MarkedEpisode | None = None  # the running episode, where only marks are given
        self._began_ns = 0  # when it began, by the system's clock
        self._last = ""  # the last episode that this process has ended
        self.problem = ""  # why the last episode ended as it should not have
        self._dropped_told = 0
        self._causes = CauseLog(self.tell_warning)
        self._odd = CauseLog(self.tell_warning)
        self._definitions = Definitions()
        for item in self.expected.values():
            self._definitions.of(item.message_type)  # a missing one is told now, not when an episode begins
        self._marks = EpisodeMarks(self, self._definitions, lambda: self.episode)
        self._arrivals = Arrivals(self)
        topic = self.resolve_topic_name(self.robot.instruction.topic)
        self._instruction = Instruction(f"publish a text on {topic}")
        self._instruction_topic, self._heard = topic, InstructionTopic(self, topic, self._arrivals)
        self._instruction.set(self.parameters["instruction"] or self.robot.instruction.default)
        self.parameters.on_runtime = self._on_parameter
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._topics = RecordedTopics(
            self,
            {e.topic: e.message_type for e in self.expected.values() if e.topic != topic}
            if self.parameters["write_bags"]
            else {},
            arrivals=self._arrivals,
            everything=self.parameters["all_topics"],
            ignored=(topic, self._marks.topic),
            others=self._words,
            sink=self._on_message,
            connected=self._on_connected,
            odd=self._odd.add,
        )
        services: tuple[tuple[str, Any, Callable[[Any, Any], Any]], ...] = (
            ("start", StartEpisode, self._on_start),
            ("stop", Trigger, self._on_stop),
            ("discard", Trigger, self._on_discard),
            ("label", LabelEpisode, self._on_label),
        )
        for name, kind, callback in services:
            self.create_service(kind, f"episode_recorder/{name}", callback)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(TICK_S, self._tick, clock=steady)
        self.create_timer(LOOK_S, self._topics.look, clock=steady)
        self.create_timer(DIAGNOSTICS_PERIOD_S, self._publish_diagnostics, clock=steady)
        self._tell_what_is_there()

    def _tell_what_is_there(self) -> None:
        what = "marks only" if not self.parameters["write_bags"] else f"{len(self.expected)} topics"
        if self.parameters["all_topics"] and self.parameters["write_bags"]:
            what = "all topics"
        self.get_logger().info(f"ready: {what} of robot {self.robot.name} into {self.folder.path}")
        for path in self.folder.leftovers():
            self.get_logger().warning(
                f"{path} was left by a recorder that was killed. It is kept; bag_to_dataset recovers what "
                "is in it"
            )

    # rclpy ties each calling line to one severity, so a sentence that is told by others passes through these.

    def tell_warning(self, text: str) -> None:
        """Logs ``text`` at this severity."""
        self.get_logger().warning(text)

    def now_ns(self) -> int:
        """ROS time: the system's clock, or simulated time."""
        return self._arrivals.now_ns()

    @property
    def running(self) -> Episode | MarkedEpisode | None:
        """The episode that is being recorded."""
        return self.episode or self._marked

    # The instruction.

    def _on_parameter(self, name: str, value: Any) -> None:
        if name == "instruction":
            self._instruction.set(value)

    def _listen(self) -> None:
        """Takes what came on the instruction topic, where no bag is written: there the thread does."""
        if self.episode is None:
            for heard in self._heard.new():
                self._instruction.set(heard.text)

    def _words(self) -> Iterator[Taken]:
        """What came on the instruction topic and goes into the episode, which runs."""
        for heard in self._heard.new():
            self._instruction.set(heard.text)
            told = self.episode is not None and bool(self.episode.record.instruction)
            moment_ns = heard.counts_from_ns(self._began_ns, told)
            if moment_ns is not None:
                yield Taken(self._instruction_topic, heard.data, moment_ns)

    # The services.

    def _answer(self, response: Any, work: Callable[[], str]) -> Any:
        try:
            response.message = work()
            response.success = True
        except Gr00tRosError as error:
            response.message = one_line(error)
            self.get_logger().error(response.message)
        return response

    def _on_start(self, request: Any, response: Any) -> Any:
        self._answer(response, lambda: self._start(request.instruction))
        if response.success and self.running is not None:
            response.episode = self.running.record.episode
        return response

    def _on_stop(self, request: Any, response: Any) -> Any:
        return self._answer(response, lambda: self._end("stop"))

    def _on_discard(self, request: Any, response: Any) -> Any:
        return self._answer(response, self._discard)

    def _on_label(self, request: Any, response: Any) -> Any:
        def work() -> str:
            record = self._label(request.episode.strip(), request.label.strip(), request.instruction)
            response.episode = record.episode
            text = f"{record.episode}: label {record.label!r}, instruction {record.instruction!r}"
            text += self._unheard()
            self.get_logger().info(text)
            return text

        return self._answer(response, work)

    def _start(self, text: str) -> str:
        """Begins an episode; returns what is to know about it."""
        if self.running is not None:
            raise RecordingError(f"{self.running.record.episode} is being recorded: stop or discard it first")
        self._listen()
        instruction = check_instruction(text) if text.strip() else self._instruction.text
        self.folder.prepare()
        free, least = self.folder.free_bytes(), self.parameters["min_free_space"] * MEGABYTE
        if free < least:
            raise RecordingError(
                f"{free // MEGABYTE} MB are free on the disk of {self.folder.path}, expected at least "
                f"{self.parameters['min_free_space']:g} MB (min_free_space)"
            )
        self._topics.look()
        self._topics.drain()
        start_ns, self._began_ns = self.now_ns(), time.time_ns()
        if start_ns == 0:
            raise RecordingError("use_sim_time is set, but nothing comes on /clock: there is no time")
        name = self.folder.new_name()
        record = EpisodeRecord(name, self.robot.name, instruction, instruction, start_ns)
        notes = [] if instruction else ["without an instruction, which label can still give it"]
        if self.parameters["write_bags"]:
            queue_bytes = round(self.parameters["queue_size"] * MEGABYTE)
            self.episode = Episode(self.folder, record, self.expected, queue_bytes)
            self._marks.give(EpisodeEvent.START, record, start_ns)
            self._marks.tell(self._instruction_topic, self.episode)
            self._topics.begin()
            absent = [t for t, e in self.expected.items() if e.required and not self.count_publishers(t)]
            notes += [f"nobody publishes {', '.join(absent)}"] if absent else []
        else:
            self._marked = MarkedEpisode(self.folder, record)
            self._marks.give(EpisodeEvent.START, record, start_ns)
            notes += [self._marks.unheard] if self._marks.unheard else []
        self.problem, self._dropped_told = "", 0
        self._causes.remove("")
        message = "; ".join([f"{name} begins", *notes])
        self.get_logger().info(f"{message}: {instruction!r}" if instruction else message)
        return message

    def _end(self, ended_by: str, problem: str = "") -> str:
        """Ends the running episode and keeps it; returns its summary."""
        episode, marked = self.episode, self._marked
        if episode is None and marked is None:
            raise RecordingError("no episode is being recorded")
        self._listen()
        self._topics.end()
        stop_ns = self.now_ns()
        if marked is not None:
            self._marked, self._last = None, marked.record.episode
            self._marks.give(EpisodeEvent.STOP, marked.record, stop_ns)
            record = marked.finish(stop_ns, ended_by)
            text = f"{record.episode} ends after {record.duration_s:.1f} s"
            self.get_logger().info(text)
            return text
        assert episode is not None
        self._marks.give(EpisodeEvent.STOP, episode.record, stop_ns)
        self.episode, self._last = None, episode.record.episode
        try:
            notes = [] if episode.record.instruction else ["no instruction"]
            episode.finish(stop_ns, ended_by, [*notes, cut_short(problem)] if problem else notes)
        except RecordingError as error:
            self.problem = f"{episode.record.episode}: {one_line(error)}"
            raise
        finally:
            text = summary(episode.record, episode.audit, episode.written_bytes)
            tell = self.get_logger().info if episode.audit.verdict == GOOD else self.tell_warning
            tell(text)
            for line in topic_lines(episode.audit):
                self.get_logger().info(f"  {line}")
        return text

    def _discard(self) -> str:
        """Throws away the running episode, or the last one."""
        running, now_ns = self.running, self.now_ns()
        if running is not None:
            self._topics.end()
            self.episode = self._marked = None
            record = running.record
            self._marks.give(EpisodeEvent.DISCARD, record, now_ns)
            running.discard()
        elif self._last:
            record = EpisodeRecord.read(self.folder.record_file(self._last))
            self._marks.give(EpisodeEvent.DISCARD, record, now_ns)
            self.folder.discard(self._last)
            self._last = ""
        else:
            raise RecordingError("no episode is being recorded, and none has been since this node began")
        text = f"{record.episode} is thrown away{self._unheard()}"
        self.get_logger().info(text)
        return text

    def _label(self, name: str, label: str, instruction: str) -> EpisodeRecord:
        """Labels the named episode, the running one or the last one."""
        corrected = check_instruction(instruction) if instruction.strip() else ""
        if not label and not corrected:
            raise RecordingError("neither a label nor a corrected instruction was given")
        running = self.running
        if running is not None and name in ("", running.record.episode):
            record = running.label(label, corrected)
        elif name or self._last:
            record = self.folder.label(name or self._last, label, corrected)
        else:
            raise RecordingError("which episode? None has been recorded since this node began")
        self._marks.give(EpisodeEvent.LABEL, record, self.now_ns())
        return record

    def _unheard(self) -> str:
        """The end of an answer where only a mark tells the bag, and nobody hears it."""
        text = "" if self.parameters["write_bags"] else self._marks.unheard
        return f"; but {text}: a bag that has ended does not know it" if text else ""

    # While an episode runs.

    def _on_message(self, topic: str, data: bytes, receive_ns: int, number: int | None) -> None:
        if self.episode is not None:
            self.episode.add(topic, data, receive_ns, number)

    def _on_connected(self, topic: str, kind: str, offered: Sequence[Any]) -> None:
        if self.episode is not None:
            self.episode.connect(topic, self._definitions.of(kind), offered)

    def _tick(self) -> None:
        """Looks after the running episode."""
        self._listen()
        episode = self.episode
        if episode is None:
            return
        failure = episode.failure or self._topics.failure or self.folder.almost_full()
        if failure:
            self.get_logger().error(
                f"{episode.record.episode} is ended, what was recorded is kept: {failure}"
            )
            self.problem = f"{episode.record.episode} was ended: {failure}"
            self._end_quietly("failure", failure)
            return
        causes = episode.silent()
        dropped = episode.dropped
        if dropped > self._dropped_told:
            self._dropped_told = dropped
            causes["dropped"] = (
                f"{dropped} messages are missing: they come faster than the disk takes them (queue_size)"
            )
        self._causes.update(causes)

    def _publish_diagnostics(self) -> None:
        try:
            free: int | None = self.folder.free_bytes()
        except RecordingError:
            free = None
        status = diagnosis(self.running, self.now_ns(), free, self.problem)
        status.name = f"{self.get_fully_qualified_name()[1:]}: {self.get_name()}"
        status.hardware_id = self.robot.name
        array = DiagnosticArray(status=[status])
        array.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(array)

    def close(self) -> None:
        """Keeps the running episode and ends."""
        if self.running is not None:
            self._end_quietly("shutdown", "the recorder was stopped")
        self._topics.close()

    def _end_quietly(self, ended_by: str, problem: str = "") -> None:
        """Where nobody waits for an answer."""
        try:
            self._end(ended_by, problem)
        except RecordingError as error:
            self.get_logger().error(one_line(error))


def _body(arguments: list[str], stop: threading.Event) -> int:
    refuse_arguments(arguments)
    keep_freed_memory()
    node = EpisodeRecorder()
    try:
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        while not stop.is_set():
            executor.spin_once(timeout_sec=SPIN_PERIOD_S)
    finally:
        node.close()
        node.destroy_node()
    return 0


def main(argv: list[str] | None = None) -> int:
    """Runs the node until SIGINT or SIGTERM."""
    return run_plain(_body, argv, DESCRIPTION)


if __name__ == "__main__":
    raise SystemExit(main())
