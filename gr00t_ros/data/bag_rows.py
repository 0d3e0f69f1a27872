# SPDX-License-Identifier: Apache-2.0
"""The rows of one recording: what the live node would have seen at each point of a regular grid.

Messages go through the very ``ObservationBuilder`` of the policy node, ordered by their stamps. Row k of an
episode belongs to start + k / fps. Its t_obs is the stamp of the newest camera frame at or before that time;
every other source is the latest at or before t_obs; each has its ``max_age``. A row for which something is
missing is left out and counted by cause. Rows that follow each other in a dataset are taken for steps that
follow each other in time, so an episode ends where a row is left out, and what comes after it is another
part.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gr00t_ros.data.bag_actions import Action, CommandActions, Commands, Following, future_state
from gr00t_ros.data.bag_episodes import (
    AUTO,
    INSTRUCTION,
    MARKS,
    Episode,
    Marks,
    bag_name,
    chosen_rule,
    read_mark,
    recorded_episode,
)
from gr00t_ros.data.bag_order import SetBack, Timed, by_time
from gr00t_ros.data.bag_times import MessageTimes
from gr00t_ros.data.bag_topics import in_bag, needed_topics
from gr00t_ros.data.bags import Bag
from gr00t_ros.data.bags_storage import Stored
from gr00t_ros.data.rows import Row
from gr00t_ros.errors import Cause, MessageError, NotReady
from gr00t_ros.observation import Observation, ObservationBuilder
from gr00t_ros.recorded_time import COMMANDS, window_ns
from gr00t_ros.recording.names import EVENT_TYPE
from gr00t_ros.robot import RobotConfig
from gr00t_ros.robot_types import JOINT_STATE
from gr00t_ros.sample_buffer import FUTURE_TOLERANCE_NS

# How far after a camera frame the grid is laid, in steps. On the frames themselves a jitter of microseconds
# would decide which of two frames a row sees. An eighth keeps every row of the usual pairs of rates (30 Hz
# cameras with 30, 20, 15 or 10 rows a second, 25 with 20) at least 3 ms from the next frame.
PHASE = 1 / 8
# How far beyond the last frame rows are made, in steps: a frame that is a little early still gets its row.
_TAIL = 1 / 2
_NS = 1_000_000_000
# Frames that cannot be decoded, one behind the other, before a row is given up.
_MAX_DAMAGED = 16


@dataclass(frozen=True)
class Part:
    """An episode, or what a gap left of one, begins with the next row. ``part`` counts from 0 in its episode,
    ``because`` says why it does not go on from the part before."""

    episode: Episode
    part: int
    because: str


@dataclass(frozen=True)
class _Keys:
    modality_keys: tuple[str, ...]
    delta_indices: tuple[int, ...] = (0,)


class BagRows:
    """Iterates over ``Part`` and ``Row`` of one open bag, once.

    ``drops`` counts rows that were left out by their first cause, ``refused`` messages that could not be
    used; ``texts`` has a sentence for each. ``notes`` are other things to know, ``divided`` counts where
    joints did not follow. ``topics`` are those that are read, ``at_ns`` is how far; ``heartbeat`` is called
    at every message.
    """

    def __init__(
        self, bag: Bag, robot: RobotConfig, *, fps: float, task: str | None = None, episodes: str = AUTO
    ) -> None:
        """``task`` takes the place of every instruction; ``episodes`` is one of ``bag_episodes.RULES``.

        Raises:
            DatasetError: the bag lacks a topic, or has another type than the robot's YAML says.
            RobotConfigError: actions from future states, where a state is missing.
        """
        robot = in_bag(robot, bag)
        self._bag, self._robot, self._task = bag, robot, task
        self._step = _NS / fps
        self._marks = Marks.of(bag)
        self.rule = chosen_rule(episodes, self._marks, bag)
        self._recorded = recorded_episode(bag)
        self._next_state = None
        self._actions: CommandActions | None = None
        if robot.recording.action_source == COMMANDS:
            self._actions = CommandActions(robot, round(self._step), self._measured)
        else:
            self._next_state = future_state(robot)
        self._following = Following(robot) if robot.recording.max_following_error else None
        self._commanded: dict[str, Action] = {}  # by the row before
        modality = {
            "video": _Keys(tuple(robot.video)),
            "state": _Keys(tuple(robot.state)),
            "language": _Keys(("task",)),
        }
        self._builder = ObservationBuilder(robot, modality)
        # How long (ns) a message of each topic with joints counts, and the newest with its time.
        states = [state for state in robot.state.values() if state.type == JOINT_STATE]
        self._joint_ages = {state.topic: round(state.max_age * _NS) for state in states}
        self._joints: dict[str, tuple[int, Any]] = {}
        self._now_ns = 0  # time of the message under way
        self._cameras = {source.topic for source in robot.video.values()}
        self._commands: Mapping[str, Commands] = self._actions.by_topic if self._actions else {}
        self._times = MessageTimes(bag, robot, self._commands, self._feed)
        self._instruction_topic = robot.instruction.topic
        texts = [task, robot.instruction.default, *(episode.instruction for episode in self._marks.episodes)]
        texts.append(self._recorded.instruction if self._recorded is not None else "")
        told = any(text and text.strip() for text in texts)
        self.topics = needed_topics(bag, robot, commands=self._actions is not None, told=told)
        self._window_ns = window_ns(source.max_age for _, source in robot.sources())
        self.drops: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.texts: dict[str, str] = {}
        self.notes: list[str] = []
        self.divided = 0
        self.at_ns = bag.start_ns
        self.heartbeat: Callable[[], None] = lambda: None
        # The grid: row _k is due at _start + _k steps; None where no episode runs or no frame has come.
        self._start: int | None = None
        self._k = 0
        self._frame_ns = 0  # stamp of the newest frame
        self._episode: Episode | None = None
        self._begun = self._changes = 0  # episodes, and those that a new instruction began
        self._begin_ns = 0
        self._told = robot.instruction.default.strip()
        self._heard = False
        # The part: the row before, by its number on the grid, and how many parts the episode had.
        self._part, self._last_k, self._because = 0, -2, ""
        self._sizes: dict[str, tuple[int, ...]] = {}
        self._pending: tuple[int, Observation] | None = None

    def __iter__(self) -> Iterator[Part | Row]:
        if self.rule != MARKS:
            self._begin(self._whole(), 0)
        for event in by_time(self._arrivals(), self._window_ns):
            if isinstance(event, SetBack):
                yield from self._rows_until(self._frame_ns + round(_TAIL * self._step))
                self._set_back(event.by_ns)
                continue
            yield from self._rows_until(event.time_ns)
            self._take(event)
        yield from self._rows_until(self._frame_ns + round(_TAIL * self._step))
        if self.rule == MARKS and self._episode is not None:
            self.notes.append(f"{self._episode.name} has no STOP: it goes on to the end of the recording")
        self.notes += self._times.notes
        if self.divided:
            self.notes.append(f"divided {self.divided} times where a joint did not follow its command")
        self._close()

    # ---- messages ------------------------------------------------------------------------------

    def _arrivals(self) -> Iterator[Timed[Stored]]:
        for stored in self._bag.stored(self.topics):
            self.at_ns = stored.receive_ns
            self.heartbeat()
            if self._task is not None and stored.topic == self._instruction_topic:
                continue
            try:
                time = self._times.of(stored)
            except MessageError as error:
                self._refuse(stored.topic, error)
                continue
            if time > stored.receive_ns + FUTURE_TOLERANCE_NS:
                # A trajectory that waits for its time must not hold the chunk that it is a view of.
                stored = stored._replace(data=memoryview(bytes(stored.data)))
            yield Timed(time, stored.receive_ns, stored)

    def _feed(self, stored: Stored) -> None:
        message = self._bag.types.decode(stored.type, stored.data, stored.topic)
        if self._builder.add(stored.topic, message, stored.receive_ns) and stored.topic in self._joint_ages:
            self._joints[stored.topic] = self._now_ns, message

    def _measured(self) -> dict[str, float]:
        """Where the joints were last, in SI by name, as far as they were measured lately."""
        found: dict[str, float] = {}
        for topic, (time_ns, message) in self._joints.items():
            if self._now_ns - time_ns <= self._joint_ages[topic] and len(message.position) == len(
                message.name
            ):
                found.update(zip(message.name, map(float, message.position), strict=True))
        return {joint: value for joint, value in found.items() if math.isfinite(value)}

    def _take(self, event: Timed[Stored]) -> None:
        stored, topic = event.item, event.item.topic
        self._now_ns = event.time_ns
        if stored.type == EVENT_TYPE:
            if self.rule == MARKS:
                self._mark(stored)
            return
        try:
            if topic == self._instruction_topic:
                text = self._bag.types.decode(stored.type, stored.data, topic).data
                self._instruction(str(text).strip(), event.time_ns)
            elif topic in self._commands:
                message = self._bag.types.decode(stored.type, stored.data, topic)
                self._commands[topic].add(message, event.time_ns)
            else:
                self._feed(stored)
        except MessageError as error:
            self._refuse(topic, error)
            return
        if topic in self._cameras:
            self._frame_ns = max(self._frame_ns, event.time_ns)
            if self._start is None and self._episode is not None and event.time_ns >= self._begin_ns:
                self._start, self._k = event.time_ns + round(PHASE * self._step), 0

    def _refuse(self, topic: str, error: MessageError) -> None:
        self.refused[topic] += 1
        self.texts.setdefault(f"refused {topic}", str(error))

    def _set_back(self, by_ns: int) -> None:
        because = f"the clock was set back by {by_ns / _NS:.1f} s"
        self._end_part(because)
        self.notes.append(because)
        self._builder.clear()
        self._joints.clear()
        if self._actions is not None:
            self._actions.clear()
        self._start, self._frame_ns, self._begin_ns = None, 0, 0

    # ---- episodes ------------------------------------------------------------------------------

    @property
    def discarded(self) -> int:
        """Episodes that the recorder's marks throw away."""
        return sum(episode.discarded for episode in self._marks.episodes) if self.rule == MARKS else 0

    def _whole(self) -> Episode:
        """The one episode of a bag without marks, or the first of those that instructions make."""
        return self._recorded or Episode(bag_name(self._bag))

    def _begin(self, episode: Episode, time_ns: int) -> None:
        self._episode, self._begin_ns, self._start = episode, time_ns, None
        self._begun += 1
        self._part, self._last_k, self._because = 0, -2, ""

    def _close(self) -> None:
        self._end_part("")
        self._episode = self._start = None
        self._part = 0

    def _mark(self, stored: Stored) -> None:
        mark = read_mark(self._bag.types, stored)
        if mark.kind == "START":
            if self._episode is not None:
                self.notes.append(f"{self._episode.name} has no STOP: it ends where {mark.episode} begins")
            self._close()
            episode = self._marks.episodes[self._begun]
            if self._recorded is not None and len(self._marks.episodes) == 1:
                episode = Episode(
                    episode.name,
                    self._recorded.instruction or episode.instruction,
                    episode.corrected or self._recorded.corrected,
                    self._recorded.label or episode.label,
                    episode.discarded,
                )
            if episode.instruction:
                self._told, self._heard = episode.instruction, True
            self._begin(episode, mark.time_ns)
        elif (
            mark.kind in ("STOP", "DISCARD")
            and self._episode is not None
            and mark.episode in ("", self._episode.name)
        ):
            self._close()

    def _instruction(self, text: str, time_ns: int) -> None:
        """An empty text takes the instruction away, as it does live: there are no rows until the next."""
        before, self._told, self._heard = self._told, text, True
        if text == before or self.rule != INSTRUCTION or self._task is not None:
            return
        # An episode without a row yet is still the same one: its instruction is only heard now.
        self._changes += self._part > 0 or self._last_k >= 0
        self._close()
        if text:
            episode = self._whole()
            if self._changes:
                episode = Episode(f"{bag_name(self._bag)} {self._changes + 1}", label=episode.label)
            self._begin(episode, time_ns)

    @property
    def _text(self) -> str:
        """What the robot is told now."""
        if self._task is not None:
            return self._task
        if self._episode is not None and self._episode.corrected:
            return self._episode.instruction
        if not self._heard and self._recorded is not None and self._recorded.instruction:
            return self._recorded.instruction
        return self._told

    # ---- rows ----------------------------------------------------------------------------------

    def _rows_until(self, end_ns: int) -> Iterator[Part | Row]:
        """The rows that are due before ``end_ns``. Nothing has come in the meantime, so after one that is
        left out all others are left out for the same reason."""
        if self._start is None or self._episode is None:
            return
        if self._episode.discarded:  # as if there were none: the grid goes on, nothing is missing
            self._k = max(self._k, math.ceil((end_ns - self._start) / self._step))
            return
        while (due_ns := self._start + round(self._k * self._step)) < end_ns:
            cause = yield from self._row(due_ns)
            self._k += 1
            if cause is not None:
                more = max(0, math.ceil((end_ns - self._start) / self._step) - self._k)
                self._drop(cause, 1 + more)
                self._k += more

    def _row(self, due_ns: int) -> Generator[Part | Row, None, Cause | None]:
        """One row, or with future states the one before it; returns the cause when it is left out."""
        assert self._episode is not None
        observation = self._observation(due_ns)
        if isinstance(observation, Cause):
            return observation
        actions: dict[str, Action] = {}
        if self._actions is not None:
            actions, causes = self._actions.at(observation.t_obs_ns)
            if causes:
                return causes[0]
        sizes = {key: frames.shape[2:] for key, frames in observation.data["video"].items()}
        if self._k != self._last_k + 1:
            self._end_part(self._gap())
        elif sizes != self._sizes:
            self._end_part(_resized(self._sizes, sizes))
            self.notes.append(self._because)
        state = {key: values[0, 0] for key, values in observation.data["state"].items()}
        if self._following is not None:
            if self._last_k >= 0 and (lost := self._following.lost(self._commanded, state)):
                self._end_part(lost)
                self.divided += 1
            self._commanded = actions
        if self._last_k < 0:
            yield Part(self._episode, self._part, self._because)
        self._last_k, self._sizes = self._k, sizes
        if self._next_state is None:
            yield self._made(due_ns, observation, actions)
        else:
            if self._pending is not None:
                yield self._made(*self._pending, self._next_state(state))
            self._pending = (due_ns, observation)
        return None

    def _observation(self, due_ns: int) -> Observation | Cause:
        for _ in range(_MAX_DAMAGED):
            try:
                return self._builder.assemble(due_ns, self._text)
            except NotReady as error:
                return error.causes[0]
            except MessageError as error:  # a frame that cannot be decoded, and is forgotten now
                self._refuse(str(error).partition(":")[0], error)
        return Cause("damaged", "video", "one frame after the other cannot be decoded")

    def _made(self, due_ns: int, observation: Observation, actions: Mapping[str, Any]) -> Row:
        data = observation.data
        return Row(
            due_ns,
            observation.t_obs_ns,
            {key: frames[0, 0] for key, frames in data["video"].items()},
            {key: np.asarray(values[0, 0], np.float32) for key, values in data["state"].items()},
            actions,
            observation.instruction,
        )

    def _end_part(self, because: str) -> None:
        """The next row begins another part. The last row of a part has no state one step later."""
        if self._pending is not None:
            self._drop(Cause("no_next_state", "action", "the last row has no state one step later"), 1)
            self._pending = None
        if self._last_k >= 0:
            self._part, self._because = self._part + 1, because
        self._last_k = -2

    def _gap(self) -> str:
        missing = self._k - self._last_k - 1
        return f"{missing} rows ({missing * self._step / _NS:.2f} s) are missing before it"

    def _drop(self, cause: Cause, rows: int) -> None:
        name = f"{cause.source} {cause.kind}"
        self.drops[name] += rows
        self.texts.setdefault(name, cause.text)


def _resized(before: Mapping[str, tuple[int, ...]], after: Mapping[str, tuple[int, ...]]) -> str:
    texts = [
        f"video.{key} changes from {old[1]}x{old[0]} to {after[key][1]}x{after[key][0]} pixels"
        for key, old in before.items()
        if old != after[key]
    ]
    return ", ".join(texts)
