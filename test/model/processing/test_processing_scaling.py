# SPDX-License-Identifier: Apache-2.0
"""State and action values: what is encoded decodes to itself, in every mode."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gr00t_model.errors import ConfigError, EmbodimentError, Gr00tError, ObservationError
from gr00t_model.processing import ActionConfig, KeyStatistics, ModalityConfig, poses
from gr00t_model.processing.scaling import MeanStd, MinMax, SinCos
from gr00t_model.processing.state_action import ScalingOptions, StateActionCodec
from gr00t_model.processing.statistics import EmbodimentStatistics

STEPS, WIDTH = 4, 3
UNIT = st.floats(-1, 1, width=32)
FRACTIONS = arrays(np.float64, (2, STEPS, WIDTH), elements=UNIT)
LOWS = arrays(np.float64, (STEPS, WIDTH), elements=st.floats(-100, 100, width=32))
SPANS = arrays(np.float64, (STEPS, WIDTH), elements=st.floats(0, 100, width=32))
STATES = arrays(np.float64, (2, 2, WIDTH), elements=st.floats(-10, 10, width=32))


def codec_for(
    action: ActionConfig,
    statistics: dict[str, Any],
    *,
    mean_std: bool = False,
    options: ScalingOptions | None = None,
    width: int = WIDTH,
) -> StateActionCodec:
    """A robot with one state and one action group, ``arm``."""
    modalities = {
        "state": ModalityConfig((-1, 0), ("arm",)),
        "action": ModalityConfig(
            tuple(range(STEPS)),
            ("arm",),
            mean_std_embedding_keys=("arm",) if mean_std else (),
            action_configs=(action,),
        ),
    }
    state = {"arm": KeyStatistics.from_limits(-np.ones(width), np.ones(width))}
    groups = {"state": state, **{group: {"arm": entry} for group, entry in statistics.items()}}
    parsed = EmbodimentStatistics.from_mapping("robot", groups)
    return StateActionCodec.build("robot", modalities, parsed, options or ScalingOptions())


def round_trip(codec: StateActionCodec, actions: np.ndarray, state: np.ndarray) -> np.ndarray:
    values, mask = codec.encode_action({"arm": actions}, {"arm": state}, 128, 50)
    assert values.shape == mask.shape == (2, 50, 128)
    assert mask.sum() == actions.size
    assert (values[mask == 0] == 0).all()
    return codec.decode_action(values, {"arm": state})["arm"]


@example(
    np.zeros((STEPS, WIDTH)), np.zeros((STEPS, WIDTH)), np.zeros((2, STEPS, WIDTH)), np.zeros((2, 2, WIDTH))
)
@given(LOWS, SPANS, FRACTIONS, STATES)
def test_min_max_actions_come_back(
    low: np.ndarray, span: np.ndarray, fraction: np.ndarray, state: np.ndarray
) -> None:
    low, span = low[0], span[0]
    actions = low + (fraction + 1) / 2 * span
    codec = codec_for(ActionConfig(), {"action": KeyStatistics.from_limits(low, low + span)})
    np.testing.assert_allclose(round_trip(codec, actions, state), actions, atol=1e-4, rtol=1e-5)


@given(LOWS, SPANS, FRACTIONS, STATES)
def test_percentile_actions_come_back(
    low: np.ndarray, span: np.ndarray, fraction: np.ndarray, state: np.ndarray
) -> None:
    statistics = KeyStatistics.from_limits(low[0], low[0] + span[0])
    inner_low, inner_high = statistics.pair("q01", "q99")
    actions = inner_low + (fraction + 1) / 2 * (inner_high - inner_low)
    codec = codec_for(ActionConfig(), {"action": statistics}, options=ScalingOptions(use_percentiles=True))
    np.testing.assert_allclose(round_trip(codec, actions, state), actions, atol=1e-4, rtol=1e-5)


@given(LOWS, SPANS, FRACTIONS, STATES)
def test_mean_std_actions_come_back_unclipped(
    mean: np.ndarray, std: np.ndarray, fraction: np.ndarray, state: np.ndarray
) -> None:
    mean, std = mean[0], np.where(std[0] < 1e-3, 0, std[0])
    entry = {"mean": mean, "std": std}
    actions = mean + 5 * fraction * std
    codec = codec_for(
        ActionConfig(), {"action": entry}, mean_std=True, options=ScalingOptions(clip_outliers=False)
    )
    np.testing.assert_allclose(round_trip(codec, actions, state), actions, atol=1e-3, rtol=1e-5)


@given(LOWS, SPANS, FRACTIONS, STATES)
def test_relative_joints_with_statistics_a_step_come_back(
    low: np.ndarray, span: np.ndarray, fraction: np.ndarray, state: np.ndarray
) -> None:
    actions = low + (fraction + 1) / 2 * span + state[:, -1:]
    codec = codec_for(
        ActionConfig(rep="RELATIVE"), {"relative_action": KeyStatistics.from_limits(low, low + span)}
    )
    np.testing.assert_allclose(round_trip(codec, actions, state), actions, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("layout", ["XYZ_ROT6D", "XYZ_ROTVEC"])
@given(st.integers(0, 2**32 - 1))
def test_relative_poses_come_back(layout: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    width = poses.WIDTHS[layout]
    transforms = poses.to_transforms(
        np.concatenate([rng.normal(size=(2, STEPS + 2, 3)), rng.uniform(-1.8, 1.8, (2, STEPS + 2, 3))], -1),
        "XYZ_ROTVEC",
    )
    both = poses.from_transforms(transforms, layout)
    actions, state = both[:, :STEPS], both[:, STEPS:]
    limit = np.full(width, 20.0)
    codec = codec_for(
        ActionConfig("RELATIVE", "EEF", layout),
        {"relative_action": KeyStatistics.from_limits(-limit, limit)},
        width=width,
    )
    found = poses.to_transforms(round_trip(codec, actions, state).astype(np.float64), layout)
    np.testing.assert_allclose(found, poses.to_transforms(actions, layout), atol=1e-4)


@given(arrays(np.float64, (2, STEPS, WIDTH), elements=st.floats(-3.14, 3.14)))
def test_angles_come_back_from_sine_and_cosine(angles: np.ndarray) -> None:
    encoded = SinCos().encode(angles)
    assert encoded.shape == (2, STEPS, 2 * WIDTH)
    np.testing.assert_allclose(encoded[..., :WIDTH], np.sin(angles))
    np.testing.assert_allclose(SinCos().decode(encoded), angles, atol=1e-12)


def test_a_constant_value_becomes_zero_and_decodes_to_itself() -> None:
    scaling = MinMax(np.array([2.0]), np.array([2.0]))
    assert scaling.encode(np.array([[5.0]])) == 0
    assert scaling.decode(np.array([[0.7]])) == 2.0


def test_a_value_without_deviation_passes_unchanged_both_ways() -> None:
    scaling = MeanStd(np.array([2.0]), np.array([0.0]))
    assert scaling.encode(np.array([[5.0]])) == 5.0
    assert scaling.decode(np.array([[5.0]])) == 5.0


def test_the_networks_overshoot_stays_in_the_range_of_the_data() -> None:
    scaling = MinMax(np.array([-2.0]), np.array([4.0]))
    assert scaling.decode(np.array([[1.5], [-9.0]])).ravel().tolist() == [4.0, -2.0]


def test_clipping_follows_the_switch_and_the_caller() -> None:
    statistics = {"action": KeyStatistics.from_limits([-1.0] * 3, [1.0] * 3)}
    actions, state = {"arm": np.full((1, STEPS, 3), 3.0)}, {"arm": np.zeros((1, 2, 3))}
    on = codec_for(ActionConfig(), statistics)
    off = codec_for(ActionConfig(), statistics, options=ScalingOptions(clip_outliers=False))
    assert on.encode_action(actions, state, 8, 8)[0].max() == 1.0
    assert on.encode_action(actions, state, 8, 8, clip=False)[0].max() == 3.0
    assert off.encode_action(actions, state, 8, 8)[0].max() == 3.0
    assert off.encode_action(actions, state, 8, 8, clip=True)[0].max() == 1.0


def test_actions_may_be_shorter_than_the_horizon() -> None:
    statistics = KeyStatistics.from_limits(
        -np.ones((STEPS, 3)), np.ones((STEPS, 3)) * np.arange(1, 5)[:, None]
    )
    codec = codec_for(ActionConfig(rep="RELATIVE"), {"relative_action": statistics})
    actions, state = {"arm": np.full((1, 2, 3), 0.5)}, {"arm": np.zeros((1, 2, 3))}
    values, mask = codec.encode_action(actions, state, 8, 8)
    np.testing.assert_allclose(values[0, :2, 0], [0.5, 0.0], atol=1e-6)
    assert mask.sum(axis=(0, 2)).tolist() == [3, 3, 0, 0, 0, 0, 0, 0]


def test_relative_to_another_state_group() -> None:
    modalities = {
        "state": ModalityConfig((0,), ("base", "arm_qpos")),
        "action": ModalityConfig(
            (0,), ("arm",), action_configs=(ActionConfig("RELATIVE", state_key="arm_qpos"),)
        ),
    }
    limits = KeyStatistics.from_limits([-1.0, -1.0], [1.0, 1.0])
    groups = {"state": {"base": limits, "arm_qpos": limits}, "relative_action": {"arm": limits}}
    codec = StateActionCodec.build(
        "robot", modalities, EmbodimentStatistics.from_mapping("robot", groups), ScalingOptions()
    )
    state = {"arm_qpos": np.full((1, 1, 2), 5.0)}  # the only group that decoding needs
    assert codec.decode_action(np.full((1, 1, 2), 0.25), state)["arm"].tolist() == [[[5.25, 5.25]]]


@given(arrays(np.float64, 3, elements=st.floats(-3, 3)))
def test_rotation_vectors_survive_matrices(rotvec: np.ndarray) -> None:
    angle = np.linalg.norm(rotvec)
    assume(angle < 3.1)
    matrix = poses.rotvecs_to_matrices(rotvec)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(np.trace(matrix), 1 + 2 * np.cos(angle), atol=1e-12)
    np.testing.assert_allclose(poses.matrices_to_rotvecs(matrix), rotvec, atol=1e-7)


@pytest.mark.parametrize(
    "axis", [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.6, 0.8, 0.0], [0.0, -0.6, 0.8]]
)
def test_half_turns_keep_their_axis(axis: list[float]) -> None:
    found = poses.matrices_to_rotvecs(poses.rotvecs_to_matrices(np.pi * np.array(axis)))
    assert np.linalg.norm(found) == pytest.approx(np.pi)
    np.testing.assert_allclose(np.abs(found @ axis), np.pi, atol=1e-6)


def test_a_quarter_turn_about_z_reads_as_rows() -> None:
    pose = np.array([[1.0, 2.0, 3.0, 0.0, 0.0, np.pi / 2]])
    rows = poses.from_transforms(poses.to_transforms(pose, "XYZ_ROTVEC"), "XYZ_ROT6D")
    np.testing.assert_allclose(rows, [[1, 2, 3, 0, -1, 0, 1, 0, 0]], atol=1e-12)


@pytest.mark.parametrize("rows", [[0.0] * 6, [1.0, 0, 0, 2.0, 0, 0]], ids=["zero", "parallel"])
def test_a_pose_without_orientation_is_refused(rows: list[float]) -> None:
    with pytest.raises(Gr00tError, match="no orientation"):
        poses.rows_to_matrices(np.array(rows))


def test_a_decoded_pose_without_orientation_is_refused_with_its_key() -> None:
    limit = np.ones(9)
    codec = codec_for(
        ActionConfig("RELATIVE", "EEF", "XYZ_ROT6D"),
        {"relative_action": KeyStatistics.from_limits(-limit, limit)},
        width=9,
    )
    state = np.tile([0, 0, 0, 1, 0, 0, 0, 1, 0.0], (1, 2, 1))
    with pytest.raises(Gr00tError, match="the network's output for arm has no orientation") as caught:
        codec.decode_action(np.zeros((1, STEPS, 9)), {"arm": state})
    assert not isinstance(caught.value, ObservationError), "nothing is wrong with the observation"
    with pytest.raises(ObservationError, match="state arm has no orientation"):
        codec.decode_action(np.ones((1, STEPS, 9)), {"arm": np.zeros((1, 2, 9))})
    with pytest.raises(ObservationError, match="action arm has no orientation"):
        codec.encode_action({"arm": np.zeros((1, STEPS, 9))}, {"arm": state}, 16, 16)


@pytest.mark.parametrize("layout", ["XYZ_ROT6D", "XYZ_ROTVEC"])
def test_a_neutral_state_suits_poses(layout: str) -> None:
    width = poses.WIDTHS[layout]
    codec = codec_for(
        ActionConfig("RELATIVE", "EEF", layout),
        {"relative_action": KeyStatistics.from_limits(-np.ones(width), np.ones(width))},
        width=width,
    )
    state = codec.neutral_state()
    assert state["arm"].dtype == np.float32
    expected = [0, 0, 0, 1, 0, 0, 0, 1, 0] if width == 9 else [0] * 6
    assert state["arm"].tolist() == [[expected] * 2]
    pose = np.arange(width) / 10 - 0.35
    normalized = np.broadcast_to(pose, (1, STEPS, width))
    found = poses.to_transforms(codec.decode_action(normalized, state)["arm"][0, 0].astype(float), layout)
    np.testing.assert_allclose(found, poses.to_transforms(pose, layout), atol=1e-6)


def test_a_neutral_state_is_zero_elsewhere_and_honours_the_switch_for_relative_actions() -> None:
    limits = KeyStatistics.from_limits(-np.ones(9), np.ones(9))
    pose = ActionConfig("RELATIVE", "EEF", "XYZ_ROT6D")
    absolute = codec_for(pose, {"action": limits}, width=9, options=ScalingOptions(use_relative_action=False))
    for codec in (absolute, codec_for(ActionConfig("RELATIVE"), {"relative_action": limits}, width=9)):
        assert codec.neutral_state()["arm"].tolist() == [[[0.0] * 9] * 2]
        codec.decode_action(np.zeros((1, STEPS, 9)), codec.neutral_state())


LIMITS = KeyStatistics.from_limits([-1.0] * 3, [1.0] * 3)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "state: missing arm, found none"),
        ({"leg": 1}, "state: missing arm, found leg"),
        ({"arm": np.zeros((1, 2, 4))}, r"state.arm: shape \[1, 2, 4\], expected \[1, 2, 3\]"),
        ({"arm": np.zeros((1, 1, 3))}, r"state.arm: shape \[1, 1, 3\], expected \[1, 2, 3\]"),
        ({"arm": np.zeros((2, 3))}, r"state.arm: shape \[2, 3\], expected \[B, 2, 3\]"),
        ({"arm": np.zeros((0, 2, 3))}, r"state.arm: shape \[0, 2, 3\], expected \[B, 2, 3\]"),
        (
            {"arm": [["left"]]},
            r"state.arm: not an array of numbers \(found type <U4\), expected float32 \[B, T, 3\]",
        ),
        ({"arm": np.full((1, 2, 3), np.nan)}, r"state.arm: non-finite value nan at \[0, 0, 0\]"),
        ({"arm": np.full((1, 2, 3), np.inf)}, r"state.arm: non-finite value inf at \[0, 0, 0\]"),
        ([1.0], "state: found list, expected a mapping"),
        ({"arm": np.full((1, 2, 3), 1j)}, "state.arm: not an array of numbers .found type complex128"),
        ({"arm": [[[1j] * 3] * 2]}, "state.arm: not an array of numbers .found type complex128"),
        ({"arm": [[["1", "2", "3"]] * 2]}, "state.arm: not an array of numbers .found type <U1"),
        ({"arm": [[[10**400] * 3] * 2]}, "state.arm: not an array of numbers .*too large"),
        ({"arm": [[[1, 2, 3], [1, 2]]]}, "state.arm: not an array of numbers .*inhomogeneous"),
        ({"arm": [[[None] * 3] * 2]}, "state.arm: non-finite value nan"),
        ({"arm": torch.zeros((1, 2, 3), requires_grad=True)}, "state.arm: not an array of numbers .*grad"),
    ],
)
def test_a_bad_state_is_named(state: Any, message: str) -> None:
    with pytest.raises(ObservationError, match=message):
        codec_for(ActionConfig(), {"action": LIMITS}).encode_state(state, 128)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, STEPS + 1, 3), r"expected \[1, 1..4, 3\]"),
        ((1, STEPS, 2), r"expected \[1, 4, 3\]"),
        ((STEPS, 3), r"expected \[B, 1..4, 3\]"),
    ],
)
def test_bad_actions_are_named(shape: tuple[int, ...], message: str) -> None:
    codec = codec_for(ActionConfig(), {"action": LIMITS})
    with pytest.raises(ObservationError, match=rf"action.arm: shape .*{message}"):
        codec.encode_action({"arm": np.zeros(shape)}, {"arm": np.zeros((1, 2, 3))}, 128, 50)


@pytest.mark.parametrize("shape", [(4, 3), (1, 3, 3), (1, 4, 2)])
def test_a_network_output_that_is_too_small_is_refused(shape: tuple[int, ...]) -> None:
    codec = codec_for(ActionConfig(), {"action": LIMITS})
    with pytest.raises(ObservationError, match=r"expected \[B, at least 4, at least 3\] for robot"):
        codec.decode_action(np.zeros(shape), {})


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_network_output_that_is_not_finite_is_refused(value: float) -> None:
    codec = codec_for(ActionConfig(), {"action": LIMITS})
    with pytest.raises(Gr00tError, match="output for robot holds non-finite values"):
        codec.decode_action(np.full((1, STEPS, 3), value), {})


def test_a_network_output_that_is_no_array_is_refused() -> None:
    with pytest.raises(ObservationError, match="normalized actions: not an array of numbers"):
        codec_for(ActionConfig(), {"action": LIMITS}).decode_action([[[1.0, 2.0], [3.0]]], {})


@pytest.mark.filterwarnings("error")
def test_values_beyond_float32_never_pass_silently() -> None:
    statistics: dict[str, Any] = {"action": {"mean": [0.0] * 3, "std": [1e-30] * 3}}
    codec = codec_for(ActionConfig(), statistics, mean_std=True, options=ScalingOptions(clip_outliers=False))
    state = {"arm": np.zeros((1, 2, 3))}
    for size in (1e9, 1e300):
        with pytest.raises(ObservationError, match=r"action\.arm: .*too far from the statistics"):
            codec.encode_action({"arm": np.full((1, STEPS, 3), size)}, state, 8, 8)
    with pytest.raises(ObservationError, match=r"state\.arm: a value of size 1e\+308 is too far"):
        codec.encode_state({"arm": np.full((1, 2, 3), 1e308)}, 8)
    wide = codec_for(ActionConfig(), {"action": {"mean": [0.0] * 3, "std": [1e30] * 3}}, mean_std=True)
    with pytest.raises(Gr00tError, match="output for arm is too large"):
        wide.decode_action(np.full((1, STEPS, 3), 1e20), state)


def test_relative_actions_of_another_batch_are_refused() -> None:
    codec = codec_for(ActionConfig("RELATIVE"), {"relative_action": LIMITS})
    with pytest.raises(ObservationError, match=r"state.arm: shape \[1, 2, 3\], expected \[2, T, 3\]"):
        codec.decode_action(np.zeros((2, STEPS, 3)), {"arm": np.zeros((1, 2, 3))})


@pytest.mark.parametrize(
    ("statistics", "action", "error", "message"),
    [
        ({}, ActionConfig(), EmbodimentError, "no action statistics for arm"),
        (
            {"action": LIMITS},
            ActionConfig("RELATIVE"),
            EmbodimentError,
            "no relative_action statistics for arm",
        ),
        (
            {"action": {"min": [0, 0, 0]}},
            ActionConfig(),
            ConfigError,
            "statistics.robot.action.arm: max is missing",
        ),
        (
            {"action": {"min": [2, 0, 0], "max": [1, 1, 1]}},
            ActionConfig(),
            ConfigError,
            "lower limit is above",
        ),
        (
            {"action": {"min": [0, 0], "max": [1, 1, 1]}},
            ActionConfig(),
            ConfigError,
            r"max has shape \[3\], expected \[2\]",
        ),
        (
            {"action": {"min": [0, 0, float("nan")], "max": [1, 1, 1]}},
            ActionConfig(),
            ConfigError,
            "min holds non-finite",
        ),
        ({"action": {"min": [10**400] * 3, "max": [1, 1, 1]}}, ActionConfig(), ConfigError, "too large"),
        (
            {"action": {"min": [-1.7e308] * 3, "max": [1, 1, 1]}},
            ActionConfig(),
            ConfigError,
            "beyond float32",
        ),
        ({"action": {"min": ["0"], "max": ["1"]}}, ActionConfig(), ConfigError, "expected lists of numbers"),
        ({"action": {"min": "low", "max": [1]}}, ActionConfig(), ConfigError, "expected lists of numbers"),
        ({"action": [1, 2]}, ActionConfig(), ConfigError, "expected a mapping"),
        ({"action": {}}, ActionConfig(), ConfigError, "no values, expected some of min"),
        (
            {"relative_action": KeyStatistics.from_limits(np.zeros((2, 3)), np.ones((2, 3)))},
            ActionConfig("RELATIVE"),
            ConfigError,
            "given for 2 time steps, expected at least 4",
        ),
        (
            {"relative_action": KeyStatistics.from_limits([0] * 4, [1] * 4)},
            ActionConfig("RELATIVE"),
            ConfigError,
            "4 values a step, but state arm.*has 3",
        ),
        (
            {"relative_action": LIMITS},
            ActionConfig("RELATIVE", "EEF", "XYZ_ROT6D"),
            ConfigError,
            "expected 9 for XYZ_ROT6D",
        ),
    ],
)
def test_statistics_that_do_not_fit_are_refused(
    statistics: dict, action: ActionConfig, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        codec_for(action, statistics)


def test_a_gap_in_numbers_nobody_reads_stops_nobody() -> None:
    entry = {"min": [0.0] * 3, "max": [1.0] * 3, "mean": [float("nan")] * 3}
    codec_for(ActionConfig(), {"action": entry})
