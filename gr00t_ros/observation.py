# SPDX-License-Identifier: Apache-2.0
"""Messages to observations: the one piece of code between topics and the network, live and from bags.

The policy node feeds an ``ObservationBuilder`` from its subscriptions and assembles on its worker thread; the
bag converter feeds it in the order of a recording. Neither wall time nor ROS is involved: every time is an
argument.

The rules of time. t_obs is the stamp of the newest camera frame. Every other source gives its latest message
with a stamp at or before t_obs, no older than its ``max_age`` against t_obs; t_obs itself may be no older
than the camera's ``max_age`` against now. A past index -k (``delta_indices``) means the latest message at or
before t_obs - k / step_rate, by the same rule. A zero stamp and a stamp from the future are refused.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gr00t_ros.camera_watch import CameraWatch
from gr00t_ros.errors import Cause, MessageError, NotReady, RobotConfigError
from gr00t_ros.images import decode_image
from gr00t_ros.robot import RobotConfig
from gr00t_ros.robot_types import STOP, StateSource, VideoSource
from gr00t_ros.sample_buffer import SampleBuffer
from gr00t_ros.units import rates_to_dataset, to_dataset

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
        raise MessageError(f"instruction: found {stripped[:40]!r}, expected a text that says what to do")
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
        video, state = _keys(modality, "video"), _keys(modality, "state")
        self._language = _keys(modality, "language")
        if not video:
            raise RobotConfigError(
                "the checkpoint uses no camera, expected one or more: time is taken from frames"
            )
        for kind, keys, have in (("video", video, robot.video), ("state", state, robot.state)):
            for key in keys:
                if key not in have:
                    raise RobotConfigError(f"robot.{kind}.{key}: missing, the checkpoint needs it")
        # Other sources may be asked for a time as old as the oldest acceptable frame.
        oldest_ns = round(max(robot.video[key].max_age for key in video) * 1e9)
        video_offsets, state_offsets = self._offsets(modality, "video"), self._offsets(modality, "state")
        self._cameras = [SampleBuffer(robot.video[k], f"video.{k}", video_offsets, oldest_ns) for k in video]
        self._states = [SampleBuffer(robot.state[k], f"state.{k}", state_offsets, oldest_ns) for k in state]
        self._buffers = (*self._cameras, *self._states)
        self._by_topic: dict[str, list[SampleBuffer]] = {}
        for buffer in self._buffers:
            self._by_topic.setdefault(buffer.source.topic, []).append(buffer)
        self._watches = {key: CameraWatch(robot.video[key], f"video.{key}") for key in video}
        self._heard: set[str] = set()  # paths of the sources that ever had a sample

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

    @property
    def frozen(self) -> tuple[Cause, ...]:
        """The cameras that send new frames with old pixels, whatever is to be done about it."""
        with self._lock:
            return self._frozen()

    def stops(self, frozen: Cause) -> bool:
        """Whether nothing is to be assembled while this camera is frozen."""
        return self._robot.video[frozen.source.removeprefix("video.")].frozen_reaction == STOP

    def camera_rates(self, now_ns: int) -> dict[str, float]:
        """Frames per second of each camera, by video key, at node time ``now_ns``."""
        with self._lock:
            return {key: watch.rate(now_ns) for key, watch in self._watches.items()}

    @property
    def more_is_due(self) -> bool:
        """Whether a message that belongs to the newest frame is still under way: a source that had one with
        the very stamp of that camera's frame before has none with that of the newest.

        Synchronised cameras, simulators and replays stamp alike, but their messages arrive one after another.
        """
        with self._lock:
            seen = [buffer for buffer in self._cameras if buffer.stamps]
            if not seen:
                return False
            stamps = max((buffer.stamps for buffer in seen), key=lambda stamps: stamps[-1])
            if len(stamps) < 2:
                return False
            return any(b.has(stamps[-2]) and not b.has(stamps[-1]) for b in self._buffers)

    def add(self, topic: str, msg: Any, receive_ns: int) -> bool:
        """Take one message; whether it was of use. ``receive_ns`` is node time at its arrival (in a bag, its
        recorded time).

        Only headers and joint values are looked at; images are decoded by ``assemble``. Raises MessageError
        for a message that is refused, which then has no effect at all. A message with none of a topic's
        joints is refused only as long as one of the topic's sources has never had any: then a name is
        probably misspelt; later it is another publisher of the same topic, which is nothing to tell.
        """
        buffers = self._by_topic.get(topic)
        if buffers is None:
            raise MessageError(f"{topic}: no camera or state of the checkpoint uses this topic")
        with self._lock:
            stamp = buffers[0].stamp_of(msg, receive_ns)
            samples = [(buffer, buffer.read(msg)) for buffer in buffers]
            if all(sample is None for _, sample in samples):
                if all(buffer.path in self._heard for buffer in buffers):
                    return False
                joints = [joint for buffer in buffers for joint in getattr(buffer.source, "joints", ())]
                names = ", ".join(msg.name) or "no joints"
                raise MessageError(f"{topic}: the message has none of {', '.join(joints)}; it has {names}")
            for buffer, sample in samples:
                if sample is not None:
                    buffer.insert(stamp, *sample)
                    self._heard.add(buffer.path)
                    if isinstance(buffer.source, VideoSource):
                        self._watches[buffer.source.key].see(stamp, msg.data, receive_ns)
        return True

    def assemble(self, now_ns: int, instruction: str) -> Observation:
        """The newest observation at node time ``now_ns``.

        Raises NotReady with every cause when something is missing, too old, or frozen where that is to stop
        the policy, MessageError when a frame cannot be decoded (that frame is then dropped).
        """
        causes: list[Cause] = []
        if self._language:
            try:
                instruction = check_instruction(instruction)
            except MessageError as error:
                causes.append(Cause(NotReady.INSTRUCTION, "instruction", str(error)))
        with self._lock:
            t_obs, picks = self._pick(now_ns, causes)
            causes += [c for c in self._frozen() if self.stops(c)]
        if causes:
            raise NotReady(causes)
        data: dict[str, dict[str, Any]] = {
            "video": {
                buffer.source.key: self._frames(buffer, picks[buffer.path]) for buffer in self._cameras
            },
            "state": {
                buffer.source.key: self._columns(buffer, picks[buffer.path]) for buffer in self._states
            },
            "language": {key: [[instruction]] for key in self._language},
        }
        stamps = {path: max(stamp for stamp, _ in samples) for path, samples in picks.items()}
        return Observation(t_obs, data, stamps, instruction)

    def clear(self) -> None:
        """Forget every message: after a jump of the clock their stamps mean nothing."""
        with self._lock:
            for buffer in self._buffers:
                buffer.clear()
            for watch in self._watches.values():
                watch.clear()

    def _frozen(self) -> tuple[Cause, ...]:
        texts = ((key, watch.frozen) for key, watch in self._watches.items())
        return tuple(Cause(NotReady.FROZEN, f"video.{key}", text) for key, text in texts if text)

    def _offsets(self, modality: Mapping[str, Any], kind: str) -> tuple[int, ...]:
        """Delta indices in nanoseconds, none after 0."""
        config = modality.get(kind)
        deltas = (0,) if config is None else tuple(int(delta) for delta in config.delta_indices)
        if not deltas or max(deltas) > 0:
            raise RobotConfigError(
                f"{kind}: the checkpoint's delta_indices are {list(deltas)}, expected none after 0"
            )
        return tuple(round(delta * 1e9 / self._robot.step_rate) for delta in deltas)

    def _pick(self, now_ns: int, causes: list[Cause]) -> tuple[int, dict[str, list[tuple[int, Any]]]]:
        """t_obs and the samples of every source for it; adds to ``causes`` what is wrong."""
        seen = [buffer for buffer in self._cameras if buffer.stamps]
        if not seen:
            causes += [buffer.nothing_yet() for buffer in self._buffers if not buffer.stamps]
            return 0, {}
        newest = max(seen, key=lambda buffer: buffer.stamps[-1])
        t_obs = newest.stamps[-1]
        unusable = newest.stale_frame(now_ns)
        if unusable is not None:
            causes.append(unusable)
            if unusable.kind == NotReady.FUTURE:
                return t_obs, {}  # no other source can be measured against such a time
        picks = {}
        for buffer in self._buffers:
            picks[buffer.path], cause = buffer.pick(t_obs)
            if cause is not None:
                causes.append(cause)
        return t_obs, picks

    def _frames(self, buffer: SampleBuffer, samples: list[tuple[int, Any]]) -> np.ndarray:
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
            sizes = ", ".join(f"{frame.shape[1]}x{frame.shape[0]}" for frame in frames)
            raise MessageError(
                f"{buffer.path}: found frames of {sizes} pixels in one history, expected one size"
            )
        return frames[0][None, None] if len(frames) == 1 else np.stack(frames)[None]

    def _columns(self, buffer: SampleBuffer, samples: list[tuple[int, Any]]) -> np.ndarray:
        """Dataset units, float32 [1, T, D]. Units are of positions; speeds take their scale, efforts stay."""
        source = buffer.source
        assert isinstance(source, StateSource)
        values = np.stack([sample for _, sample in samples])
        units = [self._robot.unit(joint) for joint in source.joints]
        if source.field == "position":
            values = to_dataset(values, units)
        elif source.field == "velocity":
            values = rates_to_dataset(values, units)
        return values.astype(np.float32)[None]


def _keys(modality: Mapping[str, Any], kind: str) -> tuple[str, ...]:
    config = modality.get(kind)
    return () if config is None else tuple(config.modality_keys)
