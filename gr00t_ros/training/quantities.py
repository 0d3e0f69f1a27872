# SPDX-License-Identifier: Apache-2.0
"""What is compared of an action key: which values, in which unit, and what holding still would be.

Joints, scalars and velocities are compared column by column. A pose is compared as four values: x, y, z and
the angle of the turn that is missing, in rad: columns of a rotation have no meaning one by one. Holding still
is the present state for positions, zero for velocities and for deltas; where an action has no state that
says where it is, that is told and nothing is assumed.

Which of these a key is comes from the robot YAML; without one from the checkpoint, which tells poses and
deltas from other values but not velocities from positions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gr00t_model.processing import ModalityConfig
from gr00t_model.processing.modality import ActionConfig
from gr00t_ros.errors import DatasetError
from gr00t_ros.robot import ActionGroupConfig, RobotConfig, StateSource
from gr00t_ros.robot_types import EE_POSE, POSE, POSE_LAYOUTS, POSITION_COLUMNS, SCALAR, VELOCITIES
from gr00t_ros.rotations import between, from_quaternion, to_quaternion

Values = NDArray[np.float64]

# rad, m, rad/s or m/s. What a joint's recorded values span if it moves: 0.6 degrees, about what the play of a
# hobby servo's gears is, and far above the noise of an encoder.
MOTION_SI = 0.01
# The same for a value of unknown unit: a share of the widest value in its key (values of one key are alike),
# and a floor that is nothing in degrees, rad, percent or m.
MOTION_SHARE, MOTION_FLOOR = 0.01, 1e-3
# Share of its limits' range that a scalar (a gripper, say) spans if it moves.
SCALAR_MOTION_SHARE = 0.01
ROTATION = "rotation"
_DEGREE = math.pi / 180.0
# By a checkpoint's name of the layout.
_ROTATIONS = {layout: rotation for rotation, layout in POSE_LAYOUTS.items()}


@dataclass(frozen=True)
class StateValue:
    """Where a value's present state stands in the observation: state key and column."""

    key: str
    column: int


@dataclass(frozen=True)
class StatePose:
    """The state key that says where a pose is, and how its rotation is written."""

    key: str
    rotation: str


@dataclass(frozen=True)
class Quantities:
    """How one action key of D columns is compared, as Q values.

    ``columns`` name the D columns, ``names`` the Q values; ``units`` are those of the values in the dataset
    (``SI``, ``deg``, ``m``, ``rad``, or ``dataset`` where nobody says), ``si`` what one of them is in SI,
    None where nobody says. ``rotation`` is the form of a pose's rotation, None for other keys. ``hold`` are
    the sources of the present state: one per column, or one for a pose; None is no source, and a number is
    what standing still means whatever the state. ``hold_rule`` says it in words. ``motion`` are the spans
    from which on values move, [Q]; None where it depends on the recording.
    """

    key: str
    columns: tuple[str, ...]
    names: tuple[str, ...]
    units: tuple[str, ...]
    si: tuple[float | None, ...]
    rotation: str | None
    hold: tuple[StateValue | StatePose | float | None, ...]
    hold_rule: str
    motion: tuple[float, ...] | None

    @property
    def held(self) -> tuple[bool, ...]:
        """[Q]: which values have something to hold."""
        if self.rotation is not None:
            return (self.hold[0] is not None,) * len(self.names)
        return tuple(source is not None for source in self.hold)

    def errors(self, values: Values, recorded: Values) -> Values:
        """[T, D] and [T, D] to [T, Q]: ``values`` less ``recorded``; for a rotation the angle between.

        Raises DatasetError for a rotation that is none.
        """
        if self.rotation is None:
            return values - recorded
        turns = between(self._turned(recorded, self.rotation), self._turned(values, self.rotation))
        angles = np.linalg.norm(turns, axis=-1, keepdims=True)
        return np.concatenate([values[:, :3] - recorded[:, :3], angles], axis=-1)

    def shown(self, values: Values, origin: Values) -> Values:
        """[T, D] to [T, Q] as a person can follow it: the columns, for a rotation the angle from ``origin``'s
        ([D])."""
        if self.rotation is None:
            return values
        angles = self.errors(values, np.broadcast_to(origin, values.shape))[:, 3:]
        return np.concatenate([values[:, :3], angles], axis=-1)

    def still(self, state: Mapping[str, NDArray[np.float32]]) -> Values:
        """The action [D] that holds the present state ({key: [1, T, D]}, its last step); NaN where there is
        none. Raises DatasetError for a rotation that is none."""
        if self.rotation is None:
            return np.array([_value(source, state) for source in self.hold], np.float64)
        (source,) = self.hold
        pose = np.full(len(self.columns), np.nan)
        if isinstance(source, StatePose):
            now = np.asarray(state[source.key][0, -1:], np.float64)
            turned = from_quaternion(self._turned(now, source.rotation), self.rotation)
            pose = np.concatenate([now[:, :3], turned], axis=-1)[0]
        elif source is not None:  # a delta: no way and no turn
            pose = np.concatenate([np.zeros(3), from_quaternion((0.0, 0.0, 0.0, 1.0), self.rotation)])
        return pose

    def _turned(self, poses: Values, rotation: str) -> Values:
        """The rotations of poses [T, D] as quaternions [T, 4]."""
        try:
            return to_quaternion(poses[:, 3:], rotation)
        except ValueError as error:
            raise DatasetError(
                f"action {self.key}: {error}, in what was recorded or in what the policy gave"
            ) from None

    def moving(self, spans: Values) -> NDArray[np.bool_]:
        """[Q]: which values the recording moves, given the range of each."""
        return np.asarray(spans > self.thresholds(spans), bool)

    def thresholds(self, spans: Values) -> Values:
        """[Q]: the span above which a value moves."""
        if self.motion is not None:
            return np.array(self.motion)
        widest = spans[:3] if self.rotation is not None else spans
        least = max(MOTION_FLOOR, MOTION_SHARE * float(widest.max(initial=0.0)))
        return np.array([MOTION_SI if name == ROTATION else least for name in self.names])

    @property
    def motion_rule(self) -> str:
        """What ``moving`` goes by, in words."""
        if self.motion is not None:
            return (
                f"it spans more than {MOTION_SI:g} in SI (a scalar: {SCALAR_MOTION_SHARE:.0%} of its limits)"
            )
        return f"it spans more than {MOTION_SHARE:.0%} of the widest of its key and {MOTION_FLOOR:g}"


def quantities(
    modality: Mapping[str, ModalityConfig],
    state_widths: Mapping[str, int],
    columns: Mapping[str, Sequence[str]],
    robot: RobotConfig | None = None,
) -> dict[str, Quantities]:
    """How every action key of an embodiment is compared.

    Args:
        modality: the checkpoint's for the embodiment.
        state_widths: columns of each of its state keys.
        columns: names of each action key's columns; a robot's own names take their place.
        robot: says what the values are, in which unit, and by name which joint's state is which.

    Raises:
        DatasetError: a pose has another number of columns than its rotation needs.
    """
    found = {}
    for key in modality["action"].modality_keys:
        config = modality["action"].action_config(key)
        if robot is not None and key in robot.action:
            found[key] = _of_robot(key, config, modality, robot)
        else:
            found[key] = _of_checkpoint(key, config, modality, state_widths, tuple(columns[key]))
    return found


def _of_robot(
    key: str, config: ActionConfig, modality: Mapping[str, ModalityConfig], robot: RobotConfig
) -> Quantities:
    group = robot.action[key]
    states = {name: robot.state[name] for name in modality["state"].modality_keys if name in robot.state}
    scales = [robot.unit(name).scale for name in group.unit_names]
    if group.representation == EE_POSE:
        hold, rule = _hold_pose(key, config, states)
        return Quantities(
            key,
            group.columns,
            (*POSITION_COLUMNS, ROTATION),
            (*(_unit(scale, "m") for scale in scales[:3]), "rad"),
            (*scales[:3], 1.0),
            group.rotation,
            (hold,),
            rule,
            (*(MOTION_SI / scale for scale in scales[:3]), MOTION_SI),
        )
    sources: tuple[StateValue | float | None, ...]
    if group.representation in VELOCITIES:
        sources, rule = (0.0,) * group.width, "zero velocity"
    elif config.rep == "DELTA":
        sources, rule = (0.0,) * group.width, "a delta of zero"
    else:
        sources = tuple(_joint(joint, states) for joint in group.joints)
        lost = [joint for joint, source in zip(group.joints, sources, strict=True) if source is None]
        rule = "the present state of the same joints"
        if lost:
            rule += f"; none for {', '.join(lost)}: no state key of the checkpoint holds their position"
    return Quantities(
        key,
        group.columns,
        group.columns,
        tuple(_unit(scale, "SI") for scale in scales),
        tuple(scales),
        None,
        sources,
        rule,
        tuple(_joint_motion(robot, group, i) / scale for i, scale in enumerate(scales)),
    )


def _of_checkpoint(
    key: str,
    config: ActionConfig,
    modality: Mapping[str, ModalityConfig],
    state_widths: Mapping[str, int],
    columns: tuple[str, ...],
) -> Quantities:
    rotation = _ROTATIONS.get(config.format) if config.type == "EEF" else None
    width = len(columns)
    if rotation is not None and width != 3 + len(from_quaternion((0.0, 0.0, 0.0, 1.0), rotation)):
        raise DatasetError(f"action {key} has {width} columns, a pose with {config.format} has others")
    names = columns if rotation is None else (*POSITION_COLUMNS, ROTATION)
    units = tuple("rad" if name == ROTATION else "dataset" for name in names)
    state_key = config.state_key or key
    fits = state_key in modality["state"].modality_keys and state_widths.get(state_key) == width
    hold: tuple[StateValue | StatePose | float | None, ...]
    if config.rep == "DELTA":
        hold, rule = (0.0,) * (1 if rotation else width), "a delta of zero"
    elif not fits:
        hold = (None,) * (1 if rotation else width)
        rule = f"none: the checkpoint has no state key {state_key} of the same width"
    elif rotation is not None:
        hold, rule = (StatePose(state_key, rotation),), f"the present state {state_key}"
    else:
        hold = tuple(StateValue(state_key, column) for column in range(width))
        rule = f"the present state {state_key}"
    si = tuple(1.0 if name == ROTATION else None for name in names)
    return Quantities(key, columns, names, units, si, rotation, hold, rule, None)


def _hold_pose(
    key: str, config: ActionConfig, states: Mapping[str, StateSource]
) -> tuple[StatePose | float | None, str]:
    if config.rep == "DELTA":
        return 0.0, "a delta of zero"
    state_key = config.state_key or key
    source = states.get(state_key)
    if source is None or source.type != POSE:
        return None, f"none: the checkpoint has no pose among its state keys that is called {state_key}"
    return StatePose(state_key, source.rotation), f"the present pose {state_key}"


def _joint(joint: str, states: Mapping[str, StateSource]) -> StateValue | None:
    for key, source in states.items():
        if source.type != POSE and source.field == "position" and joint in source.joints:
            return StateValue(key, source.joints.index(joint))
    return None


def _joint_motion(robot: RobotConfig, group: ActionGroupConfig, column: int) -> float:
    """SI: from which span on a column moves."""
    if group.representation != SCALAR:
        return MOTION_SI
    limits = robot.limits[group.joints[column]]
    return SCALAR_MOTION_SHARE * (limits.max - limits.min) if limits.has_ends else MOTION_SI


def _unit(scale: float, si: str) -> str:
    if scale == 1.0:
        return si
    return "deg" if math.isclose(scale, _DEGREE, rel_tol=1e-3) else "dataset"


def _value(source: StateValue | StatePose | float | None, state: Mapping[str, NDArray[np.float32]]) -> float:
    if isinstance(source, StateValue):
        return float(state[source.key][0, -1, source.column])
    return float("nan") if source is None or isinstance(source, StatePose) else source
