# SPDX-License-Identifier: Apache-2.0
"""Messages to observations: the one piece of code between topics and the network, live and from bags.

The policy node feeds an ``ObservationBuilder`` from its subscriptions and assembles on its worker thread; the
bag converter feeds it in the order of a recording. Neither wall time nor ROS is involved: every time is an
argument.

The rules of time, from the design. t_obs is the stamp of the newest camera frame. Every other source gives
its latest message with a stamp at or before t_obs, no older than its ``max_age`` against t_obs; t_obs itself
may be no older than the camera's ``max_age`` against now. A past index -k (``delta_indices``) means the
latest message at or before t_obs - k / step_rate, by the same rule. A zero stamp and a stamp from the future
are refused.
"""

from __future__ import annotations

import bisect
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gr00t_ros.errors import Cause, MessageError, NotReady, RobotConfigError
from gr00t_ros.images import check_image, decode_image
from gr00t_ros.robot import RobotConfig
from gr00t_ros.robot_types import HEADER, StateSource, VideoSource
from gr00t_ros.state_reading import Reader, reader_for, stamp_ns
from gr00t_ros.units import rates_to_dataset, to_dataset

# A stamp may be this far ahead of the time of its arrival: clocks of one robot, kept by PTP or chrony, agree
# better.
FUTURE_TOLERANCE_NS = 20_000_000
# Stamps of a 30 Hz camera are rounded to whole nanoseconds; a past frame must not be missed by one of them.
HISTORY_ROUNDING_NS = 1_000
# A source keeps this much more than its rules can ask for, so that a slow worker still finds what it needs.
SPARE_NS = 500_000_000
# Bounds on one source, reached only by a publisher far beyond any camera's or controller's rate.
MAX_SAMPLES = 4096
MAX_BYTES = 512 * 1024 * 1024
# Task texts of public robot datasets stay under 300 characters; each token beyond costs time in every
# inference.
MAX_INSTRUCTION_CHARS = 1000

_WORD = re.compile(r"\w")


@dataclass(frozen=True)
class Observation:
    """What the network sees at ``t_obs_ns``, in the reference policy's form with a batch of one.

    ``data``: ``{"video": {key: uint8 [1, T, H, W, 3]}, "state": {key: float32 [1, T, D], dataset units},
    "language": {key: [[str]]}}``. ``stamps`` holds, by key path (``video.front``), the stamp of the newest
    message used. Images may be views of message memory: do not write to them.
    """

    t_obs_ns: int
    data: dict[str, dict[str, Any]]
    stamps: dict[str, int]
    instruction: str


def check_instruction(text: str) -> str:
    """The instruction without surrounding blanks. Raises MessageError when it is empty or far too long."""
    stripped = text.strip()
    if not _WORD.search(stripped):
        raise MessageError(f"instruction: found {stripped!r}, expected a text that says what to do")
    if len(stripped) > MAX_INSTRUCTION_CHARS:
        raise MessageError(
            f"instruction: found {len(stripped)} characters ({stripped[:40]!r}...), expected at most "
            f"{MAX_INSTRUCTION_CHARS}"
        )
    return stripped


class ObservationBuilder:
    """Keeps the recent messages of every source that a checkpoint uses, and assembles observations from them.

    ``modality`` is the checkpoint's configuration for the robot's embodiment tag: ``video``, ``state`` and
    ``language``, each with ``modality_keys`` and ``delta_indices``. ``add`` and ``assemble`` may run on
    different threads. Messages are kept as they came and must not be changed afterwards. Memory is bounded,
    whatever arrives.
    """

    def __init__(self, robot: RobotConfig, modality: Mapping[str, Any]) -> None:
        self._robot = robot
        self._lock = threading.Lock()
        video, video_deltas = _modality(modality, "video")
        state, state_deltas = _modality(modality, "state")
        self._language, _ = _modality(modality, "language")
        if not video:
            raise RobotConfigError(
                "the checkpoint uses no camera, expected one or more: time is taken from frames"
            )
        for kind, keys, have in (("video", video, robot.video), ("state", state, robot.state)):
            for key in keys:
                if key not in have:
                    raise RobotConfigError(f"robot.{kind}.{key}: missing, the checkpoint needs it")
        # Other sources may be asked for a time as old as the oldest acceptable frame.
        oldest_frame = max(robot.video[key].max_age for key in video)
        self._cameras = [
            _Buffer(robot.video[key], f"video.{key}", self._offsets(video_deltas), oldest_frame)
            for key in video
        ]
        self._states = [
            _StateBuffer(robot.state[key], f"state.{key}", self._offsets(state_deltas), oldest_frame)
            for key in state
        ]
        self._by_topic: dict[str, list[_Buffer]] = {}
        for buffer in (*self._cameras, *self._states):
            self._by_topic.setdefault(buffer.source.topic, []).append(buffer)

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics that feed this builder: those of the robot that the checkpoint uses."""
        return tuple(self._by_topic)

    @property
    def newest_frame_ns(self) -> int | None:
        """Stamp of the newest camera frame, which is the t_obs of an observation assembled now."""
        with self._lock:
            newest = [buffer.stamps[-1] for buffer in self._cameras if buffer.stamps]
        return max(newest, default=None)

    def add(self, topic: str, msg: Any, receive_ns: int) -> None:
        """Take one message. ``receive_ns`` is node time at its arrival (in a bag, its recorded time).

        Only headers are looked at; images are decoded by ``assemble``. Raises MessageError for a message that
        is refused, which then has no effect at all.
        """
        buffers = self._by_topic.get(topic)
        if buffers is None:
            raise MessageError(f"{topic}: no camera or state of the checkpoint uses this topic")
        stamp = _stamp_of(msg, buffers[0], receive_ns)
        with self._lock:
            samples = [(buffer, buffer.read(msg)) for buffer in buffers]
            if all(sample is None for _, sample in samples):
                joints = [joint for buffer in buffers for joint in getattr(buffer.source, "joints", ())]
                raise MessageError(
                    f"{topic}: none of {', '.join(joints)} in the message; it has {', '.join(msg.name) or 'no joints'}"
                )
            for buffer, sample in samples:
                if sample is not None:
                    buffer.insert(stamp, sample)

    def assemble(self, now_ns: int, instruction: str) -> Observation:
        """The newest observation at node time ``now_ns``.

        Raises NotReady with every cause when something is missing or too old, MessageError when a frame
        cannot be decoded (that frame is then dropped).
        """
        causes: list[Cause] = []
        try:
            instruction = check_instruction(instruction) if self._language else instruction
        except MessageError as error:
            causes.append(Cause(NotReady.INSTRUCTION, "instruction", str(error)))
        with self._lock:
            t_obs, time_causes = self._observation_time(now_ns)
            causes += time_causes
            picks = (
                {}
                if t_obs is None
                else {b.path: b.pick(t_obs, causes) for b in (*self._cameras, *self._states)}
            )
        if causes or t_obs is None:
            raise NotReady(causes)
        data: dict[str, dict[str, Any]] = {
            "video": {b.source.key: self._frames(b, picks[b.path]) for b in self._cameras},
            "state": {b.source.key: b.columns(self._robot, picks[b.path]) for b in self._states},
            "language": {key: [[instruction]] for key in self._language},
        }
        stamps = {path: samples[-1][0] for path, samples in picks.items()}
        return Observation(t_obs, data, stamps, instruction)

    def clear(self) -> None:
        """Forget every message: after a jump of the clock their stamps mean nothing."""
        with self._lock:
            for buffer in (*self._cameras, *self._states):
                buffer.clear()

    def _offsets(self, deltas: tuple[int, ...]) -> tuple[int, ...]:
        """Delta indices in nanoseconds, all at or before 0."""
        if not deltas or max(deltas) > 0:
            raise RobotConfigError(
                f"the checkpoint's delta_indices are {list(deltas)}, expected none after 0"
            )
        return tuple(round(delta * 1e9 / self._robot.step_rate) for delta in deltas)

    def _observation_time(self, now_ns: int) -> tuple[int | None, list[Cause]]:
        """The newest frame's stamp, or None and why there is no usable one."""
        causes = [buffer.nothing_yet() for buffer in (*self._cameras, *self._states) if not buffer.stamps]
        seen = [buffer for buffer in self._cameras if buffer.stamps]
        if not seen:
            return None, causes
        newest = max(seen, key=lambda buffer: buffer.stamps[-1])
        t_obs = newest.stamps[-1]
        age = (now_ns - t_obs) / 1e9
        if t_obs > now_ns + FUTURE_TOLERANCE_NS:
            text = f"{newest.path}: the newest frame is stamped {-age:.3f} s ahead of now: check the clocks"
            return None, [*causes, Cause(NotReady.FUTURE, newest.path, text)]
        if age > newest.source.max_age:
            text = (
                f"{newest.path}: the newest frame on {newest.source.topic} is {age:.3f} s old, expected at most "
                f"{newest.source.max_age:g} s"
            )
            causes.append(Cause(NotReady.STALE, newest.path, text))
        return t_obs, causes

    def _frames(self, buffer: _Buffer, samples: list[tuple[int, Any]]) -> np.ndarray:
        """Decoded frames, uint8 [1, T, H, W, 3]."""
        decoded: dict[int, np.ndarray] = {}
        for stamp, msg in samples:
            if stamp not in decoded:
                try:
                    decoded[stamp] = decode_image(msg, buffer.path)
                except MessageError:
                    with self._lock:
                        buffer.drop(stamp, msg)
                    raise
        frames = [decoded[stamp] for stamp, _ in samples]
        if any(frame.shape != frames[0].shape for frame in frames):
            shapes = ", ".join(f"{frame.shape[1]}x{frame.shape[0]}" for frame in frames)
            raise MessageError(
                f"{buffer.path}: found frames of {shapes} pixels in one history, expected one size"
            )
        return frames[0][None, None] if len(frames) == 1 else np.stack(frames)[None]


class _Buffer:
    """The recent messages of one source, sorted by stamp. The builder's lock guards it."""

    def __init__(self, source: Any, path: str, offsets: tuple[int, ...], oldest_frame: float) -> None:
        self.source: VideoSource | StateSource = source
        self.path = path
        self.stamps: list[int] = []
        self._samples: list[Any] = []
        self._sizes: list[int] = []
        self._bytes = 0
        self._offsets = offsets
        self._max_age_ns = round(source.max_age * 1e9)
        self._keep_ns = self._max_age_ns + round(oldest_frame * 1e9) - min(offsets) + SPARE_NS

    def read(self, msg: Any) -> Any | None:
        """What is kept of a message: an image message itself, its header checked."""
        check_image(msg, self.path)
        return msg

    def insert(self, stamp: int, sample: Any) -> None:
        """Keep a sample in its place by time; one with the same stamp replaces the earlier; then forget the
        oldest."""
        at = bisect.bisect_left(self.stamps, stamp)
        size = (
            len(sample.data)
            if hasattr(sample, "data") and not isinstance(sample, np.ndarray)
            else sample.nbytes
        )
        if at < len(self.stamps) and self.stamps[at] == stamp:
            self._bytes -= self._sizes[at]
            self._samples[at], self._sizes[at] = sample, size
        else:
            self.stamps.insert(at, stamp)
            self._samples.insert(at, sample)
            self._sizes.insert(at, size)
        self._bytes += size
        expired = bisect.bisect_left(self.stamps, self.stamps[-1] - self._keep_ns)
        excess = max(expired, len(self.stamps) - MAX_SAMPLES)
        over = self._bytes - sum(self._sizes[:excess])
        while over > MAX_BYTES and excess < len(self.stamps) - 1:
            over -= self._sizes[excess]
            excess += 1
        if excess > 0:
            self._bytes -= sum(self._sizes[:excess])
            del self.stamps[:excess], self._samples[:excess], self._sizes[:excess]

    def drop(self, stamp: int, sample: Any) -> None:
        """Forget a sample that turned out to be unusable, unless it has been replaced."""
        at = bisect.bisect_left(self.stamps, stamp)
        if at < len(self.stamps) and self._samples[at] is sample:
            self._bytes -= self._sizes[at]
            del self.stamps[at], self._samples[at], self._sizes[at]

    def clear(self) -> None:
        """Forget all samples."""
        self.stamps.clear()
        self._samples.clear()
        self._sizes.clear()
        self._bytes = 0

    def pick(self, t_obs: int, causes: list[Cause]) -> list[tuple[int, Any]]:
        """The samples for t_obs, one for each delta index, oldest first as the indices are; adds to
        ``causes``."""
        picked: list[tuple[int, Any]] = []
        if not self.stamps:
            return picked  # reported as no_message
        for offset in self._offsets:
            wanted = t_obs + offset
            slack = HISTORY_ROUNDING_NS if offset < 0 else 0
            at = bisect.bisect_right(self.stamps, wanted + slack) - 1
            if at >= 0 and wanted - self.stamps[at] <= self._max_age_ns:
                picked.append((self.stamps[at], self._samples[at]))
                continue
            causes.append(self._cause(offset, wanted, at))
            break
        return picked

    def nothing_yet(self) -> Cause:
        """The cause for a source from which nothing has come."""
        text = f"{self.path}: no message yet on {self.source.topic}"
        if isinstance(self.source, StateSource):
            text += f" with {', '.join(self.source.joints)}" if self.source.type == "joint_state" else ""
        return Cause(NotReady.NO_MESSAGE, self.path, text)

    def _cause(self, offset: int, wanted: int, at: int) -> Cause:
        topic, limit = self.source.topic, self.source.max_age
        if offset < 0:
            text = (
                f"{self.path}: no message on {topic} from {-offset / 1e9:.3f} s before the newest frame (within "
                f"{limit:g} s), which the checkpoint's history needs"
            )
            return Cause(NotReady.HISTORY, self.path, text)
        if at < 0:
            ahead = (self.stamps[0] - wanted) / 1e9
            text = f"{self.path}: the oldest message on {topic} is {ahead:.3f} s later than the newest frame"
            return Cause(NotReady.BEHIND, self.path, text)
        age = (wanted - self.stamps[at]) / 1e9
        text = (
            f"{self.path}: the latest message on {topic} is {age:.3f} s older than the newest frame, expected at most "
            f"{limit:g} s"
        )
        return Cause(NotReady.STALE, self.path, text)


class _StateBuffer(_Buffer):
    """State values [D] in SI, by time."""

    def __init__(self, source: StateSource, path: str, offsets: tuple[int, ...], oldest_frame: float) -> None:
        super().__init__(source, path, offsets, oldest_frame)
        self._state = source
        self._read: Reader = reader_for(source)

    def read(self, msg: Any) -> Any | None:
        """The source's columns, or None when the message is about other joints."""
        return self._read(msg)

    def columns(self, robot: RobotConfig, samples: list[tuple[int, Any]]) -> np.ndarray:
        """Dataset units, float32 [1, T, D]. Units are of positions; speeds take their scale, efforts are
        kept."""
        values = np.stack([sample for _, sample in samples])
        units = [robot.unit(joint) for joint in self._state.joints]
        if self._state.field == "position":
            values = to_dataset(values, units)
        elif self._state.field == "velocity":
            values = rates_to_dataset(values, units)
        return values.astype(np.float32)[None]


def _modality(modality: Mapping[str, Any], kind: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    config = modality.get(kind)
    if config is None:
        return (), (0,)
    return tuple(config.modality_keys), tuple(int(delta) for delta in config.delta_indices)


def _stamp_of(msg: Any, buffer: _Buffer, receive_ns: int) -> int:
    """The time that counts for a message."""
    if buffer.source.stamp != HEADER:
        return receive_ns
    stamp = stamp_ns(msg.header.stamp)
    if stamp <= 0:
        raise MessageError(
            f"{buffer.path}: found a zero stamp on {buffer.source.topic}, expected the time of the measurement; if the "
            "driver has no clock, set 'stamp: receive' for this topic in the robot YAML"
        )
    if stamp > receive_ns + FUTURE_TOLERANCE_NS:
        raise MessageError(
            f"{buffer.path}: found a stamp {(stamp - receive_ns) / 1e9:.3f} s ahead of node time on "
            f"{buffer.source.topic}, expected one from the past: check the clocks and use_sim_time"
        )
    return stamp
