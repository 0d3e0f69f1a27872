# SPDX-License-Identifier: Apache-2.0
"""The executor's control thread when something breaks below it: the node itself, in this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gr00t_ros.execution import State
from support_processes import REPO, ros_environment

pytestmark = pytest.mark.ros

WAIT_S = 20.0


def until(condition: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.01)


@pytest.fixture
def node(domain: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Active, without anybody else on the graph."""
    for name, value in ros_environment(domain).items():
        monkeypatch.setenv(name, value)
    import rclpy

    from gr00t_ros.nodes import chunk_executor

    robot = str(REPO / "config/robots/so101.yaml")
    parameters = ("enabled:=true", "real_time:=off")
    arguments = ["--ros-args", "--params-file", robot, *[x for p in parameters for x in ("-p", p)]]
    rclpy.init(args=arguments, domain_id=domain)
    monkeypatch.setattr(chunk_executor, "JOIN_TIMEOUT_S", 1.0)
    try:
        made = chunk_executor.ChunkExecutor()
        made.trigger_configure()
        made.trigger_activate()
        assert made.active
        try:
            yield made
        finally:
            made.close()
            made.destroy_node()
    finally:
        rclpy.try_shutdown()


def level(node: Any) -> int:
    return int.from_bytes(node.diagnose()[0], "little")


OK, ERROR = 0, 2


def test_a_status_that_cannot_be_published_stops_and_the_periods_go_on(
    node: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert level(node) == OK

    def broken(message: Any) -> None:
        raise RuntimeError("no network")

    with monkeypatch.context() as patch:
        patch.setattr(node._status, "publish", broken)
        until(lambda: node._execution.state == State.STOPPED, "the stop")
        assert "internal error" in node._execution.reason
        periods = node._pace.periods
        until(lambda: node._pace.periods > periods + 20, "periods")
        assert level(node) == ERROR
    told: list[Any] = []
    monkeypatch.setattr(node._status, "publish", told.append)
    until(lambda: told, "a status again")
    assert told[-1].state == State.STOPPED


def test_a_thread_that_is_dead_is_an_error(node: Any) -> None:
    assert node._loop.end(WAIT_S)
    assert level(node) == ERROR
    assert "control thread" in node.diagnose()[1]


def test_a_stalled_thread_lets_no_second_one_begin(node: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stalled, go_on = threading.Event(), threading.Event()

    def stall(message: Any) -> None:
        stalled.set()
        go_on.wait(WAIT_S)

    with monkeypatch.context() as patch:
        patch.setattr(node._status, "publish", stall)
        assert stalled.wait(WAIT_S)
        node.trigger_deactivate()
        node.trigger_activate()
        assert not node.active
        assert "has not ended" in node.problem
        assert [t.name for t in threading.enumerate()].count("control") == 1
    go_on.set()
    until(lambda: not node._loop.alive, "its end")
    node.trigger_activate()
    assert node.active
    assert [t.name for t in threading.enumerate()].count("control") == 1
    assert level(node) == OK


@pytest.mark.parametrize("broken", ["inputs", "subscribers"])
def test_what_cannot_be_read_stops_and_the_brakes_go_out(
    node: Any, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """Every period after the error computes and sends: here what the execution would brake with."""
    states: list[State] = []
    step = node._execution.step

    def watched(*arguments: Any) -> Any:
        states.append(node._execution.state)
        return step(*arguments)

    def fails(*arguments: Any) -> Any:
        raise RuntimeError("failed to take")

    stops: list[str] = []
    stop = node._execution.stop
    monkeypatch.setattr(node._execution, "stop", lambda reason: (stops.append(reason), stop(reason)))
    monkeypatch.setattr(node._execution, "step", watched)
    if broken == "inputs":
        monkeypatch.setattr(node._inputs, "read", fails)
    else:
        monkeypatch.setattr(node._output, "subscribers", fails)
    until(lambda: node._execution.state == State.STOPPED, "the stop")
    count = len(states)
    until(lambda: len(states) > count + 20, "periods")
    assert set(states[count + 1 :]) == {State.STOPPED}
    assert len(stops) == 1, "each stop would begin to brake anew"


class Command:
    def __init__(self, key: str) -> None:
        self.group = type("Group", (), {"key": key})


def test_one_topic_that_fails_keeps_nothing_from_the_others(
    node: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []

    def publish(command: Command, now_ns: int) -> None:
        if command.group.key == "arm":
            raise RuntimeError("no network")
        sent.append(command.group.key)

    monkeypatch.setattr(node._output, "publish", publish)
    node._send(node._execution, [Command("arm"), Command("gripper")], 0, time.monotonic_ns())
    assert sent == ["gripper"]
    assert node._execution.state == State.STOPPED


def test_commands_that_a_pause_made_old_are_not_sent(node: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process may be stopped between two groups: what was sent counts, what was not does not."""
    sent: list[str] = []
    unsent: list[list[str]] = []
    now_ns = time.monotonic_ns()
    node._loop.end(WAIT_S)
    monkeypatch.setattr(node._execution, "unsent", unsent.append)

    def publish(command: Command, _: int) -> None:
        sent.append(command.group.key)
        time.sleep(0.11)  # the lookahead is 0.2 s

    monkeypatch.setattr(node._output, "publish", publish)
    commands = [Command("arm"), Command("gripper")]
    node._send(node._execution, commands, 0, now_ns - 110_000_000)
    assert (sent, unsent) == ([], [["arm", "gripper"]])
    node._send(node._execution, commands, 0, time.monotonic_ns())
    assert (sent, unsent[1:]) == (["arm"], [["gripper"]])
