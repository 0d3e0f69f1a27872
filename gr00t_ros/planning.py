# SPDX-License-Identifier: Apache-2.0
"""From stored messages to chunks, again and again: the policy node's worker thread, without ROS.

The node's callbacks only store (:meth:`Planner.add`). The planner assembles the
newest observation, runs the policy and hands the chunk on. There is no queue: what arrives while the
network runs is either the newest when it is done, or counted as superseded. A frame is never used twice,
and when nothing fresh is there nothing is handed on, and why is told once. When the next inference begins is
``gr00t_ros.cadence``'s.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from gr00t_ros.cadence import Cadence
from gr00t_ros.causes import CauseLog, one_line, without_numbers
from gr00t_ros.chunk import Chunk, chunk_from_actions
from gr00t_ros.clockwatch import ClockWatch
from gr00t_ros.errors import ChunkRefused, MessageError, NotReady
from gr00t_ros.instruction import Instruction
from gr00t_ros.observation import Observation, ObservationBuilder
from gr00t_ros.progress import Progress, State
from gr00t_ros.robot import RobotConfig
from gr00t_ros.rtc import Guided, RealTimeChunking

# How often the planner looks by itself, when no message wakes it: half of the shortest sensible max_age.
IDLE_S = 0.05
# After activation discovery takes a moment; what is missing until then is no news.
GRACE_S = 1.0
# How long a frame waits for messages with its own stamp that are under way: several times what it takes to
# deliver an image on one machine. Sources that do not stamp alike are never waited for.
GATHER_S = 0.02
# How long ``stop`` waits for a running inference. The full network takes seconds on a CPU.
JOIN_TIMEOUT_S = 10.0


class Policy(Protocol):
    """What the planner needs of ``Gr00tPolicy``."""

    def get_action(
        self, observation: Mapping[str, Any], *, t_obs_ns: int, seed: int, guidance: Any = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Actions in the dataset's units and timing, see ``Gr00tPolicy.get_action``."""

    def catch_up(self) -> None:
        """Work that is better done between two chunks than before one, see ``Gr00tPolicy.catch_up``."""


class Planner:
    """Owns the worker thread of one activation; ``session`` is its number in every chunk."""

    def __init__(
        self,
        robot: RobotConfig,
        policy: Policy,
        builder: ObservationBuilder,
        instruction: Instruction,
        *,
        delta0: int,
        session: int,
        seed: int,
        cadence: Cadence,
        now_ns: Callable[[], int],
        publish: Callable[[Chunk], None],
        changed: Callable[[], None],
        warn: Callable[[str], Any],
        chunking: RealTimeChunking | None = None,
        grace_s: float = GRACE_S,
    ) -> None:
        """``publish`` takes each chunk, one at a time; ``changed`` is called after every change of state.
        ``chunking`` lets chunks join the plan under way, None leaves them to themselves."""
        self.progress = Progress()
        self.session = session
        self._robot, self._policy, self._builder, self._instruction = robot, policy, builder, instruction
        self._delta0, self._seed, self._cadence, self._now_ns = delta0, seed, cadence, now_ns
        self._publish, self._changed, self._chunking = publish, changed, chunking
        self._causes = CauseLog(warn)
        self._refusals = CauseLog(warn)
        self._pictures = CauseLog(warn)
        self._refused: dict[str, str] = {}  # topic -> why its newest message was refused
        self._topics = {path: source.topic for path, source in robot.sources()}
        self._stale_after_ns = round(max(camera.max_age for camera in robot.video.values()) * 1e9)
        self._clock = ClockWatch()
        self._clock_lock = threading.Lock()
        self._jumped = threading.Event()  # since the last cycle
        # Guards what is published: nothing that was begun before a plan was ended may follow the end.
        self._publishing = threading.Lock()
        self._sequence = 0
        self._ends = 0  # plans ended by ``end_plan``
        self._used_ns: int | None = None  # t_obs of the last observation used
        self._skipped_ns: int | None = None  # newest frame when a skip was last counted
        self._seen_ns: int | None = None
        # Stamps of the newest frames and when they came, monotonic. Replaced, never changed: two threads.
        self._arrivals: tuple[tuple[int, float], ...] = ()
        self._gathering = False
        self._gather_ns: int | None = None  # the frame that waits, or waited
        self._gather_until = 0.0
        self._superseded = 0
        self._tell_from = time.monotonic() + grace_s
        self._wake = threading.Event()
        self._running = True
        self._thread = threading.Thread(target=self._run, name="planner", daemon=True)

    # From the node's thread.

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> bool:
        """Ends the thread and, where there is a text to follow, the plan; whether the thread ended in time.
        A chunk still being computed is never published."""
        self._running = False
        if text := self._instruction.text:
            self.end_plan(text)
        self._wake.set()
        if self.busy:
            self._thread.join(JOIN_TIMEOUT_S)
        return not self.busy

    @property
    def busy(self) -> bool:
        """Whether the thread lives; after a ``stop`` in vain, until its inference has ended."""
        return self._thread.is_alive()

    def look_again(self) -> None:
        """There is something new to do: the thread sees it at once, however long the plan still lasts."""
        self._cadence.clear()
        self._wake.set()

    def end_plan(self, instruction: str) -> None:
        """Tells the executor to come to rest: a chunk without steps, for the task text that is over. A chunk
        that is being computed is never published."""
        with self._publishing:
            now_ns = self._now_ns()
            self._ends += 1
            self._publish(
                Chunk(
                    session=self.session,
                    sequence=self._sequence,
                    instruction=instruction,
                    t_obs_ns=now_ns,
                    start_ns=now_ns,
                    step_ns=self._robot.step_ns,
                    groups=(),
                )
            )
            self._sequence += 1
        self.look_again()

    def add(self, topic: str, message: Any) -> None:
        """Takes a message of any source; one that is refused is told about once."""
        now_ns = self._now()
        try:
            used = self._builder.add(topic, message, now_ns)
        except MessageError as error:
            text = one_line(error)
            self._refused[topic] = text
            self.progress.skipped["refused message"] += 1
            self._refusals.add(f"{topic} {without_numbers(text)}", f"message refused: {text}")
            return
        if used and self._refused.pop(topic, None) is not None:
            self._refusals.remove(f"{topic} ")
        newest = self._builder.newest_frame_ns
        if newest != self._seen_ns:
            self._seen_ns = newest
            self._superseded += 1
            if newest is not None:
                self._arrivals = (*self._arrivals[-7:], (newest, time.monotonic()))
            self._wake.set()
        elif self._gathering:
            self._wake.set()

    # Both threads.

    def _now(self) -> int:
        """ROS time, watched: a jump drops all that is stored.

        Asked with every message, not only once a cycle: over an inference of a second, a simulation at twice
        real time gains as much as a real jump. Both clocks are read inside the lock, so that the watch sees
        them in order.
        """
        with self._clock_lock:
            now_ns = self._now_ns()
            jump = self._clock.check(now_ns, time.monotonic_ns())
            if jump:
                self._builder.clear()
                self._jumped.set()
        if jump:
            self._refusals.add(f"clock {without_numbers(jump)}", f"{jump}: all stored messages are dropped")
            self._refusals.remove("clock ")
        return now_ns

    # The worker thread.

    def _run(self) -> None:
        while self._running:
            try:
                self._turn()
            except Exception as error:  # the thread must outlive whatever one observation does to it
                with contextlib.suppress(Exception):  # and whatever happens while that is told
                    self._fault("planning failed", error)
                self._wake.wait(IDLE_S)

    def _turn(self) -> None:
        """One round of the thread: a cycle and a wait."""
        self._wake.clear()
        self._cycle()
        longest = GATHER_S if self._gathering else IDLE_S
        self._wake.wait(min(longest, self._cadence.wait_s() or longest))

    def _cycle(self) -> None:
        """One attempt at a chunk."""
        now_ns = self._now()
        if self._jumped.is_set():
            self._jumped.clear()
            self._used_ns = self._skipped_ns = None
        ends = self._ends  # read before the text: see end_plan
        text, problem, idle = self._instruction.current
        if idle:
            self._superseded, self._gathering = 0, False
            self._causes.update({})
            self._enter(State.IDLE, idle)
            return
        newest_ns = self._builder.newest_frame_ns
        fresh = newest_ns is not None and now_ns - newest_ns <= self._stale_after_ns
        if fresh and (newest_ns == self._used_ns or not self._cadence.is_due(now_ns)):
            return  # a newer frame will come, or this one will grow stale; or it is not yet time
        self._gathering = self._gather(newest_ns)
        if self._gathering:
            return
        try:
            observation = self._builder.assemble(now_ns, text)
        except NotReady as error:
            self._not_ready(error, problem, newest_ns)
            return
        except MessageError as error:
            self.progress.skipped["damaged frame"] += 1
            text = f"frame refused: {one_line(error)}"
            self._refusals.add(f"frame {without_numbers(text)}", text)
            self._enter(State.WAITING, text)
            return
        if self._used_ns is not None and observation.t_obs_ns <= self._used_ns:
            return
        self._refusals.remove("frame ")
        self._causes.update({})
        self._used_ns = observation.t_obs_ns
        arrived = dict(self._arrivals).get(observation.t_obs_ns)
        if arrived is not None:
            self.progress.waiting_s = time.monotonic() - arrived
        self._count_superseded()
        self._plan(observation, ends)

    def _count_superseded(self) -> None:
        """All frames since the last one that was looked at, but the newest."""
        superseded, self._superseded = self._superseded - 1, 0
        if superseded > 0:
            self.progress.skipped["superseded by a newer frame"] += superseded

    def _gather(self, newest_ns: int | None) -> bool:
        """Whether to wait a little for what belongs to the newest frame."""
        if newest_ns is None or not self._builder.more_is_due:
            return False
        now = time.monotonic()
        if newest_ns != self._gather_ns:
            self._gather_ns, self._gather_until = newest_ns, now + GATHER_S
        return now < self._gather_until

    def _plan(self, observation: Observation, ends: int) -> None:
        """Runs the network on an observation and hands the chunk on, unless a plan was ended since the
        ``ends`` before."""
        began = self.progress.busy_since_s = time.monotonic()
        self._cadence.begin()
        try:
            guided = self._guide(observation)
            actions, info = self._policy.get_action(
                observation.data,
                t_obs_ns=observation.t_obs_ns,
                seed=self._seed,
                guidance=None if guided is None else guided.guidance,
            )
            for key, values in actions.items():
                if not np.isfinite(values).all():
                    raise ChunkRefused(f"the network's actions for {key!r} are not finite")
            chunk = chunk_from_actions(
                self._robot,
                actions,
                t_obs_ns=observation.t_obs_ns,
                delta0=self._delta0,
                session=self.session,
                sequence=self._sequence,
                instruction=observation.instruction,
                inference_ns=round((time.monotonic() - began) * 1e9),
            )
            if guided is not None:
                chunk = guided.join(chunk)
        except Exception as error:
            self._fault("inference failed", error)
            return
        finally:
            self.progress.busy_since_s = None
        with self._publishing:
            if not self._running:
                return
            # Without a text the end of the plan is already on its way.
            if ends != self._ends or not self._instruction.text:
                self.progress.skipped["the plan was ended"] += 1
                return
            self._publish(chunk)
            self._sequence += 1
            self._cadence.published(chunk)
        progress, timing = self.progress, info["timing"]
        progress.processing_s = timing["processing_s"]
        progress.inference_s = timing["inference_s"]
        progress.decoding_s = timing["decoding_s"]
        progress.total_s = time.monotonic() - began
        progress.observation_age_s = (self._now() - observation.t_obs_ns) / 1e9
        progress.chunks += 1
        if not self._jumped.is_set():  # else it is no time that has passed
            self._cadence.measure(progress.observation_age_s)
            if self._chunking is not None:
                self._chunking.measure(progress.observation_age_s)
        self._refusals.remove("fault ")
        self._enter(State.RUNNING, self._frozen())
        self._catch_up()

    def _frozen(self) -> str:
        """What is to be told about cameras that show the same picture on and on, while chunks go on."""
        causes = [cause for cause in self._builder.frozen if not self._builder.stops(cause)]
        self._pictures.update({cause.source: cause.text for cause in causes})
        return "; ".join(cause.text for cause in causes)

    def _guide(self, observation: Observation) -> Guided | None:
        """How the chunk joins the plan under way. Without one, or when that fails, it stands for itself."""
        try:
            chunking = self._chunking
            guided = None if chunking is None else chunking.guide(observation, self._now_ns())
        except Exception as error:  # a chunk that does not join is better than none
            self._refusals.add("guidance", f"the chunk does not join the plan under way: {one_line(error)}")
            return None
        self._refusals.remove("guidance")
        return guided

    def _catch_up(self) -> None:
        """Lets the engine prepare for what it met for the first time, now that the chunk is out."""
        try:
            self._policy.catch_up()
        except Exception as error:  # chunks go on without it
            self._refusals.add("engine", f"the engine could not prepare for new shapes: {one_line(error)}")

    def _not_ready(self, error: NotReady, instruction_problem: str, newest_ns: int | None) -> None:
        """Says why there is no observation: in the status always, in the log once a cause."""
        told: dict[str, str] = {}
        reasons = []
        frames_stale = any(c.kind == NotReady.STALE and c.source.startswith("video.") for c in error.causes)
        for cause in error.causes:
            if frames_stale and cause.kind != NotReady.NO_MESSAGE and cause.source.startswith("state."):
                continue  # states are measured against the frame: against an old one they say nothing
            key, text = f"{cause.kind} {cause.source}", cause.text
            if cause.kind == NotReady.INSTRUCTION:
                text = instruction_problem or text
                key = text  # a second unusable text is news
            refusal = self._refused.get(self._topics.get(cause.source, ""))
            reasons.append(refusal or text)
            # A source that runs dry because its messages are refused has been told about by the refusal.
            if refusal is None:
                told[key] = text
        if newest_ns is not None and newest_ns != self._skipped_ns:
            self._skipped_ns = newest_ns
            self._count_superseded()
            self.progress.skipped.update(f"{cause.kind} {cause.source}" for cause in error.causes)
        if time.monotonic() >= self._tell_from:
            self._causes.update(told, "no chunks: ")
        self._enter(State.WAITING, "; ".join(dict.fromkeys(reasons)))

    def _fault(self, what: str, error: Exception) -> None:
        text = f"{what}: {type(error).__name__}: {one_line(error)}"
        self.progress.skipped[what] += 1
        self.progress.faults += 1
        self._enter(State.FAULT, text)
        self._refusals.add(f"fault {without_numbers(text)}", text)

    def _enter(self, state: State, reason: str) -> None:
        progress = self.progress
        news = state != progress.state or without_numbers(reason) != without_numbers(progress.reason)
        progress.state, progress.reason = state, reason
        if news and self._running:
            try:
                self._changed()
            except Exception as error:  # the status comes again by itself; planning does not depend on it
                self._refusals.add("status", f"the change of state could not be told: {one_line(error)}")
            else:
                self._refusals.remove("status")
