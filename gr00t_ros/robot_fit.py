# SPDX-License-Identifier: Apache-2.0
"""Whether a robot description fits a checkpoint's modality configuration: every mismatch as one line of text.

Used by ``RobotConfig.check_against`` when the policy is configured. What the checkpoint needs must be there;
cameras and states that it does not use may be there as well (recordings hold more than one policy sees);
action groups must match one to one, since a group without a source would never move and an action without a
group would be dropped silently.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from gr00t_ros.robot_types import ActionGroupConfig, StateSource

if TYPE_CHECKING:
    from gr00t_ros.robot import RobotConfig


def mismatches(
    robot: RobotConfig,
    modality: Mapping[str, Any],
    state_widths: Mapping[str, int],
    action_widths: Mapping[str, int],
    horizon: int,
) -> list[str]:
    """All reasons why ``robot`` and the checkpoint do not fit; empty when they do. Arguments as
    ``check_against``."""
    return [
        *_video(robot, modality),
        *_state(robot, modality, state_widths),
        *_action(robot, modality, action_widths, horizon),
    ]


def _video(robot: RobotConfig, modality: Mapping[str, Any]) -> Iterable[str]:
    keys, deltas = _config(modality, "video")
    if not keys:
        yield "video: the checkpoint uses no camera, expected one or more: time is taken from camera frames"
    yield from _missing("video", keys, robot.video)
    used = tuple(key for key in robot.video if key in keys)
    if set(used) == set(keys) and used != keys:
        yield (
            f"video.keys: found the order {', '.join(used)}, expected {', '.join(keys)}: the order in which "
            "the network sees the cameras"
        )
    yield from _past_only("video", deltas)


def _state(robot: RobotConfig, modality: Mapping[str, Any], widths: Mapping[str, int]) -> Iterable[str]:
    keys, deltas = _config(modality, "state")
    yield from _missing("state", keys, robot.state)
    yield from _widths("state", keys, robot.state, widths)
    yield from _past_only("state", deltas)


def _action(
    robot: RobotConfig, modality: Mapping[str, Any], widths: Mapping[str, int], horizon: int
) -> Iterable[str]:
    keys, deltas = _config(modality, "action")
    yield from _missing("action", keys, robot.action)
    for key in robot.action:
        if key not in keys:
            yield f"action.{key}: the checkpoint gives no such action, expected {', '.join(keys) or 'none'}"
    yield from _widths("action", keys, robot.action, widths)
    if len(deltas) > horizon:
        yield f"action: the checkpoint's delta_indices have {len(deltas)} steps, its horizon only {horizon}"
    if not deltas or any(later - earlier != 1 for earlier, later in pairwise(deltas)):
        yield f"action: the checkpoint's delta_indices are {list(deltas)}, expected consecutive steps"


def _config(modality: Mapping[str, Any], kind: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    config = modality.get(kind)
    if config is None:
        return (), ()
    return tuple(config.modality_keys), tuple(int(delta) for delta in config.delta_indices)


def _missing(kind: str, keys: Sequence[str], have: Mapping[str, Any]) -> Iterable[str]:
    for key in keys:
        if key not in have:
            yield f"{kind}.{key}: missing, the checkpoint needs it; found {', '.join(have)}"


def _widths(
    kind: str,
    keys: Sequence[str],
    have: Mapping[str, StateSource] | Mapping[str, ActionGroupConfig],
    widths: Mapping[str, int],
) -> Iterable[str]:
    for key in keys:
        if key in have and key in widths and have[key].width != widths[key]:
            part = have[key]
            names = ", ".join(part.joints if isinstance(part, StateSource) else part.columns)
            yield (
                f"{kind}.{key}: found {have[key].width} columns ({names}), expected {widths[key]} as in the "
                "checkpoint's statistics"
            )


def _past_only(kind: str, deltas: Sequence[int]) -> Iterable[str]:
    if any(delta > 0 for delta in deltas):
        yield f"{kind}: the checkpoint's delta_indices are {list(deltas)}, expected none after 0, the present"
