# SPDX-License-Identifier: Apache-2.0
"""Real nodes in real processes, and a ROS participant inside the test that talks to them.

Every test that needs ROS uses these three: ``claim_domain`` keeps parallel test runs on one machine apart,
``NodeProcess`` runs a node module the way a robot does and makes sure that it is gone afterwards,
``RosGraph`` publishes, subscribes and waits. The fixtures ``domain``, ``processes`` and ``graph`` in
``test/gr00t_ros/nodes/conftest.py`` wrap them.

Usage::

    def test_something(processes, graph):
        node = processes("gr00t_ros.nodes.so101_sim", "--ros-args", "-p", "camera_rate:=5.0")
        node.wait_for("ready")
        joints = graph.collect("/joint_states", JointState)
        graph.wait_until(lambda: len(joints) > 10, "10 joint states")
        assert node.stop() == 0, node.output
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gr00t_ros.system import Program

# Long, because CI machines are slow and shared; nothing waits this long when it works.
TIMEOUT_S = 60.0
# After this long a service is asked again: much longer than any answer takes that is on its way.
ASK_AGAIN_S = 10.0
REPO = Path(__file__).resolve().parents[2]


def claim_domain() -> tuple[int, IO[str]]:
    """A ROS domain id that no other test process on this machine uses, and the lock that keeps it (close to
    release).

    Ids stay in 1..100: higher ones reach into the ephemeral ports on Linux.
    """
    folder = Path(tempfile.gettempdir()) / f"gr00t_ros_domains_{os.getuid()}"
    folder.mkdir(exist_ok=True)
    start = os.getpid() % 100
    for i in range(100):
        domain = 1 + (start + i) % 100
        lock = (folder / str(domain)).open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            continue
        return domain, lock
    raise RuntimeError("all 100 ROS domain ids are in use by running tests")


def ros_environment(domain: int) -> dict[str, str]:
    """The variables that keep a participant on this machine and in ``domain``."""
    return {"ROS_DOMAIN_ID": str(domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}


class NodeProcess:
    """One child process with its output collected, line by line, stdout and stderr together."""

    def __init__(self, command: Sequence[str], env: dict[str, str]) -> None:
        self.command = list(command)
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._closed = False
        self.process = subprocess.Popen(
            self.command,
            env=env,
            cwd=REPO,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            bufsize=1,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, pattern: str, timeout: float = TIMEOUT_S) -> re.Match[str]:
        """The first match of ``pattern`` in any line, seen already or still to come."""
        expression, seen, end = re.compile(pattern), 0, time.monotonic() + timeout
        with self._changed:
            while True:
                while seen < len(self.lines):
                    match = expression.search(self.lines[seen])
                    if match:
                        return match
                    seen += 1
                left = end - time.monotonic()
                if self._closed or left <= 0:
                    why = "the process ended" if self._closed else f"{timeout} s passed"
                    raise AssertionError(f"no line matched {pattern!r} before {why}; output:\n{self.output}")
                self._changed.wait(left)

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, timeout: float = TIMEOUT_S) -> int:
        """The exit code; all output has been collected when this returns."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"{self.command} still runs after {timeout} s; output:\n{self.output}"
            ) from None
        self._reader.join(5.0)
        return code

    def stop(self, number: int = signal.SIGINT, timeout: float = TIMEOUT_S) -> int:
        """Ends the process as a person (SIGINT) or launch (SIGTERM) does, and returns its exit code."""
        if self.process.poll() is None:
            self.send(number)
        return self.wait(timeout)

    def kill(self) -> None:
        """No process of the child's session is left, whatever state it is in."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join(5.0)


class ProcessStarter:
    """Starts node modules in one ROS domain; kills what is left at the end."""

    def __init__(self, domain: int) -> None:
        self.domain = domain
        self.started: list[NodeProcess] = []

    def __call__(self, module: str, *arguments: str, env: dict[str, str] | None = None) -> NodeProcess:
        """``python -m module arguments...`` with this interpreter and this interpreter's import path."""
        return self._start([sys.executable, "-m", module, *arguments], env)

    def program(self, program: Program) -> NodeProcess:
        """A program of ``gr00t_ros.system``, with the command line that the demo uses."""
        return self._start(program.command(), dict(program.environment))

    def _start(self, command: Sequence[str], env: dict[str, str] | None) -> NodeProcess:
        full = {**os.environ, **ros_environment(self.domain)}
        full.update(
            PYTHONPATH=os.pathsep.join(p for p in (*sys.path, str(REPO)) if p),
            PYTHONUNBUFFERED="1",
            OMP_NUM_THREADS="1",
            **(env or {}),
        )
        node = NodeProcess(command, full)
        self.started.append(node)
        return node

    def close(self) -> None:
        for node in self.started:
            node.kill()


class Collector(list[Any]):
    """Messages of one topic, oldest first, at most ``maxlen``; ``received_ns`` is monotonic time.

    A list, since a test may walk through it while messages still come in.
    """

    def __init__(self, maxlen: int) -> None:
        super().__init__()
        self.maxlen = maxlen
        self.received_ns: list[int] = []

    def take(self, message: Any) -> None:
        """One more message, now."""
        self.received_ns.append(time.monotonic_ns())
        self.append(message)
        if len(self) > self.maxlen:
            del self[0], self.received_ns[0]


class RosGraph:
    """A node inside the test, spun on a thread of its own. Use as a context manager."""

    def __init__(self, domain: int, name: str = "test_graph") -> None:
        os.environ.update(ros_environment(domain))
        import rclpy
        from rclpy.executors import SingleThreadedExecutor

        self._context = rclpy.Context()
        rclpy.init(args=[], context=self._context, domain_id=domain)
        self.node = rclpy.create_node(name, context=self._context)
        self._clients: dict[str, Any] = {}
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._running = True
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        while self._running:
            self._executor.spin_once(timeout_sec=0.05)

    def __enter__(self) -> RosGraph:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._running = False
        self._thread.join(10.0)
        self._executor.shutdown(1.0)
        self.node.destroy_node()
        self._context.try_shutdown()

    def collect(self, topic: str, kind: Any, qos: Any = None, maxlen: int = 10_000) -> Collector:
        """Subscribes; sensor data QoS by default, which hears reliable and best-effort publishers alike."""
        from rclpy.qos import qos_profile_sensor_data

        collector = Collector(maxlen)
        self.node.create_subscription(kind, topic, collector.take, qos or qos_profile_sensor_data)
        return collector

    def publisher(self, topic: str, kind: Any, qos: Any = 10, subscribers: int = 1) -> Any:
        """A publisher that has already found ``subscribers`` listeners."""
        publisher = self.node.create_publisher(kind, topic, qos)
        self.wait_until(
            lambda: publisher.get_subscription_count() >= subscribers, f"{subscribers} subscribers of {topic}"
        )
        return publisher

    def call(
        self,
        service: str,
        kind: Any,
        request: Any = None,
        timeout: float = TIMEOUT_S,
        again_s: float | None = ASK_AGAIN_S,
    ) -> Any:
        """The response of one service call.

        An answer is lost when the server has not discovered this client yet: rmw_fastrtps waits 0.1 s for
        that, which a loaded machine exceeds. So it is asked again every ``again_s``; None asks once, for what
        must not be done twice.
        """
        client = self.client(service, kind)
        assert client.wait_for_service(timeout), f"service {service} did not appear within {timeout} s"
        end = time.monotonic() + timeout
        while True:
            future = client.call_async(request if request is not None else kind.Request())
            left_s = end - time.monotonic()
            wait_s = left_s if again_s is None else min(again_s, left_s)
            try:
                self.wait_until(future.done, f"an answer of {service}", wait_s)
                return future.result()
            except AssertionError:
                client.remove_pending_request(future)
                if wait_s == left_s:
                    raise

    def client(self, service: str, kind: Any) -> Any:
        """The client of a service, made once: discovery takes its time anew for each."""
        if service not in self._clients:
            self._clients[service] = self.node.create_client(kind, service)
        return self._clients[service]

    def now_ns(self) -> int:
        return int(self.node.get_clock().now().nanoseconds)

    @staticmethod
    def wait_until(condition: Callable[[], Any], what: str, timeout: float = TIMEOUT_S) -> None:
        """Returns as soon as ``condition()`` is true; an AssertionError that names ``what`` after ``timeout``
        s.
        """
        end = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(f"waited {timeout} s for {what}")
            time.sleep(0.01)
