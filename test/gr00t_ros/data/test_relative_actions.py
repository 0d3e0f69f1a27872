# SPDX-License-Identifier: Apache-2.0
"""Relative-action statistics are those of what the processor feeds the network."""

from __future__ import annotations

import numpy as np
import pytest

from gr00t_model.processing import ActionConfig, KeyStatistics, ModalityConfig
from gr00t_model.processing.poses import from_transforms, to_transforms
from gr00t_model.processing.state_action import ScalingOptions, StateActionCodec
from gr00t_model.processing.statistics import EmbodimentStatistics
from gr00t_ros.data.dataset_form import features_of, modality_of
from gr00t_ros.data.relative_actions import RelativeActions, relations_of
from gr00t_ros.data.rows import Layout
from gr00t_ros.errors import DatasetError

ROT6D = ("x", "y", "z", "r11", "r12", "r13", "r21", "r22", "r23")
ROTVEC = ("x", "y", "z", "rx", "ry", "rz")
JOINTS = ("a", "b", "c")


def relations(state: tuple, action: tuple) -> dict:
    layout = Layout("robot", 20.0, (), state, action)
    return {r.key: r for r in relations_of(modality_of(layout), features_of(layout, {}))}


def test_only_actions_with_a_state_of_the_same_columns_are_relative() -> None:
    state = (
        ("arm", JOINTS),
        ("hand", ROT6D),
        ("base", ("vx",)),
        ("tool", ("x", "y", "z", "qx", "qy", "qz", "qw")),
    )
    action = (("arm", JOINTS), ("hand", ROT6D), ("base", ("wz",)), ("tool", state[3][1]), ("lift", ("h",)))
    found = relations(state, action)
    assert set(found) == {"arm", "hand"}
    assert found["arm"].pose is None
    assert found["hand"].pose == "XYZ_ROT6D"
    assert found["hand"].action == ("action", 3, 12)
    assert relations_of(None, {}) == []


def random_poses(rng: np.random.Generator, count: int, columns: tuple[str, ...]) -> np.ndarray:
    rotvecs = rng.normal(scale=0.6, size=(count, 6))
    transforms = to_transforms(rotvecs, "XYZ_ROTVEC")
    return from_transforms(transforms, "XYZ_ROT6D" if columns == ROT6D else "XYZ_ROTVEC")


@pytest.mark.parametrize(("columns", "layout"), [(ROT6D, "XYZ_ROT6D"), (ROTVEC, "XYZ_ROTVEC"), (JOINTS, "")])
def test_the_processor_scales_the_data_to_exactly_its_range(columns: tuple[str, ...], layout: str) -> None:
    """With these statistics the encoded chunks span -1 to 1 at every step: range and formula are its own."""
    horizon, rows = 4, 40
    rng = np.random.default_rng(3)
    make = random_poses if layout else lambda rng, count, columns: rng.normal(size=(count, len(columns)))
    states, actions = make(rng, rows, columns), make(rng, rows, columns)
    groups = (("hand", columns),)
    running = RelativeActions(list(relations(groups, groups).values()), horizon)
    running.add({"observation.state": states[:25], "action": actions[:25]})
    running.add({"observation.state": states[25:], "action": actions[25:]})
    statistics = running.result()["hand"]

    config = ActionConfig("RELATIVE", "EEF" if layout else "NON_EEF", layout or "DEFAULT")
    modality = {
        "state": ModalityConfig((0,), ("hand",)),
        "action": ModalityConfig(tuple(range(horizon)), ("hand",), action_configs=(config,)),
    }
    wide = KeyStatistics.from_limits([-9.0] * len(columns), [9.0] * len(columns))
    known = {"state": {"hand": wide}, "action": {"hand": wide}, "relative_action": {"hand": statistics}}
    codec = StateActionCodec.build(
        "robot", modality, EmbodimentStatistics.from_mapping("robot", known), ScalingOptions()
    )
    first = np.array([k for k in range(rows) if k + horizon <= 25 or (k >= 25 and k + horizon <= rows)])
    chunks = actions[first[:, None] + np.arange(horizon)]
    encoded, _ = codec.encode_action(
        {"hand": chunks}, {"hand": states[first][:, None]}, len(columns), horizon, clip=False
    )
    np.testing.assert_allclose(encoded.min(axis=0), -1.0, atol=1e-5)
    np.testing.assert_allclose(encoded.max(axis=0), 1.0, atol=1e-5)


def test_an_episode_shorter_than_the_chunk_has_none() -> None:
    groups = (("arm", JOINTS),)
    running = RelativeActions(list(relations(groups, groups).values()), 8)
    running.add({"observation.state": np.zeros((7, 3)), "action": np.ones((7, 3))})
    assert running.result() == {}


def test_a_pose_without_orientation_is_refused_by_key() -> None:
    groups = (("hand", ROT6D),)
    running = RelativeActions(list(relations(groups, groups).values()), 1)
    with pytest.raises(DatasetError, match="state hand has no orientation"):
        running.add({"observation.state": np.zeros((3, 9)), "action": np.zeros((3, 9))})
    with pytest.raises(DatasetError, match="horizon of 0"):
        RelativeActions([], 0)
