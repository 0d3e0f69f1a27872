# SPDX-License-Identifier: Apache-2.0
"""State and action values of one embodiment: to the network's padded rows and back.

A :class:`StateActionCodec` is built once an embodiment from its modality configs and statistics. It knows
which scaling rule each key has, in which columns the key sits, and which actions are relative to which state.
The processor owns it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gr00t_model.errors import ConfigError, EmbodimentError, Gr00tError, ObservationError
from gr00t_model.processing import poses
from gr00t_model.processing.arrays import NotNumbersError, as_floats
from gr00t_model.processing.modality import ActionConfig, ModalityConfig
from gr00t_model.processing.scaling import MeanStd, MinMax, Scaling, SinCos
from gr00t_model.processing.statistics import EmbodimentStatistics, KeyStatistics

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class ScalingOptions:
    """The switches of ``processor_config.json`` that decide how values are scaled."""

    use_percentiles: bool = False
    clip_outliers: bool = True
    apply_sincos_state_encoding: bool = True
    use_relative_action: bool = True


@dataclass(frozen=True, eq=False)
class KeyCodec:
    """One key: its scaling rule, its physical width, and the state it is relative to (None: absolute)."""

    key: str
    width: int
    scaling: Scaling
    relative_to: str | None = None
    pose_layout: str | None = None

    @property
    def columns(self) -> int:
        """Columns of the network's row that the key takes."""
        return 2 * self.width if isinstance(self.scaling, SinCos) else self.width


@dataclass(frozen=True, eq=False)
class StateActionCodec:
    """Both directions for one embodiment; see the module. Build it with :meth:`build`."""

    tag: str
    states: tuple[KeyCodec, ...]
    actions: tuple[KeyCodec, ...]
    state_steps: int
    action_steps: int
    clip: bool

    @classmethod
    def build(
        cls,
        tag: str,
        modalities: Mapping[str, ModalityConfig],
        statistics: EmbodimentStatistics,
        options: ScalingOptions,
    ) -> StateActionCodec:
        """Raises EmbodimentError for a key without statistics, ConfigError for statistics that do not fit."""
        state, action = modalities["state"], modalities["action"]
        return cls(
            tag=tag,
            states=tuple(_state_codec(tag, key, state, statistics, options) for key in state.modality_keys),
            actions=tuple(
                _action_codec(tag, key, action, statistics, options) for key in action.modality_keys
            ),
            state_steps=state.horizon,
            action_steps=action.horizon,
            clip=options.clip_outliers,
        )

    @property
    def state_columns(self) -> int:
        """Columns that are not padding in a state row."""
        return sum(codec.columns for codec in self.states)

    @property
    def action_columns(self) -> int:
        """Columns that are not padding in an action row."""
        return sum(codec.columns for codec in self.actions)

    def neutral_state(self) -> dict[str, Float32]:
        """A state {key: [1, T, D]} that every rule accepts: zeros, no rotation where zeros are no pose."""
        layouts = {codec.relative_to: codec.pose_layout for codec in self.actions if codec.pose_layout}
        neutral = {}
        for codec in self.states:
            values = np.zeros((1, self.state_steps, codec.width), np.float32)
            if codec.key in layouts:
                values[:] = poses.from_transforms(np.eye(4), layouts[codec.key])
            neutral[codec.key] = values
        return neutral

    def random_state(self, rng: np.random.Generator) -> dict[str, Float32]:
        """A state {key: [1, T, D]} drawn inside the statistics, with the neutral rotation where an action is
        relative to a pose."""
        layouts = {codec.relative_to: codec.pose_layout for codec in self.actions if codec.pose_layout}
        drawn, neutral = {}, self.neutral_state()
        for codec in self.states:
            encoded = rng.uniform(-1.0, 1.0, (1, self.state_steps, codec.columns))
            values = codec.scaling.decode(encoded).astype(np.float32)
            if codec.key in layouts:
                values[..., 3:] = neutral[codec.key][..., 3:]
            drawn[codec.key] = values
        return drawn

    def encode_state(self, state: Mapping[str, Any], padded_width: int) -> Float32:
        """State groups {key: [B, T, D]} to [B, T, padded_width], zeros on the right.

        Raises:
            ObservationError: a key is missing, misshaped or non-finite.
        """
        checked = check_groups("state", state, self.states, self.state_steps)
        parts = []
        for codec in self.states:
            # A state scaled by mean and std is never cut, unlike an action: the reference's rule.
            clip = self.clip and isinstance(codec.scaling, MinMax)
            parts.append(_scaled(f"state.{codec.key}", codec, checked[codec.key], clip))
        return _pad(np.concatenate(parts, axis=-1), padded_width, self.state_steps)

    def encode_action(
        self,
        actions: Mapping[str, Any],
        state: Mapping[str, Any],
        padded_width: int,
        padded_steps: int,
        clip: bool | None = None,
    ) -> tuple[Float32, Float32]:
        """Actions {key: [B, T, D]}, T up to the horizon, to (values, mask), both [B, padded_steps,
        padded_width].

        Args:
            state: {key: [B, T, D]}; its last step is what relative keys are expressed against.
            clip: overrides the checkpoint's switch.

        Raises:
            ObservationError: a key is missing, misshaped or non-finite.
        """
        checked = check_groups("action", actions, self.actions, None, most_steps=self.action_steps)
        references = self._references(state, _batch(checked))
        parts = []
        for codec in self.actions:
            values = checked[codec.key]
            if codec.relative_to is not None:
                values = self._relate(codec, values, references[codec.relative_to], forward=True)
            parts.append(_scaled(f"action.{codec.key}", codec, values, self.clip if clip is None else clip))
        values = np.concatenate(parts, axis=-1)
        mask = np.ones(values.shape)
        return _pad(values, padded_width, padded_steps), _pad(mask, padded_width, padded_steps)

    def decode_action(self, normalized: Any, state: Mapping[str, Any]) -> dict[str, Float32]:
        """Network output [B, H, W] to physical actions {key: [B, T, D]}, T the embodiment's horizon.

        Raises:
            ObservationError: the array is too small, or the state that relative keys need is not usable.
            Gr00tError: the array holds non-finite values, or a pose without orientation.
        """
        try:
            values = as_floats(normalized)
        except NotNumbersError as error:
            raise ObservationError(f"normalized actions: not an array of numbers ({error})") from None
        if values.ndim != 3 or values.shape[1] < self.action_steps or values.shape[2] < self.action_columns:
            raise ObservationError(
                f"normalized actions have shape {list(values.shape)}, expected [B, at least "
                f"{self.action_steps}, "
                f"at least {self.action_columns}] for {self.tag}"
            )
        if not np.isfinite(values).all():
            raise Gr00tError(
                f"the network's output for {self.tag} holds non-finite values: the weights are damaged or "
                "the precision overflows; check the checkpoint, or run with float32"
            )
        references = self._references(state, values.shape[0])
        decoded: dict[str, Float32] = {}
        start = 0
        for codec in self.actions:
            part = codec.scaling.decode(values[:, : self.action_steps, start : start + codec.columns])
            start += codec.columns
            if codec.relative_to is not None:
                part = self._relate(codec, part, references[codec.relative_to], forward=False)
            if not _fits_float32(part):
                raise Gr00tError(
                    f"the network's output for {codec.key} is too large to be scaled back; check the "
                    "checkpoint's weights and statistics"
                )
            decoded[codec.key] = part.astype(np.float32)
        return decoded

    def _references(self, state: Mapping[str, Any], batch: int) -> dict[str, Float64]:
        """The last step, [B, 1, D], of every state that an action is relative to."""
        needed = {codec.relative_to for codec in self.actions if codec.relative_to is not None}
        codecs = [codec for codec in self.states if codec.key in needed]
        checked = check_groups("state", state, codecs, None, batch=batch)
        return {key: values[:, -1:] for key, values in checked.items()}

    def _relate(self, codec: KeyCodec, values: Float64, reference: Float64, forward: bool) -> Float64:
        layout, state = codec.pose_layout, f"state {codec.relative_to}"
        try:
            if forward:
                return poses.relative(values, reference, layout, action=f"action {codec.key}", state=state)
            if layout is None:
                return values + reference
            anchor = poses.to_transforms(reference, layout, state)
        except Gr00tError as error:
            raise ObservationError(str(error)) from None
        # Here it is the network that gave no direction: nothing is wrong with the observation.
        moved = poses.to_transforms(values, layout, f"the network's output for {codec.key}")
        return poses.from_transforms(anchor @ moved, layout)


def check_groups(
    kind: str,
    groups: Mapping[str, Any],
    codecs: Sequence[KeyCodec],
    steps: int | None,
    *,
    most_steps: int | None = None,
    batch: int | None = None,
) -> dict[str, Float64]:
    """Every codec's group as float64 [B, T, D], checked to be there, of the right shape and finite.

    Args:
        steps: T wanted; None leaves it open, up to ``most_steps`` and the same for every key.
        batch: B wanted; None takes the first key's.
    """
    if not isinstance(groups, Mapping):
        raise ObservationError(
            f"{kind}: found {type(groups).__name__}, expected a mapping of key to [B, T, D]"
        )
    missing = [codec.key for codec in codecs if codec.key not in groups]
    if missing:
        raise ObservationError(
            f"{kind}: missing {', '.join(missing)}, found {', '.join(map(str, groups)) or 'none'}"
        )
    checked: dict[str, Float64] = {}
    for codec in codecs:
        name = f"{kind}.{codec.key}"
        try:
            values = as_floats(groups[codec.key])
        except NotNumbersError as error:
            raise ObservationError(
                f"{name}: not an array of numbers ({error}), expected float32 [B, T, {codec.width}]"
            ) from None
        if values.ndim == 3 and values.shape[0] and values.shape[1]:
            batch = values.shape[0] if batch is None else batch
            if steps is None and most_steps is not None and values.shape[1] <= most_steps:
                steps = values.shape[1]
        expected = [batch or "B", steps or (f"1..{most_steps}" if most_steps else "T"), codec.width]
        fits = values.ndim == 3 and values.size > 0 and values.shape[2] == codec.width
        if (
            not fits
            or (batch, steps or values.shape[1]) != values.shape[:2]
            or values.shape[1] > (most_steps or np.inf)
        ):
            raise ObservationError(
                f"{name}: shape {list(values.shape)}, expected [{', '.join(map(str, expected))}]"
            )
        if not np.isfinite(values).all():
            where = np.argwhere(~np.isfinite(values))[0]
            raise ObservationError(
                f"{name}: non-finite value {values[tuple(where)]} at {where.tolist()}, expected "
                "finite numbers"
            )
        checked[codec.key] = values
    return checked


def _scaled(name: str, codec: KeyCodec, values: Float64, clip: bool) -> Float64:
    with np.errstate(over="ignore", invalid="ignore"):  # judged below
        scaled = codec.scaling.encode(values)
    scaled = np.clip(scaled, -1.0, 1.0) if clip else scaled
    if not _fits_float32(scaled):
        raise ObservationError(
            f"{name}: a value of size {np.abs(values).max():.3g} is too far from the statistics to be scaled"
        )
    return scaled


def _fits_float32(values: Float64) -> bool:
    return bool((np.abs(values) <= np.finfo(np.float32).max).all())


def _batch(checked: Mapping[str, Float64]) -> int:
    return next(iter(checked.values())).shape[0]


def _state_codec(
    tag: str, key: str, config: ModalityConfig, statistics: EmbodimentStatistics, options: ScalingOptions
) -> KeyCodec:
    entry = _find(tag, "state", key, statistics.state)
    if options.apply_sincos_state_encoding and key in config.sin_cos_embedding_keys:
        return KeyCodec(key, entry.width, SinCos())
    if key in config.mean_std_embedding_keys:
        return KeyCodec(key, entry.width, MeanStd(*entry.pair("mean", "std")))
    return KeyCodec(key, entry.width, _min_max(entry, options.use_percentiles))


def _action_codec(
    tag: str, key: str, config: ModalityConfig, statistics: EmbodimentStatistics, options: ScalingOptions
) -> KeyCodec:
    action = config.action_config(key)
    relative = action.relative and options.use_relative_action
    entry = (
        _find(tag, "relative_action", key, statistics.relative_action)
        if relative
        else _find(tag, "action", key, statistics.action)
    )
    if entry.steps is not None and entry.steps < config.horizon:
        raise ConfigError(
            f"{entry.where}: given for {entry.steps} time steps, expected at least {config.horizon} "
            "as the action has"
        )
    if key in config.mean_std_embedding_keys:
        scaling: Scaling = MeanStd(*entry.pair("mean", "std"))
    else:
        # Relative actions are scaled by their full range whatever the percentile switch says, as the
        # reference does.
        scaling = _min_max(entry, options.use_percentiles and not relative)
    if not relative:
        return KeyCodec(key, entry.width, scaling)
    state_key = action.state_key or key
    layout = _pose_layout(tag, key, action, entry)
    reference = _find(tag, "state", state_key, statistics.state)
    if reference.width != entry.width:
        raise ConfigError(
            f"{entry.where}: {entry.width} values a step, but state {state_key}, which {key} is relative to, "
            f"has {reference.width}; expected the same number"
        )
    return KeyCodec(key, entry.width, scaling, state_key, layout)


def _pose_layout(tag: str, key: str, action: ActionConfig, entry: KeyStatistics) -> str | None:
    if action.type != "EEF":
        return None
    if entry.width != poses.WIDTHS[action.format]:
        raise ConfigError(
            f"{entry.where}: {entry.width} values a step, expected {poses.WIDTHS[action.format]} "
            f"for {action.format}"
        )
    return action.format


def _min_max(entry: KeyStatistics, percentiles: bool) -> MinMax:
    low, high = entry.pair("q01", "q99") if percentiles else entry.pair("min", "max")
    if (low > high).any():
        raise ConfigError(
            f"{entry.where}: the lower limit is above the upper one in places, expected low <= high"
        )
    return MinMax(low, high)


def _find(tag: str, group: str, key: str, entries: Mapping[str, KeyStatistics]) -> KeyStatistics:
    if key not in entries:
        raise EmbodimentError(
            f"embodiment {tag} has no {group} statistics for {key}, found {', '.join(entries) or 'none'}; "
            "add them to statistics.json or drop the key from the modality config"
        )
    return entries[key]


def _pad(values: Float64, width: int, steps: int) -> Float32:
    padded = np.zeros((values.shape[0], steps, width), np.float32)
    padded[:, : values.shape[1], : values.shape[2]] = values
    return padded
