# SPDX-License-Identifier: Apache-2.0
"""A wrong engine is refused and its fault named, a right one passes; the reference is the network's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gr00t_model.checkpoint import load_model, write_random_checkpoint
from gr00t_model.config import Gr00tN1d6Config
from gr00t_model.errors import BackendError, ConfigError, Gr00tError, ObservationError
from gr00t_model.inference.observations import EncodedObservation, synthetic
from gr00t_model.inference.streamed import StreamedNetwork
from gr00t_model.inference.verification import MIN_COSINE, Comparison, compare, reference
from gr00t_model.processing import ActionConfig, Gr00tProcessor, KeyStatistics, ModalityConfig

torch.set_num_threads(1)

STEPS, HORIZON, WIDTH = 8, 10, 16  # 8 of 10 steps and 7 of 16 columns are real
ARM, REACH = 6, 1.5
NAMES = {"arm": ("pan", "lift", "elbow", "flex", "roll", "yaw"), "gripper": ("jaw",)}
LIMITS = {"arm": [0.03] * ARM, "gripper": [3.0]}  # rad; percent
COUNT = 4

Engine = Callable[[EncodedObservation], np.ndarray]


def processor_of(
    actions: dict[str, ActionConfig], ranges: dict[str, tuple[list[float], list[float]]], **options: Any
) -> Gr00tProcessor:
    """One embodiment, ``new_embodiment``, whose states and actions have the same keys and ranges."""
    limits = {key: KeyStatistics.from_limits(low, high) for key, (low, high) in ranges.items()}
    modality = {
        "video": ModalityConfig((0,), ("front", "wrist")),
        "state": ModalityConfig((0,), tuple(ranges)),
        "action": ModalityConfig(tuple(range(STEPS)), tuple(actions), action_configs=tuple(actions.values())),
        "language": ModalityConfig((0,), ("task",)),
    }
    sizes = {"max_state_dim": WIDTH, "max_action_dim": WIDTH, "max_action_horizon": HORIZON}
    return Gr00tProcessor(
        {"new_embodiment": modality},
        {"new_embodiment": {"state": limits, "action": limits, "relative_action": limits}},
        **{**sizes, **options},
    )


def robot(rep: str = "ABSOLUTE") -> Gr00tProcessor:
    """An arm in rad and a gripper in percent."""
    return processor_of(
        {"arm": ActionConfig(rep), "gripper": ActionConfig()},
        {"arm": ([-REACH] * ARM, [REACH] * ARM), "gripper": ([0.0], [100.0])},
    )


def observed(processor: Gr00tProcessor, seed: int = 0, count: int = COUNT) -> list[EncodedObservation]:
    """Observations whose inputs nobody looks at: the engines here are functions."""
    rng = np.random.default_rng(seed)
    inputs = {
        "input_ids": torch.zeros(1, 3, dtype=torch.int64),
        "attention_mask": torch.ones(1, 3, dtype=torch.int64),
        "pixel_values": [torch.zeros(1, 3, 28, 28, dtype=torch.uint8)],
        "state": torch.zeros(1, 1, WIDTH),
        "embodiment_id": torch.tensor([10]),
    }
    return [
        EncodedObservation(
            inputs,
            processor.random_state("new_embodiment", rng),
            rng.standard_normal((1, HORIZON, WIDTH)).astype(np.float32),
        )
        for _ in range(count)
    ]


def moving(seed: int = 1, count: int = COUNT, width: int = WIDTH) -> list[np.ndarray]:
    """Smooth normalised actions between -0.7 and 0.7, far from where decoding cuts; noise in the padding."""
    rng = np.random.default_rng(seed)
    steps = np.linspace(0.0, 1.0, HORIZON)[:, None]
    chunks = []
    for _ in range(count):
        start, way = rng.uniform(-0.5, 0.5, (2, width))
        chunks.append((start + 0.4 * way * steps)[None].astype(np.float32))
    return chunks


def by_number(observations: list[EncodedObservation], chunks: list[np.ndarray]) -> Engine:
    """The engine that answers an observation with its chunk."""
    numbers = {id(observation): number for number, observation in enumerate(observations)}
    return lambda observation: chunks[numbers[id(observation)]]


def judged(change: Callable[[np.ndarray, EncodedObservation], np.ndarray], **options: Any) -> Comparison:
    """The verdict about an engine that gives the network's actions, changed."""
    processor = options.pop("processor", None) or robot()
    observations, chunks = observed(processor), moving()
    right = by_number(observations, chunks)
    return compare(
        lambda observation: change(right(observation).copy(), observation),
        chunks,
        observations,
        processor,
        "new_embodiment",
        **{"limits": LIMITS, "names": NAMES, **options},
    )


def biased(column: int, bias: float) -> Callable[[np.ndarray, EncodedObservation], np.ndarray]:
    """A joint that is ``bias`` off, normalised."""

    def change(actions: np.ndarray, _: EncodedObservation) -> np.ndarray:
        actions[..., column] += bias
        return actions

    return change


# ---- what passes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("rep", ["ABSOLUTE", "RELATIVE"])
def test_the_network_itself_passes(rep: str) -> None:
    verdict = judged(lambda actions, _: actions, processor=robot(rep))
    assert verdict.passed
    assert verdict.reasons == ()
    assert set(verdict.keys) == {"arm", "gripper"}
    for measure in verdict.keys.values():
        assert measure.cosine == pytest.approx(1.0)
        assert measure.worst.error == pytest.approx(0.0, abs=1e-5)
    assert "passed on 4 observations" in str(verdict)


def test_a_tiny_drift_passes_and_is_measured() -> None:
    verdict = judged(biased(2, 0.01 / REACH))
    assert verdict.passed
    worst = verdict.keys["arm"].worst
    assert (worst.joint, worst.column, worst.limit) == ("elbow", 2, 0.03)
    assert worst.error == pytest.approx(0.01, rel=1e-3)
    stored = json.loads(json.dumps(verdict.to_mapping()))
    assert stored["keys"]["arm"]["worst"]["joint"] == "elbow"
    assert stored["passed"] is True


def test_padding_is_not_compared() -> None:
    """Columns and steps beyond the embodiment's are nobody's actions."""

    def change(actions: np.ndarray, _: EncodedObservation) -> np.ndarray:
        actions[..., ARM + 1 :] = 50.0
        actions[:, STEPS:] = -50.0
        return actions

    assert judged(change).passed


# ---- what does not -------------------------------------------------------------------------------


def test_a_bias_of_one_joint_is_caught_and_named() -> None:
    verdict = judged(biased(3, 0.05 / REACH))
    assert not verdict.passed
    assert verdict.keys["arm"].cosine > MIN_COSINE, "the cosine alone would not have seen it"
    (reason,) = verdict.reasons
    assert reason.startswith("arm flex: error 0.05 at step ")
    assert "expected at most 0.03" in reason
    assert str(verdict).startswith("refused: arm flex")


def test_without_limits_the_default_holds_in_dataset_units() -> None:
    assert not judged(biased(3, 0.05 / REACH), limits=None, names=None).passed
    assert judged(biased(3, 0.02 / REACH), limits=None, names=None).passed
    verdict = judged(biased(ARM, 0.1 / 50), limits=None, names=None)
    assert verdict.reasons[0].startswith("gripper 0: error 0.1")


@pytest.mark.parametrize("rep", ["ABSOLUTE", "RELATIVE"])
@pytest.mark.parametrize("frozen", ["zeros", "noise", "state", "first step"])
def test_a_frozen_arm_is_caught(frozen: str, rep: str) -> None:
    processor = robot(rep)

    def freeze(actions: np.ndarray, observation: EncodedObservation) -> np.ndarray:
        if frozen == "zeros":
            return np.zeros_like(actions)
        if frozen == "noise":
            return observation.noise.copy()
        if frozen == "first step":
            actions[:] = actions[:, :1]
            return actions
        still = {key: np.repeat(observation.state[key], STEPS, axis=1) for key in ("arm", "gripper")}
        return processor.encode_action(still, observation.state, "new_embodiment")[0]

    verdict = judged(freeze, processor=processor)
    assert not verdict.passed
    assert any(reason.startswith("arm") for reason in verdict.reasons)
    assert not any(remark.startswith("arm") for remark in verdict.remarks)


def test_a_frozen_arm_that_a_cosine_of_the_actions_would_pass() -> None:
    """Small motion around a large offset: the cosine of the decoded actions is above 0.999 for an arm that
    stays at its first step, and for one that is sent to the middle of its range."""
    processor = processor_of({"arm": ActionConfig()}, {"arm": ([8.0] * ARM, [10.0] * ARM)})
    observations, chunks = observed(processor), [0.5 * chunk for chunk in moving()]
    for frozen in (
        [np.repeat(chunk[:, :1], HORIZON, axis=1) for chunk in chunks],
        [np.zeros_like(chunk) for chunk in chunks],
    ):
        for observation, *both in zip(observations, chunks, frozen, strict=True):
            right, wrong = (processor.decode(c, observation.state, "new_embodiment")["arm"] for c in both)
            assert np.vdot(right, wrong) / np.linalg.norm(right) / np.linalg.norm(wrong) > 0.999
        verdict = compare(by_number(observations, frozen), chunks, observations, processor, "new_embodiment")
        assert not verdict.passed


def test_the_cosine_is_of_what_the_network_did() -> None:
    """An engine that stays at its noise did nothing: cosine 0, whatever the actions look like."""
    verdict = judged(lambda _, observation: observation.noise.copy())
    assert all(measure.cosine == 0.0 for measure in verdict.keys.values())
    assert "arm: cosine of (action - noise) is 0.00000, expected at least 0.999" in verdict.reasons[0]


def test_one_wrong_observation_is_found() -> None:
    processor = robot()
    observations, chunks = observed(processor), moving()
    given = [chunk.copy() for chunk in chunks]
    given[2][0, 5, 1] += 0.2
    verdict = compare(
        by_number(observations, given), chunks, observations, processor, "new_embodiment", LIMITS, names=NAMES
    )
    worst = verdict.keys["arm"].worst
    assert (worst.joint, worst.step, worst.observation) == ("lift", 5, 2)
    assert verdict.keys["arm"].lowest_observation == 2
    assert verdict.keys["arm"].lowest_cosine < verdict.keys["arm"].cosine
    assert not verdict.passed


def not_a_number(actions: np.ndarray, _: EncodedObservation) -> np.ndarray:
    actions[0, 3, 2] = np.nan
    return actions


def refuse(*_: Any) -> np.ndarray:
    raise BackendError("engine backbone.engine: the device is gone")


def stumble(*_: Any) -> np.ndarray:
    raise KeyError("actions")


@pytest.mark.parametrize(
    ("engine", "reason"),
    [
        (not_a_number, "the engine gave nan at [0, 3, 2], expected finite numbers"),
        (lambda actions, _: actions * np.float32(np.inf), "expected finite numbers"),
        (
            lambda actions, _: actions[:, :-1],
            "the engine gave float32 [1, 9, 16], expected float32 [1, 10, 16]",
        ),
        (lambda actions, _: actions[0], "[10, 16], expected"),
        (lambda actions, _: actions.astype(np.int64), "the engine gave int64"),
        (lambda *_: None, "the engine gave object []"),
        (refuse, "engine backbone.engine: the device is gone"),
        (stumble, "KeyError: 'actions'"),
    ],
)
def test_an_engine_that_breaks_has_not_passed(engine: Any, reason: str) -> None:
    verdict = judged(engine)
    assert not verdict.passed
    assert verdict.reasons[0].startswith("observation 0: ")
    assert reason in verdict.reasons[0]
    assert verdict.keys == {}
    assert str(verdict).startswith("refused: ")
    json.dumps(verdict.to_mapping())


def test_ctrl_c_is_not_a_verdict() -> None:
    def interrupt(*_: Any) -> np.ndarray:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        judged(interrupt)


def test_what_the_observations_cannot_show_is_said() -> None:
    processor = robot()
    observations = observed(processor)
    still = [np.zeros((1, HORIZON, WIDTH), np.float32)] * COUNT
    verdict = compare(
        by_number(observations, still), still, observations, processor, "new_embodiment", LIMITS
    )
    assert verdict.passed
    assert [remark.partition(":")[0] for remark in verdict.remarks] == ["arm", "gripper"]


# ---- poses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["XYZ_ROTVEC", "XYZ_ROT6D"])
@pytest.mark.parametrize("rep", ["ABSOLUTE", "RELATIVE"])
def test_poses_are_compared(layout: str, rep: str) -> None:
    width = 6 if layout == "XYZ_ROTVEC" else 9
    processor = processor_of(
        {"eef": ActionConfig(rep, "EEF", layout)}, {"eef": ([-REACH] * width, [REACH] * width)}
    )
    observations, chunks = observed(processor), moving()
    for change, passes in ((0.001, True), (0.1, False)):
        given = [chunk.copy() for chunk in chunks]
        for chunk in given:
            chunk[..., 4] += change
        verdict = compare(by_number(observations, given), chunks, observations, processor, "new_embodiment")
        assert verdict.passed is passes
    assert verdict.keys["eef"].worst.error > 0.03
    assert verdict.keys["eef"].worst.column >= 3


def test_rotation_vectors_on_both_sides_of_half_a_turn_are_near() -> None:
    processor = processor_of(
        {"eef": ActionConfig("ABSOLUTE", "EEF", "XYZ_ROTVEC")}, {"eef": ([-4.0] * 6, [4.0] * 6)}
    )
    observations = observed(processor)
    chunk = np.zeros((1, HORIZON, WIDTH), np.float32)
    chunk[..., 5] = (np.pi - 0.005) / 4.0
    other = chunk.copy()
    other[..., 5] = -(np.pi - 0.005) / 4.0
    verdict = compare(
        by_number(observations, [other] * COUNT), [chunk] * COUNT, observations, processor, "new_embodiment"
    )
    assert verdict.keys["eef"].worst.error == pytest.approx(0.01, abs=1e-4)


# ---- wrong use -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limits": {"arm": [0.03] * ARM}}, "limits are given for arm, expected arm, gripper"),
        ({"limits": {**LIMITS, "arm": [0.03] * 3}}, "limits of arm are .* expected 6 positive numbers"),
        ({"limits": {**LIMITS, "gripper": [0.0]}}, "limits of gripper are"),
        ({"limits": {**LIMITS, "gripper": [np.nan]}}, "limits of gripper are"),
        ({"names": {**NAMES, "arm": ("pan",)}}, "names of arm are pan, expected 6"),
    ],
)
def test_limits_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        judged(lambda actions, _: actions, **options)


def test_references_must_fit_the_observations() -> None:
    processor = robot()
    observations, chunks = observed(processor), moving()
    run = by_number(observations, chunks)
    for few, seen in ((chunks[1:], observations), ([], [])):
        with pytest.raises(ObservationError, match="expected as many"):
            compare(run, few, seen, processor, "new_embodiment")
    with pytest.raises(ObservationError, match="reference 0 has shape"):
        compare(run, [chunk[:, :-1] for chunk in chunks], observations, processor, "new_embodiment")


# ---- for any joint and any size ------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    column=st.integers(0, ARM),
    share=st.floats(1.02, 5.0),
    sign=st.sampled_from([-1, 1]),
    seed=st.integers(0, 1000),
    rep=st.sampled_from(["ABSOLUTE", "RELATIVE"]),
)
def test_any_bias_above_its_limit_is_caught_and_named(
    column: int, share: float, sign: int, seed: int, rep: str
) -> None:
    processor = robot(rep)
    observations, chunks = observed(processor, seed), moving(seed)
    unit = 0.03 / REACH if column < ARM else 3.0 / 50.0
    given = [biased(column, sign * share * unit)(chunk.copy(), observations[0]) for chunk in chunks]
    verdict = compare(
        by_number(observations, given), chunks, observations, processor, "new_embodiment", LIMITS, names=NAMES
    )
    name = [*NAMES["arm"], *NAMES["gripper"]][column]
    assert not verdict.passed
    assert any(f" {name}: error" in reason for reason in verdict.reasons)


@settings(max_examples=60, deadline=None)
@given(share=st.floats(0.0, 0.7), seed=st.integers(0, 1000))
@example(share=0.7, seed=493)
def test_any_error_scaled_below_the_limits_passes(share: float, seed: int) -> None:
    """Random errors in all columns and steps, the largest of them ``share`` of its limit. (Nearer to the
    limits the gripper's cosine may fail before its error does.)"""
    processor = robot()
    observations, chunks = observed(processor, seed), moving(seed)
    rng = np.random.default_rng(seed)
    units = np.array([0.03 / REACH] * ARM + [3.0 / 50.0] + [1.0] * (WIDTH - ARM - 1))
    given = []
    for chunk in chunks:
        error = rng.uniform(-1.0, 1.0, chunk.shape)
        given.append((chunk + error / np.abs(error).max() * units * share).astype(np.float32))
    verdict = compare(
        by_number(observations, given), chunks, observations, processor, "new_embodiment", LIMITS, names=NAMES
    )
    assert verdict.passed, verdict.reasons
    assert all(measure.worst.share <= share + 1e-3 for measure in verdict.keys.values())


# ---- the reference -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Gr00tProcessor, Gr00tN1d6Config]:
    config = Gr00tN1d6Config.tiny()
    directory = tmp_path_factory.mktemp("checkpoints") / "tiny"
    write_random_checkpoint(config, directory, progress=False)
    sizes = (config.max_state_dim, config.max_action_dim, config.action_horizon)
    names = ("max_state_dim", "max_action_dim", "max_action_horizon")
    processor = processor_of(
        {"arm": ActionConfig(), "gripper": ActionConfig()},
        {"arm": ([-REACH] * ARM, [REACH] * ARM), "gripper": ([0.0], [100.0])},
        **dict(zip(names, sizes, strict=True)),
    )
    return directory, processor, config


def test_the_reference_is_the_networks_action_for_each_observation(
    tiny: tuple[Path, Gr00tProcessor, Gr00tN1d6Config],
) -> None:
    """However they were put together; prompts of different lengths among them."""
    directory, processor, config = tiny
    observations = synthetic(processor, "new_embodiment", config, 5, seed=4)
    assert len({one.inputs["input_ids"].shape for one in observations}) > 1
    told: list[tuple[int, int, int]] = []
    network = StreamedNetwork(directory)
    found = reference(network, observations, 2, batch=2, progress=lambda *now: told.append(now))
    assert [now[:2] for now in told] == [(done, told[-1][1]) for done in range(1, told[-1][1] + 1)]
    assert [now[2] for now in told] == sorted(now[2] for now in told)
    model = load_model(directory, dtype=torch.float32)
    for observation, actions in zip(observations, found, strict=True):
        inputs = dict(observation.inputs)
        inputs["pixel_values"] = [network._pixels(image) for image in inputs["pixel_values"]]
        alone = model.get_action(inputs, torch.from_numpy(observation.noise), num_steps=2)["action_pred"]
        np.testing.assert_allclose(actions, alone.numpy(), atol=1e-5, rtol=0)
    engine = by_number(list(observations), found)
    assert compare(engine, found, observations, processor, "new_embodiment").passed


def test_the_network_in_bfloat16_is_told_from_a_wrong_one(
    tiny: tuple[Path, Gr00tProcessor, Gr00tN1d6Config],
) -> None:
    directory, processor, config = tiny
    observations = synthetic(processor, "new_embodiment", config, 3)
    right = reference(StreamedNetwork(directory), observations)
    rounded = reference(StreamedNetwork(directory, dtype=torch.bfloat16), observations)
    verdict = compare(
        by_number(list(observations), rounded), right, observations, processor, "new_embodiment",
        {"arm": [0.1] * ARM, "gripper": [5.0]},
    )  # fmt: skip
    assert all(measure.cosine > MIN_COSINE for measure in verdict.keys.values()), str(verdict)
    other = reference(StreamedNetwork(directory), observations, 1)
    verdict = compare(by_number(list(observations), other), right, observations, processor, "new_embodiment")
    assert not verdict.passed


def test_a_damaged_networks_output_is_no_reference(
    tiny: tuple[Path, Gr00tProcessor, Gr00tN1d6Config],
) -> None:
    directory, processor, config = tiny
    observations = synthetic(processor, "new_embodiment", config, 1)

    class Damaged(StreamedNetwork):
        def get_action(self, *arguments: Any, **options: Any) -> dict[str, torch.Tensor]:
            found = super().get_action(*arguments, **options)
            return {"action_pred": found["action_pred"] * float("nan")}

    with pytest.raises(Gr00tError, match="float32 network's own output for observation 0 is not finite"):
        reference(Damaged(directory), observations)
