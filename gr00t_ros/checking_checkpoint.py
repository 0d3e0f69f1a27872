# SPDX-License-Identifier: Apache-2.0
"""A checkpoint's files against a robot description: what the policy would refuse at configure, without its
weights.

Keys, widths and horizon are compared by the code that the policy uses. The statistics say in which range the
robot was trained; held against the limits, they show a dataset in other units, which nothing else would.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gr00t_ros import robot_fit
from gr00t_ros.findings import Finding, fail, ok, warn
from gr00t_ros.robot import RobotConfig
from gr00t_ros.robot_types import JOINT_POSITION, SCALAR
from gr00t_ros.units import to_si

PART = "checkpoint"
# Statistics that span this many times a joint's range are of other units: degrees are 57 times radians,
# percent of a gripper's travel 50 times and more.
OTHER_UNITS = 5.0
# Share of a joint's range by which statistics may stick out: a demonstration leans on a limit.
OUTSIDE = 0.1


def check_checkpoint(
    robot: RobotConfig, directory: str | Path
) -> tuple[list[Finding], Mapping[str, Any] | None]:
    """Findings, and the checkpoint's modality configuration for the robot's tag (None where it has none).

    Reads the JSON files and the headers of the weight files. Raises nothing for a wrong checkpoint.
    """
    # torch takes seconds to import: who gives no checkpoint need not wait for it.
    from gr00t_model.checkpoint import check_files, read_config, resolve
    from gr00t_model.errors import Gr00tError
    from gr00t_model.processing import Gr00tProcessor

    try:
        path = resolve(directory)
    except Gr00tError as error:
        return [fail(PART, str(error), "the directory of a checkpoint", "correct --checkpoint")], None
    files = "config.json and weight files of GR00T N1.6"
    findings = [
        fail(PART, text, files, "download or copy the checkpoint again") for text in check_files(path)
    ]
    if not findings:
        findings.append(ok(PART, f"files of {path.name} complete", files))
    tag = robot.embodiment_tag
    try:
        processor = Gr00tProcessor.from_pretrained(path)
        modality = processor.modality(tag)
        processor.embodiment_id(tag)
        state_widths, action_widths = processor.state_widths(tag), processor.action_widths(tag)
    except Gr00tError as error:
        remedy = "take the checkpoint that was trained for this robot, or correct embodiment_tag"
        return [*findings, fail(PART, str(error), f"embodiment {tag} with its statistics", remedy)], None
    try:
        horizon = read_config(path).action_horizon
    except Gr00tError:  # told above
        horizon = len(modality["action"].delta_indices)
    problems = robot_fit.mismatches(robot, modality, state_widths, action_widths, horizon)
    remedy = "correct the robot YAML, or take the checkpoint that was trained for it"
    findings += [fail(PART, text, f"what embodiment {tag} has", remedy) for text in problems]
    if problems:
        return findings, modality
    steps = len(modality["action"].delta_indices)
    text = (
        f"embodiment {tag}: {len(modality['video'].modality_keys)} cameras, "
        f"state {_sum(state_widths)}, action {_sum(action_widths)}, "
        f"{steps} steps = {steps / robot.step_rate:g} s"
    )
    findings.append(ok(PART, text, "keys, widths and horizon of the robot YAML"))
    return [*findings, *_check_statistics(robot, modality, _read_statistics(path, tag))], modality


def _check_statistics(
    robot: RobotConfig, modality: Mapping[str, Any], statistics: Mapping[str, Any]
) -> list[Finding]:
    """Ranges of the training data, in SI, against the joints' limits."""
    findings: list[Finding] = []
    compared = 0
    action = modality["action"]
    # Deltas are differences, which no limit bounds. Where an action is relative to the state, the statistics
    # of `action` still are of the dataset's own values; those of the differences lie apart.
    deltas = {key for key in action.modality_keys if action.action_config(key).rep == "DELTA"}
    # Positions of joints: velocities are clipped at their limits without harm, and poses have other columns.
    positions = {key: g for key, g in robot.action.items() if g.representation in (JOINT_POSITION, SCALAR)}
    sources = {
        **{("state", key): s.joints for key, s in robot.state.items() if s.field == "position"},
        **{("action", key): g.joints for key, g in positions.items() if key not in deltas},
    }
    for (kind, key), joints in sources.items():
        ranges = _ranges(robot, joints, statistics.get(kind, {}).get(key))
        for joint, span in zip(joints, ranges, strict=False):
            limit = robot.limits.get(joint)
            if limit is None:
                continue
            compared += 1
            low, high = min(span), max(span)
            part, room = f"{PART} {kind}.{key}", limit.max - limit.min
            found = f"{joint} was trained from {low:.3g} to {high:.3g}"
            expected = f"inside its limits, {limit.min:g} to {limit.max:g}"
            if high - low > OTHER_UNITS * room or low > limit.max or high < limit.min:
                remedy = (
                    "units of the dataset: set scale, offset and sign of the joint; or correct its limits"
                )
                findings.append(fail(part, found, expected, remedy))
            elif low < limit.min - OUTSIDE * room or high > limit.max + OUTSIDE * room:
                remedy = "what lies outside will be clipped: see whether limits and units are meant so"
                findings.append(warn(part, found, expected, remedy))
    if not findings and compared:
        findings.append(ok(PART, f"{compared} trained ranges fit", "training data inside the limits"))
    return findings


def _ranges(robot: RobotConfig, joints: tuple[str, ...], entry: Any) -> NDArray[np.float64]:
    """Where the middle 98% (all, where that is not given) of a key's training data lie: SI [D, 2]."""
    fields = ("q01", "q99") if isinstance(entry, Mapping) and {"q01", "q99"} <= set(entry) else ("min", "max")
    try:
        ends = np.array([entry[name] for name in fields], np.float64)
    except (TypeError, KeyError, ValueError):
        return np.empty((0, 2))
    if ends.shape != (2, len(joints)) or not np.isfinite(ends).all():
        return np.empty((0, 2))  # scaling looks at other fields, and has checked those
    return np.asarray(to_si(ends, [robot.unit(joint) for joint in joints]).T, np.float64)


def _read_statistics(path: Path, tag: str) -> Mapping[str, Any]:
    from gr00t_model.processing.processor import STATISTICS_FILE

    # The processor has read this very file.
    entry = json.loads((path / STATISTICS_FILE).read_text(encoding="utf-8"))[tag]
    return {kind: entry.get(kind) or {} for kind in ("state", "action")}


def _sum(widths: Mapping[str, int]) -> str:
    return "+".join(str(width) for width in widths.values()) or "0"
