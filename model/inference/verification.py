# SPDX-License-Identifier: Apache-2.0
"""Whether an engine computes what the float32 network computes: the measures, the limits and the verdict.

Two measures, because each is blind where the other sees. The cosine of (action - noise), normalised, compares
what the network did; a cosine of the actions themselves would be ruled by their offsets and pass an arm that
never moves. The worst error of a joint, decoded, is what the robot would notice; the cosine of thirty joints
passes a bias of one.

Both look only at the embodiment's columns and steps; padding is nobody's action. Errors are measured after
decoding, as the robot gets them, so what the decoder cuts off at the ends of a joint's range counts in the
cosine alone. A rotation vector's three columns all have the angle (rad) of the rotation between the two
poses, since vectors on both sides of half a turn differ by 2 pi and mean the same; the columns of other
layouts are subtracted one by one, so that a wrong angle shows in the entries of a rotation matrix, by at most
its size in rad.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from gr00t_model.errors import ConfigError, Gr00tError, ObservationError
from gr00t_model.inference.observations import EncodedObservation
from gr00t_model.inference.streamed import Progress
from gr00t_model.processing import Gr00tProcessor
from gr00t_model.processing.poses import WIDTHS, matrices_to_rotvecs, rotvecs_to_matrices

# The cosine of (action - noise) of every action key, all observations together.
MIN_COSINE = 0.999
# In dataset units, where no robot YAML says otherwise; the YAML's own default, in SI, is the same number.
DEFAULT_MAX_ERROR = 0.03
# Observations that go through the streamed network together: its weights are read once a batch. What eight
# observations of two 252 px cameras needed besides the weights was 0.12 GB in the preset `small`.
BATCH = 8

Run = Callable[[EncodedObservation], NDArray[np.float32]]


class Network(Protocol):
    """What computes a reference: ``StreamedNetwork``."""

    def get_action(
        self,
        inputs: Mapping[str, Any],
        noise: torch.Tensor | None = None,
        *,
        num_steps: int | None = None,
        progress: Progress | None = None,
    ) -> dict[str, torch.Tensor]:
        """As ``Gr00tN1d6.get_action``."""
        ...

    def layer_count(self, inputs: Mapping[str, Any], num_steps: int | None = None) -> int:
        """How many layers a call reads."""
        ...


@dataclass(frozen=True)
class JointError:
    """The joint whose error is the largest share of its limit, and where it is."""

    joint: str
    column: int
    error: float
    """dataset units"""
    limit: float
    step: int
    observation: int

    @property
    def share(self) -> float:
        """Error over limit; 1 is the limit."""
        return self.error / self.limit


@dataclass(frozen=True)
class KeyMeasure:
    """One action key."""

    cosine: float
    """of (action - noise), all observations together"""
    lowest_cosine: float
    """of the observation where it is lowest"""
    lowest_observation: int
    worst: JointError


@dataclass(frozen=True)
class Comparison:
    """The verdict about an engine. ``keys`` is empty where it gave nothing that could be measured."""

    passed: bool
    observations: int
    keys: Mapping[str, KeyMeasure]
    reasons: tuple[str, ...]
    """why it did not pass, in words for a log"""
    remarks: tuple[str, ...]
    """what these observations cannot show"""

    def to_mapping(self) -> dict[str, Any]:
        """The verdict for a JSON file."""
        return asdict(self)

    def __str__(self) -> str:
        if not self.passed:
            return f"refused: {'; '.join(self.reasons)}"
        cosine = min(self.keys.values(), key=lambda measure: measure.cosine).cosine
        key, measure = max(self.keys.items(), key=lambda item: item[1].worst.share)
        return (
            f"passed on {self.observations} observations: cosine of (action - noise) at least {cosine:.5f}, "
            f"worst error {measure.worst.error:.3g}, limit {measure.worst.limit:.3g}, at {key} "
            f"{measure.worst.joint}"
        )


def reference(
    network: Network,
    observations: Sequence[EncodedObservation],
    num_steps: int | None = None,
    *,
    batch: int = BATCH,
    progress: Progress | None = None,
) -> list[NDArray[np.float32]]:
    """The float32 network's normalised actions, float32 [1, H, D] for each observation, in order.

    Observations whose prompts have the same length go through together, up to ``batch``: every layer is then
    read once for all of them. Nothing is padded for it, because the plain DiT looks at padding.

    Raises:
        ObservationError, EmbodimentError, CheckpointError, BackendError: as the network's ``get_action``.
        Gr00tError: the network's own output is not finite: the checkpoint is damaged.
    """
    numbers = _batches(observations, batch)
    stacked = [_stack([observations[number] for number in group]) for group in numbers]
    overall = None
    if progress is not None:
        overall = _Overall(progress, sum(network.layer_count(inputs, num_steps) for inputs, _ in stacked))
    actions: dict[int, NDArray[np.float32]] = {}
    for group, (inputs, noise) in zip(numbers, stacked, strict=True):
        found = network.get_action(inputs, noise, num_steps=num_steps, progress=overall)["action_pred"]
        for number, values in zip(group, found.float().cpu().numpy(), strict=True):
            actions[number] = values[None]
    results = [actions[number] for number in range(len(observations))]
    for number, values in enumerate(results):
        if not np.isfinite(values).all():
            raise Gr00tError(
                f"the float32 network's own output for observation {number} is not finite: the checkpoint's "
                "weights are damaged"
            )
    return results


def _batches(observations: Sequence[EncodedObservation], most: int) -> list[list[int]]:
    """Numbers of observations that can go together, up to ``most`` at a time."""
    alike: dict[tuple[int, ...], list[int]] = {}
    for number, observation in enumerate(observations):
        shapes = (
            observation.inputs["input_ids"].shape,
            observation.inputs["state"].shape,
            observation.noise.shape,
        )
        alike.setdefault(tuple(size for shape in shapes for size in shape), []).append(number)
    return [group[start : start + most] for group in alike.values() for start in range(0, len(group), most)]


def _stack(observations: Sequence[EncodedObservation]) -> tuple[dict[str, Any], torch.Tensor]:
    """One batch: inputs, and noise [B, H, D]."""
    inputs: dict[str, Any] = {
        name: torch.cat([observation.inputs[name] for observation in observations])
        for name in ("input_ids", "attention_mask", "state", "embodiment_id")
    }
    inputs["pixel_values"] = [image for one in observations for image in one.inputs["pixel_values"]]
    return inputs, torch.from_numpy(np.concatenate([observation.noise for observation in observations]))


class _Overall:
    """The progress of several calls as that of one."""

    def __init__(self, progress: Progress, layers: int) -> None:
        self._progress, self._layers = progress, layers
        self._before = self._now = (0, 0)

    def __call__(self, layer: int, _: int, bytes_read: int) -> None:
        if layer == 1:  # another call
            self._before = (self._before[0] + self._now[0], self._before[1] + self._now[1])
        self._now = (layer, bytes_read)
        self._progress(self._before[0] + layer, self._layers, self._before[1] + bytes_read)


def compare(
    run: Run,
    references: Sequence[NDArray[np.float32]],
    observations: Sequence[EncodedObservation],
    processor: Gr00tProcessor,
    tag: str,
    limits: Mapping[str, ArrayLike] | None = None,
    *,
    names: Mapping[str, Sequence[str]] | None = None,
) -> Comparison:
    """Run an engine on every observation and judge it.

    Args:
        run: the engine: an observation (its inputs and its noise) to normalised actions [1, H, D].
        references: what :func:`reference` gave for these observations.
        limits: largest error of each column by action key, dataset units; None is ``DEFAULT_MAX_ERROR`` for
            all.
        names: of the columns by action key, for messages; None numbers them.

    An engine that raises, or gives a wrong shape or a value that is not finite, has not passed; the reason
    says so. Only what is wrong with the reference, the observations or the limits is raised here.

    Raises:
        ConfigError: limits or names do not fit the embodiment's action keys.
        ObservationError: no observations, not as many references, or a reference of another shape.
        EmbodimentError: the tag is unknown.
        Gr00tError: a reference cannot be decoded: it holds a pose without orientation.
    """
    columns = _columns(processor, tag, limits, names)
    steps = len(processor.modality(tag)["action"].delta_indices)
    if not observations or len(observations) != len(references):
        raise ObservationError(
            f"{len(references)} references for {len(observations)} observations, expected as many, and some"
        )
    samples: list[_Sample] = []
    for number, (observation, expected) in enumerate(zip(observations, references, strict=True)):
        if expected.shape != observation.noise.shape:
            raise ObservationError(
                f"reference {number} has shape {list(expected.shape)}, expected "
                f"{list(observation.noise.shape)}"
            )
        decoded = processor.decode(expected, observation.state, tag)
        # An engine may fail in any way, and none of them may take the robot's policy down with it.
        try:
            found = _checked(run(observation), expected.shape)
            samples.append(
                _Sample(
                    observation.noise[0, :steps],
                    expected[0, :steps],
                    found[0, :steps],
                    decoded,
                    processor.decode(found, observation.state, tag),
                )
            )
        except Exception as error:
            text = str(error) if isinstance(error, Gr00tError) else f"{type(error).__name__}: {error}"
            return Comparison(False, len(observations), {}, (f"observation {number}: {text}",), ())
    measures = {column.key: _measure(column, samples) for column in columns}
    reasons = tuple(reason for key, measure in measures.items() for reason in _reasons(key, measure))
    remarks = tuple(remark for column in columns for remark in _remarks(column, samples))
    return Comparison(not reasons, len(observations), measures, reasons, remarks)


# ---- what is compared ----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Columns:
    """One action key: its columns in the network's rows, limits [D] and names."""

    key: str
    place: slice
    limits: NDArray[np.float64]
    names: tuple[str, ...]
    rotvec: bool


@dataclass(frozen=True, eq=False)
class _Sample:
    """One observation: normalised [T, D] and decoded {key: [1, T, D]}, of the network and of the engine."""

    noise: NDArray[np.float32]
    expected: NDArray[np.float32]
    found: NDArray[np.float32]
    expected_values: Mapping[str, NDArray[np.float32]]
    found_values: Mapping[str, NDArray[np.float32]]

    def errors(self, column: _Columns) -> NDArray[np.float64]:
        """[T, D], positive."""
        expected = self.expected_values[column.key][0].astype(np.float64)
        found = self.found_values[column.key][0].astype(np.float64)
        errors = np.abs(found - expected)
        if column.rotvec:
            turn = np.swapaxes(rotvecs_to_matrices(expected[:, 3:]), -1, -2) @ rotvecs_to_matrices(
                found[:, 3:]
            )
            errors[:, 3:] = np.linalg.norm(matrices_to_rotvecs(turn), axis=-1, keepdims=True)
        return errors


def _columns(
    processor: Gr00tProcessor,
    tag: str,
    limits: Mapping[str, ArrayLike] | None,
    names: Mapping[str, Sequence[str]] | None,
) -> list[_Columns]:
    widths, action = processor.action_widths(tag), processor.modality(tag)["action"]
    for what, given in (("limits", limits), ("names", names)):
        if given is not None and set(given) != set(widths):
            raise ConfigError(
                f"{what} are given for {', '.join(given) or 'nothing'}, expected {', '.join(widths)} as "
                f"{tag} has"
            )
    columns, start = [], 0
    for key, width in widths.items():
        bound = np.full(width, DEFAULT_MAX_ERROR) if limits is None else np.asarray(limits[key], np.float64)
        if bound.shape != (width,) or not (np.isfinite(bound) & (bound > 0)).all():
            raise ConfigError(f"limits of {key} are {bound.tolist()}, expected {width} positive numbers")
        labels = tuple(map(str, range(width))) if names is None else tuple(names[key])
        if len(labels) != width:
            raise ConfigError(f"names of {key} are {', '.join(labels)}, expected {width}")
        rotvec = action.action_config(key).format == "XYZ_ROTVEC" and width == WIDTHS["XYZ_ROTVEC"]
        columns.append(_Columns(key, slice(start, start + width), bound, labels, rotvec))
        start += width
    return columns


def _checked(actions: Any, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """What an engine gave, or ObservationError."""
    values = np.asarray(actions)
    if values.shape != shape or values.dtype.kind != "f":
        raise ObservationError(
            f"the engine gave {values.dtype} {list(values.shape)}, expected float32 {list(shape)}"
        )
    if not np.isfinite(values).all():
        where = np.argwhere(~np.isfinite(values))[0].tolist()
        raise ObservationError(f"the engine gave {values[tuple(where)]} at {where}, expected finite numbers")
    return values.astype(np.float32, copy=False)


# ---- measures ------------------------------------------------------------------------------------


def _measure(column: _Columns, samples: Sequence[_Sample]) -> KeyMeasure:
    products = np.zeros((len(samples), 3))
    for row, sample in zip(products, samples, strict=True):
        noise = sample.noise[:, column.place].astype(np.float64)
        expected, found = sample.expected[:, column.place] - noise, sample.found[:, column.place] - noise
        row[:] = (expected * found).sum(), (expected**2).sum(), (found**2).sum()
    each = [_cosine(*row) for row in products]
    lowest = int(np.argmin(each))
    errors = np.stack([sample.errors(column) for sample in samples])
    at = np.unravel_index(np.argmax(errors / column.limits), errors.shape)
    observation, step, index = map(int, at)
    worst = JointError(
        column.names[index], index, float(errors[at]), float(column.limits[index]), step, observation
    )
    return KeyMeasure(_cosine(*products.sum(axis=0)), each[lowest], lowest, worst)


def _cosine(product: float, first: float, second: float) -> float:
    """1 for two zero vectors, 0 where only one is: it then did nothing at all."""
    if first == 0.0 or second == 0.0:
        return float(first == second)
    return float(product / np.sqrt(first * second))


def _reasons(key: str, measure: KeyMeasure) -> list[str]:
    reasons = []
    # Written so that a NaN fails.
    if not measure.cosine >= MIN_COSINE:
        reasons.append(
            f"{key}: cosine of (action - noise) is {measure.cosine:.5f}, expected at least {MIN_COSINE} "
            f"(lowest {measure.lowest_cosine:.5f} in observation {measure.lowest_observation})"
        )
    worst = measure.worst
    if not worst.error <= worst.limit:
        reasons.append(
            f"{key} {worst.joint}: error {worst.error:.4g} at step {worst.step} of observation "
            f"{worst.observation}, expected at most {worst.limit:.4g} (dataset units)"
        )
    return reasons


def _remarks(column: _Columns, samples: Sequence[_Sample]) -> list[str]:
    """A joint that stays where it is, be it at the best place for a chunk, is wrong by half of what it should
    have moved."""
    moved = [np.ptp(sample.expected_values[column.key][0].astype(np.float64), axis=0) for sample in samples]
    if (np.max(moved, axis=0) > 2 * column.limits).any():
        return []
    return [
        f"{column.key}: in these observations none of its joints moves by more than twice its limit within a "
        "chunk, so one that is frozen need not be noticed"
    ]
