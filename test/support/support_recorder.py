# SPDX-License-Identifier: Apache-2.0
"""The episode recorder as a process, its services, and a robot of which every published byte is known."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gr00t_ros.data.bags import Bag
from gr00t_ros.recording.episode_record import EpisodeRecord
from support_processes import REPO, NodeProcess, ProcessStarter, RosGraph, claim_domain
from support_topics import ARM_COMMANDS, FRONT, GRIPPER_COMMANDS, JOINTS, WRIST, FakeRobot, stamp

MODULE = "gr00t_ros.nodes.episode_recorder"
NAME = "/gr00t/episode_recorder"
EVENTS = f"{NAME}/events"
INSTRUCTION = "/gr00t/instruction"
SO101 = str(REPO / "config/robots/so101.yaml")


def arguments(output: Path, **parameters: Any) -> list[str]:
    """The command line of a recorder of the SO-101."""
    line = ["--ros-args", "--params-file", SO101, "-p", f"output:={output}"]
    for name, value in parameters.items():
        line += ["-p", f"{name}:={str(value).lower() if isinstance(value, bool) else value}"]
    return line


def delivered(publisher: Any) -> None:
    """Returns when every reliable subscriber has what was published."""
    from rclpy.duration import Duration

    assert publisher.wait_for_all_acked(Duration(seconds=30)), publisher.topic_name


class KnownRobot:
    """Cameras, joints and commands until ``close``; ``sent`` holds what was published, by topic."""

    def __init__(self, graph: RosGraph) -> None:
        from rclpy.serialization import serialize_message
        from std_msgs.msg import Float64MultiArray
        from trajectory_msgs.msg import JointTrajectory

        self.sent: dict[str, list[bytes]] = defaultdict(list)
        self.count = 0
        self.silent: set[str] = set()
        arm = graph.node.create_publisher(JointTrajectory, ARM_COMMANDS, 10)
        gripper = graph.node.create_publisher(Float64MultiArray, GRIPPER_COMMANDS, 10)

        def known(topic: str, message: Any) -> bytes | None:
            if topic in self.silent:
                return None
            data = bytes(serialize_message(message))
            self.sent[topic].append(data)
            return data

        def joints(message: Any) -> bytes | None:
            self.count += 1
            trajectory = JointTrajectory(joint_names=["shoulder_pan"])
            trajectory.header.stamp = stamp(self.count)
            arm.publish(known(ARM_COMMANDS, trajectory))
            gripper.publish(known(GRIPPER_COMMANDS, Float64MultiArray(data=[float(self.count)])))
            return known(JOINTS, message)

        self.robot = FakeRobot(graph)
        self.robot.spoil_image, self.robot.spoil_joints = known, joints
        self.robot.restore = lambda: None  # type: ignore[method-assign]

    def more(self, graph: RosGraph, count: int = 30) -> None:
        """Returns when so many more joint states were published."""
        target = self.count + count
        graph.wait_until(lambda: self.count >= target, f"{count} more joint states")

    def close(self) -> None:
        self.robot.close()

    def check(self, folder: Path, record: EpisodeRecord) -> None:
        """Every byte in the bag is what was published, in its order, and what is not there was counted."""
        recorded: dict[str, list[bytes]] = defaultdict(list)
        with Bag(folder) as bag:
            for message in bag.messages():
                recorded[message.topic].append(message.data)
                assert record.start_ns <= message.receive_ns <= record.stop_ns, message.topic
        for topic in (FRONT, WRIST, JOINTS, ARM_COMMANDS, GRIPPER_COMMANDS):
            found, sent = recorded[topic], self.sent[topic]
            assert len(found) > 5, topic
            first, last = sent.index(found[0]), sent.index(found[-1])
            remaining = iter(sent[first : last + 1])
            assert all(data in remaining for data in found), f"{topic}: not what was published, in order"
            audit = record.audit["topics"][topic]
            assert audit["messages"] - audit["dropped"] == len(found), topic
            assert audit["lost"] + audit["dropped"] == last - first + 1 - len(found), topic


class Recorder:
    """The services of a running recorder. Each is asked once: an episode must not begin twice."""

    def __init__(self, process: NodeProcess, graph: RosGraph, output: Path) -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        from std_srvs.srv import Trigger

        from gr00t_ros.msg import EpisodeEvent
        from gr00t_ros.srv import LabelEpisode, StartEpisode

        self.process, self.graph, self.output = process, graph, output
        self._start, self._label, self._trigger = StartEpisode, LabelEpisode, Trigger
        self.events = graph.collect(EVENTS, EpisodeEvent, 10)
        self.diagnostics = graph.collect("/diagnostics", DiagnosticArray, 10)
        process.wait_for(r"\]: ready: ")
        # By then both ends of every service have found each other.
        for name, kind in (
            ("start", StartEpisode),
            ("label", LabelEpisode),
            ("stop", Trigger),
            ("discard", Trigger),
        ):
            assert graph.client(f"{NAME}/{name}", kind).wait_for_service(30.0), name
        graph.wait_until(lambda: self.diagnostics, "/diagnostics")

    def _call(self, name: str, kind: Any, request: Any = None) -> Any:
        return self.graph.call(f"{NAME}/{name}", kind, request, again_s=None)

    def start(self, instruction: str = "") -> Any:
        return self._call("start", self._start, self._start.Request(instruction=instruction))

    def label(self, label: str = "", instruction: str = "", episode: str = "") -> Any:
        request = self._label.Request(label=label, instruction=instruction, episode=episode)
        return self._call("label", self._label, request)

    def stop(self) -> Any:
        return self._call("stop", self._trigger)

    def discard(self) -> Any:
        return self._call("discard", self._trigger)

    def record(self, name: str) -> EpisodeRecord:
        return EpisodeRecord.read(self.output / name / "episode.json")

    def status(self) -> Any:
        """The newest status, and its values as a mapping."""
        status = self.diagnostics[-1].status[0]
        return status, {pair.key: pair.value for pair in status.values}


@contextmanager
def recorder(output: Path, **parameters: Any) -> Iterator[tuple[Recorder, RosGraph, ProcessStarter]]:
    """A recorder of the SO-101 in a domain of its own."""
    domain, lock = claim_domain()
    starter = ProcessStarter(domain)
    try:
        with RosGraph(domain) as graph:
            process = starter(MODULE, *arguments(output, **parameters))
            yield Recorder(process, graph, output), graph, starter
    finally:
        print(*(node.output for node in starter.started), sep="\n")  # pytest shows it with a failure
        starter.close()
        lock.close()
