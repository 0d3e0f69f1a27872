# SPDX-License-Identifier: Apache-2.0
"""The recorder's other ways: all topics, simulated time, marks only, as launched; and how it is killed."""

from __future__ import annotations

import contextlib
import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from std_msgs.msg import String
from std_srvs.srv import Trigger
from visualization_msgs.msg import Marker

from gr00t_ros.data.bags import Bag
from gr00t_ros.errors import DatasetError
from gr00t_ros.msg import EpisodeEvent, PolicyStatus
from gr00t_ros.recording.episode_record import EpisodeRecord
from gr00t_ros.system import record_programs
from support_processes import ProcessStarter, RosGraph, claim_domain
from support_recorder import EVENTS, INSTRUCTION, MODULE, KnownRobot, Recorder, arguments, delivered, recorder
from support_topics import FRONT, JOINTS

pytestmark = pytest.mark.ros

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


@contextlib.contextmanager
def known_robot(graph: RosGraph) -> Iterator[KnownRobot]:
    robot = KnownRobot(graph)
    try:
        yield robot
    finally:
        robot.close()


def readable(folder: Path) -> dict[str, int]:
    """Messages by topic in a recording, as far as it goes."""
    try:
        with Bag(folder) as bag:
            return bag.counts
    except DatasetError:
        return {}


def test_all_topics_in_simulated_time_until_it_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "episodes"
    # A package of this name, and without messages, hides the installed one.
    (tmp_path / "hiding" / "visualization_msgs").mkdir(parents=True)
    (tmp_path / "hiding" / "visualization_msgs" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "hiding")
    with recorder(output, all_topics=True, use_sim_time=True, min_free_space=1.0) as (node, graph, starter):
        refused = node.start("pick")
        assert not refused.success
        assert "nothing comes on /clock" in refused.message

        begun = time.monotonic_ns()
        with known_robot(graph) as robot:
            robot.robot.now_ns = lambda: 1_000_000_000_000 + time.monotonic_ns() - begun
            robot.robot.clock = True
            # Latched before the episode, of a type that this package made; best effort, and new during it.
            description = graph.node.create_publisher(String, "/robot_description", LATCHED)
            description.publish(String(data="<robot/>"))
            hidden = graph.node.create_publisher(String, "/_hidden", 10)
            robot.more(graph, 50)
            graph.wait_until(lambda: node.start("pick").success, "an episode, once there is time")
            robot.more(graph, 10)
            # New during the episode: first a reliable publisher, then one that is not.
            late = graph.node.create_publisher(PolicyStatus, "/late", 10)
            graph.wait_until(late.get_subscription_count, "the recorder to find a new topic")
            late.publish(PolicyStatus(state=2, reason="reliable"))
            delivered(late)
            later = graph.node.create_publisher(PolicyStatus, "/late", qos_profile_sensor_data)
            graph.wait_until(later.get_subscription_count, "the recorder to ask for less")
            for _ in range(5):  # each of which may be lost
                later.publish(PolicyStatus(state=2, reason="best effort"))
                robot.more(graph, 5)
            foreign = graph.node.create_publisher(Marker, "/foreign", 10)
            node.process.wait_for(r"/foreign is not recorded: message type .*Marker is not installed")
            foreign.publish(Marker())
            hidden.publish(String(data="no"))
            robot.more(graph, 20)
            assert node.stop().success
            record = node.record("episode_000000")
            assert 10**12 < record.start_ns < record.stop_ns < 10**12 + 10**11
            robot.check(output / "episode_000000", record)
            with Bag(output / "episode_000000") as bag:
                assert {"/clock", "/late", "/robot_description", EVENTS, INSTRUCTION} <= set(bag.topics)
                assert not any("/_" in topic for topic in bag.topics)
                [latched] = bag.messages(["/robot_description"])
                reasons = [bag.decode(message).reason for message in bag.messages(["/late"])]
                assert bag.decode(latched).data == "<robot/>"
                assert reasons[0] == "reliable"
                assert set(reasons[1:]) == {"best effort"}
                assert "/foreign" not in bag.topics
                assert bag.counts[EVENTS] == 2
            assert record.audit["topics"]["/late"]["used_by"] == []

            # Of a recorder that is killed everything but the last moment is there, and stays there.
            name = node.start("place").episode
            folder = output / f"{name}.recording"
            graph.wait_until(lambda: readable(folder).get(JOINTS, 0) > 20, "messages on the disk")
            node.process.kill()
        left = readable(folder)
        assert min(left.get(topic, 0) for topic in (FRONT, JOINTS, EVENTS, INSTRUCTION)) > 0
        assert EpisodeRecord.read(folder / "episode.json").instruction == "place"
        assert not (folder / "metadata.yaml").exists()

        again = starter(MODULE, *arguments(output, min_free_space=1.0))
        again.wait_for(rf"\[WARN\].*{name}.recording was left by a recorder that was killed")
        next_one = Recorder(again, graph, output).start("pick")
        assert next_one.episode == "episode_000002"
        assert readable(folder) == left
        assert again.stop(signal.SIGTERM) == 0, again.output
        assert (output / "episode_000002").is_dir()


def test_marks_for_another_recorder(tmp_path: Path) -> None:
    """As record.launch.py starts it, with write_bags:=false."""
    (tmp_path / "mine.yaml").write_text("/**/episode_recorder: {ros__parameters: {queue_size: 64.0}}")
    [program] = record_programs(
        {
            "output": str(tmp_path / "marks"),
            "write_bags": "false",
            "instruction": "123",
            "params_file": str(tmp_path / "mine.yaml"),
        }
    )
    domain, lock = claim_domain()
    starter = ProcessStarter(domain)
    try:
        with RosGraph(domain) as graph:
            node = Recorder(starter.program(program), graph, tmp_path / "marks")
            first = node.start()
            assert (first.success, first.episode) == (True, "episode_000000"), first.message
            assert node.stop().success
            assert node.start("pick").success
            assert node.discard().success
            third = node.start("place").episode
            assert node.label("failure").success
            graph.wait_until(lambda: len(node.events) == 6, "six marks")
            # When whoever records the bag has ended, nobody hears what is said.
            [listener] = [s for s in graph.node.subscriptions if s.topic_name == EVENTS]
            graph.node.destroy_subscription(listener)
            unheard = f"; but nobody records {EVENTS}: a bag that has ended does not know it"
            graph.wait_until(
                lambda: node.label("failure").message.endswith(unheard), "the answer that says so"
            )
            assert node.process.stop() == 0, node.process.output
    finally:
        starter.close()
        lock.close()
    start, stop, discard, label = (
        EpisodeEvent.START, EpisodeEvent.STOP, EpisodeEvent.DISCARD, EpisodeEvent.LABEL,
    )  # fmt: skip
    assert [(mark.event, mark.episode, mark.instruction, mark.label) for mark in node.events] == [
        (start, "episode_000000", "123", ""),
        (stop, "episode_000000", "123", ""),
        (start, "episode_000001", "pick", ""),
        (discard, "episode_000001", "pick", ""),
        (start, third, "place", ""),
        (label, third, "place", "failure"),
    ]
    assert sorted(path.name for path in (tmp_path / "marks").iterdir()) == [
        "episode_000000.json", "episode_000002.json",
    ]  # fmt: skip
    record = EpisodeRecord.read(tmp_path / "marks" / "episode_000002.json")
    assert (record.label, record.ended_by) == ("failure", "shutdown")
    assert record.stop_ns >= record.start_ns


def test_a_full_disk_ends_the_episode_and_keeps_it(tmp_path: Path) -> None:
    with recorder(tmp_path, min_free_space=1.0) as (node, graph, _), known_robot(graph) as robot:
        robot.more(graph, 50)
        assert node.start("pick").success
        # As if the disk were full after some seconds.
        pid = node.process.process.pid
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))
        node.process.wait_for(r"\[ERROR\].*episode_000000 is ended, what was recorded is kept: .*too large")
        graph.wait_until(lambda: (tmp_path / "episode_000000").is_dir(), "the episode's own name")
        record = node.record("episode_000000")
        assert record.ended_by == "failure"
        assert any(reason.startswith("cut short: [Errno 27]") for reason in record.audit["reasons"])
        with Bag(tmp_path / "episode_000000") as bag:
            sent = {topic: set(messages) for topic, messages in robot.sent.items()}
            kept = [message for message in bag.messages() if message.topic in sent]
            assert len(kept) > 10
            assert all(message.data in sent[message.topic] for message in kept)
        graph.wait_until(lambda: node.status()[0].level == DiagnosticStatus.ERROR, "the diagnostics")
        assert "File too large" in node.status()[0].message
        assert graph.call("/gr00t/episode_recorder/stop", Trigger, again_s=None).success is False
        # The node lives on.
        assert node.start("pick").success
        assert node.discard().success
        assert node.process.stop() == 0, node.process.output
