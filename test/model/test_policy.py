# SPDX-License-Identifier: Apache-2.0
"""Observation in, actions out, for every kind of action; what does not fit is named before loading."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gr00t_model.checkpoint import write_random_checkpoint
from gr00t_model.config import Gr00tN1d6Config
from gr00t_model.errors import (
    BackendError,
    CheckpointError,
    ConfigError,
    EmbodimentError,
    Gr00tError,
    ObservationError,
)
from gr00t_model.noise import chunk_noise
from gr00t_model.policy import Gr00tPolicy
from gr00t_model.processing import ActionConfig, Gr00tProcessor, KeyStatistics, ModalityConfig
from support_network import edit_json

torch.set_num_threads(1)

STAMP = 1_700_000_000_000_000_000
STEPS = 8
# Poses that are valid and not neutral: position, then two rotation matrix rows or a rotation vector.
ROT6D = [0.3, -0.2, 0.4, 0.0, 1.0, 0.0, -1.0, 0.0, 0.0]
ROTVEC = [0.3, -0.2, 0.4, 0.0, 0.0, 1.2]
# Physical state of each embodiment; one embodiment for each way of making actions.
STATES: dict[str, dict[str, list[float]]] = {
    "absolute": {"arm": [0.1] * 5, "gripper": [0.5]},
    "relative": {"arm": [0.1] * 5, "gripper": [0.5]},
    "rot6d": {"eef": ROT6D, "gripper": [0.5]},
    "rotvec": {"eef": ROTVEC},
    "delta": {"arm": [0.1] * 5},
    "history": {"arm": [0.1] * 5},
}
ACTIONS = {
    "absolute": {"arm": ActionConfig(), "gripper": ActionConfig()},
    "relative": {"arm": ActionConfig("RELATIVE"), "gripper": ActionConfig()},
    "rot6d": {"eef": ActionConfig("RELATIVE", "EEF", "XYZ_ROT6D"), "gripper": ActionConfig()},
    "rotvec": {"eef": ActionConfig("RELATIVE", "EEF", "XYZ_ROTVEC")},
    "delta": {"arm": ActionConfig("DELTA")},
    "history": {"arm": ActionConfig()},
}
# Number of each embodiment; the last is one the checkpoint has not been trained on.
NUMBERS = {"absolute": 3, "relative": 4, "rot6d": 5, "rotvec": 6, "delta": 7, "history": 9, "wide": 11}


def modality(tag: str) -> dict[str, ModalityConfig]:
    past = (-1, 0) if tag == "history" else (0,)
    state, action = STATES[tag], ACTIONS[tag]
    return {
        "video": ModalityConfig(past, ("front", "wrist")),
        "state": ModalityConfig(
            past, tuple(state), sin_cos_embedding_keys=("arm",) if tag == "delta" else ()
        ),
        "action": ModalityConfig(tuple(range(STEPS)), tuple(action), action_configs=tuple(action.values())),
        "language": ModalityConfig(past, ("task",)),
    }


def statistics(widths: Mapping[str, int]) -> dict[str, dict[str, KeyStatistics]]:
    limits = {key: KeyStatistics.from_limits([-1.0] * width, [1.0] * width) for key, width in widths.items()}
    return {"state": limits, "action": limits, "relative_action": limits}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One tiny network with random weights for all embodiments."""
    config = Gr00tN1d6Config.tiny()
    directory = tmp_path_factory.mktemp("checkpoints") / "tiny"
    write_random_checkpoint(config, directory, untrained=[NUMBERS["history"]], progress=False)
    configs = {tag: modality(tag) for tag in STATES}
    values = {tag: statistics({key: len(state) for key, state in STATES[tag].items()}) for tag in STATES}
    configs["wide"], values["wide"] = configs["history"], statistics({"arm": 129})
    Gr00tProcessor(
        configs,
        values,
        NUMBERS,
        max_state_dim=config.max_state_dim,
        max_action_dim=config.max_action_dim,
        max_action_horizon=config.action_horizon,
    ).save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def policy(checkpoint: Path) -> Gr00tPolicy:
    return Gr00tPolicy(checkpoint, "absolute", device="cpu")


def observation(tag: str = "absolute", batch: int = 1) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    steps = 2 if tag == "history" else 1
    return {
        "video": {
            key: rng.integers(0, 256, (batch, steps, 48, 64, 3), dtype=np.uint8) for key in ("front", "wrist")
        },
        "state": {
            key: np.tile(np.array(value, np.float32), (batch, steps, 1)) for key, value in STATES[tag].items()
        },
        "language": {"task": [["pick up the cube"] * steps for _ in range(batch)]},
    }


# ---- every kind of action ------------------------------------------------------------------------


@pytest.mark.parametrize("tag", list(STATES))
def test_every_kind_of_action_warms_up_and_acts(checkpoint: Path, tag: str) -> None:
    policy = Gr00tPolicy(checkpoint, tag, device="cpu")
    assert set(policy.warm_up()["timing"]) == {"processing_s", "inference_s", "decoding_s"}
    actions, info = policy.get_action(observation(tag), t_obs_ns=STAMP)
    assert {key: value.shape for key, value in actions.items()} == {
        key: (1, STEPS, width) for key, width in policy.action_widths.items()
    }
    assert all(value.dtype == np.float32 and np.isfinite(value).all() for value in actions.values())
    assert set(info["timing"]) == {"processing_s", "inference_s", "decoding_s"}
    assert policy.horizon == STEPS
    assert policy.state_widths == {key: len(value) for key, value in STATES[tag].items()}
    assert policy.untrained == (tag == "history")


def test_relative_poses_are_poses(checkpoint: Path) -> None:
    """Composed with the present pose, two rows of a rotation matrix stay two rows of a rotation matrix."""
    actions, _ = Gr00tPolicy(checkpoint, "rot6d", device="cpu").get_action(observation("rot6d"), t_obs_ns=0)
    rows = actions["eef"][0, :, 3:].reshape(STEPS, 2, 3).astype(np.float64)
    np.testing.assert_allclose(rows @ rows.transpose(0, 2, 1), np.tile(np.eye(2), (STEPS, 1, 1)), atol=1e-5)


def test_relative_actions_follow_the_state(checkpoint: Path) -> None:
    """The same normalised output is decoded against the state the observation had, not another."""
    policy = Gr00tPolicy(checkpoint, "relative", device="cpu")
    seen = observation("relative")
    normalized = policy._engine.run(
        policy.processor.encode(seen, "relative", pixels="uint8"), chunk_noise(0, STAMP, 50, 128)
    )
    actions, _ = policy.get_action(seen, t_obs_ns=STAMP)
    expected = seen["state"]["arm"][:, -1:] + np.clip(normalized[:, :STEPS, :5], -1, 1)
    np.testing.assert_allclose(actions["arm"], expected, atol=1e-6)


@pytest.mark.parametrize("value", [float("nan"), 0.0])
def test_a_useless_output_stops_no_warm_up(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    """Not a number, or rows that are no rotation: what random weights may give to a grey image."""
    policy = Gr00tPolicy(checkpoint, "rot6d", device="cpu")
    monkeypatch.setattr(policy._engine, "run", lambda *_: np.full((1, 50, 128), value, np.float32))
    policy.warm_up()
    with pytest.raises(Gr00tError):
        policy.get_action(observation("rot6d"), t_obs_ns=STAMP)


# ---- noise, seeds, batches, steps ----------------------------------------------------------------


def test_a_chunk_is_a_function_of_observation_stamp_and_seed(policy: Gr00tPolicy) -> None:
    def arm(**options: Any) -> np.ndarray:
        return policy.get_action(observation(), **options)[0]["arm"]

    usual = arm(t_obs_ns=STAMP, seed=5)
    np.testing.assert_array_equal(usual, arm(t_obs_ns=STAMP, seed=5))
    np.testing.assert_array_equal(usual, arm(noise=chunk_noise(5, STAMP, 50, 128)))
    assert not np.array_equal(usual, arm(t_obs_ns=STAMP, seed=6))
    assert not np.array_equal(usual, arm(t_obs_ns=STAMP + 1, seed=5))
    assert not np.array_equal(arm(), arm())


def test_a_batch_gives_what_its_samples_give(policy: Gr00tPolicy) -> None:
    both = observation(batch=2)
    both["video"]["front"][1] //= 2
    both["state"]["arm"][1] += 0.3
    both["language"]["task"] = [["pick up the cube"], ["put the big red apple into the bowl on the left"]]
    noise = np.concatenate([chunk_noise(0, stamp, 50, 128) for stamp in (1, 2)])
    together, _ = policy.get_action(both, noise)
    for sample in range(2):
        one = {
            part: {key: value[sample : sample + 1] for key, value in groups.items()}
            for part, groups in both.items()
        }
        alone, _ = policy.get_action(one, noise[sample : sample + 1])
        for key, value in alone.items():
            np.testing.assert_allclose(together[key][sample], value[0], atol=1e-4)
    assert not np.allclose(together["arm"][0], together["arm"][1], atol=1e-2)


def test_one_stamp_is_no_noise_for_a_batch(policy: Gr00tPolicy) -> None:
    with pytest.raises(ObservationError, match="stamp of one observation, but the batch holds 2"):
        policy.get_action(observation(batch=2), t_obs_ns=STAMP)


def _read_only(noise: np.ndarray) -> np.ndarray:
    copy = noise.copy()
    copy.setflags(write=False)
    return copy


@pytest.mark.parametrize(
    "form",
    [
        _read_only,
        lambda noise: noise[:, ::-1].copy()[:, ::-1],
        lambda noise: np.asfortranarray(noise),
        lambda noise: noise.astype(">f4"),
        lambda noise: noise.astype(np.float64),
        lambda noise: noise.tolist(),
        lambda noise: torch.from_numpy(noise),
    ],
    ids=["read-only", "negative strides", "columns first", "big-endian", "float64", "lists", "torch"],
)
def test_noise_in_any_form_is_the_same_noise(policy: Gr00tPolicy, form: Any) -> None:
    noise = chunk_noise(0, STAMP, 50, 128)
    expected, _ = policy.get_action(observation(), noise.copy())
    found, _ = policy.get_action(observation(), form(noise))
    np.testing.assert_array_equal(found["arm"], expected["arm"])


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        ([[1]], r"noise has shape \[1, 1\], expected \[1, 50, 128\]"),
        (np.zeros((2, 50, 128)), r"noise has shape \[2, 50, 128\]"),
        ([[1], [1, 2]], "noise cannot be read as numbers"),
        ("noise", "noise cannot be read as numbers"),
        (object(), "noise cannot be read as numbers"),
        ([[10**400]], "noise cannot be read as numbers"),
        (torch.zeros(1, 50, 128, requires_grad=True), "noise cannot be read as numbers"),
        (np.full((1, 50, 128), np.nan), "noise holds a value that is not finite"),
        (np.full((1, 50, 128), 1e300), "noise holds a value that is not finite"),
    ],
)
def test_unusable_noise_is_an_observation_error(policy: Gr00tPolicy, noise: Any, message: str) -> None:
    with pytest.raises(ObservationError, match=message):
        policy.get_action(observation(), noise)


def test_the_number_of_steps_counts(checkpoint: Path, policy: Gr00tPolicy) -> None:
    def arm(num_steps: int) -> np.ndarray:
        chosen = Gr00tPolicy(checkpoint, "absolute", device="cpu", num_steps=num_steps)
        return chosen.get_action(observation(), t_obs_ns=STAMP)[0]["arm"]

    usual = policy.get_action(observation(), t_obs_ns=STAMP)[0]["arm"]
    np.testing.assert_array_equal(arm(4), usual)
    assert not np.array_equal(arm(1), usual)


# ---- refused before the weights are read ---------------------------------------------------------


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    """The JSON files, to be edited, with the same weights."""
    for file in checkpoint.glob("*.json"):
        shutil.copy(file, tmp_path)
    (tmp_path / "model.safetensors").symlink_to(checkpoint / "model.safetensors")
    return tmp_path


@pytest.fixture
def no_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("the weights were read although something is wrong")

    monkeypatch.setattr("gr00t_model.inference.opening.load_model", never)


@pytest.mark.parametrize(
    ("file", "field", "value", "message"),
    [
        (
            "processor",
            "max_state_dim",
            64,
            "max_state_dim is 64 in processor_config.json, but .*128 in config",
        ),
        ("processor", "max_action_dim", 64, "max_action_dim is 64 in processor_config.json"),
        ("processor", "max_action_dim", 256, "max_action_dim is 256"),
        ("processor", "max_action_horizon", 16, "max_action_horizon is 16 .* action_horizon is 50"),
        ("config", "max_action_dim", 29, "max_action_dim is 128 in processor_config.json, but .* is 29"),
        ("config", "action_horizon", 6, "max_action_horizon is 50 .* action_horizon is 6"),
        ("config", "max_num_embodiments", 3, "absolute has number 3, the network 0 to 2"),
    ],
)
@pytest.mark.usefixtures("no_loading")
def test_a_processor_for_another_network_is_refused(
    copy: Path, file: str, field: str, value: int, message: str
) -> None:
    def change(content: dict[str, Any]) -> None:
        (content["processor_kwargs"] if file == "processor" else content)[field] = value

    edit_json(copy / ("processor_config.json" if file == "processor" else "config.json"), change)
    with pytest.raises(CheckpointError, match=f"processor and network do not fit: .*{message}"):
        Gr00tPolicy(copy, "absolute", device="cpu")


@pytest.mark.usefixtures("no_loading")
def test_a_network_for_another_image_token_is_refused(copy: Path) -> None:
    edit_json(copy / "config.json", lambda content: content["eagle_config"].update(image_token_index=5))
    with pytest.raises(CheckpointError, match=r"image_token_index is 5 in config.json, prompts have 151669"):
        Gr00tPolicy(copy, "absolute", device="cpu")


@pytest.mark.usefixtures("no_loading")
def test_too_many_columns_are_refused(checkpoint: Path) -> None:
    with pytest.raises(ConfigError, match="wide needs max_state_dim of at least 129, found 128"):
        Gr00tPolicy(checkpoint, "wide", device="cpu")


@pytest.mark.parametrize("num_steps", [0, -1, 1001, 2.5, True, "4"])
@pytest.mark.usefixtures("no_loading")
def test_an_impossible_number_of_steps_is_refused(checkpoint: Path, num_steps: Any) -> None:
    with pytest.raises(ConfigError, match=f"num_steps is {num_steps!r}; expected 1 to 1000, or None"):
        Gr00tPolicy(checkpoint, "absolute", device="cpu", num_steps=num_steps)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backend": "onnx"}, "backend 'onnx' is not one of"),
        ({"device": "toaster"}, "device 'toaster' is not one of"),
        ({"precision": "float16"}, "precision 'float16' is not one of"),
    ],
)
@pytest.mark.usefixtures("no_loading")
def test_an_unknown_backend_is_refused(checkpoint: Path, arguments: dict[str, str], message: str) -> None:
    with pytest.raises(BackendError, match=message):
        Gr00tPolicy(checkpoint, "absolute", **arguments)


@pytest.mark.usefixtures("no_loading")
def test_an_unknown_embodiment_is_refused_with_those_there_are(checkpoint: Path) -> None:
    with pytest.raises(EmbodimentError, match="'nobody' is not in this checkpoint, it knows absolute, delta"):
        Gr00tPolicy(checkpoint, "nobody", device="cpu")


# ---- letterbox and a processor that was read before ----------------------------------------------


def test_letterbox_is_as_the_checkpoint_says_unless_it_is_given(copy: Path) -> None:
    def made(**options: Any) -> Gr00tPolicy:
        return Gr00tPolicy(copy, "absolute", device="cpu", **options)

    assert made().processor.letterbox
    without = made(letterbox=False)
    assert not without.processor.letterbox
    padded, bare = (
        policy.processor.encode(observation(), "absolute")["pixel_values"][0].shape
        for policy in (made(), without)
    )
    assert padded[2] == padded[3]
    assert bare[2] < bare[3]  # 48 x 64 keeps its shape
    edit_json(
        copy / "processor_config.json",
        lambda content: content["processor_kwargs"].update(letter_box_transform=False),
    )
    assert not made().processor.letterbox
    assert made(letterbox=True).processor.letterbox


def test_a_processor_that_is_given_is_used(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processor = Gr00tProcessor.from_pretrained(checkpoint, letterbox=False)
    monkeypatch.setattr("gr00t_model.policy.Gr00tProcessor", None)  # would be asked to read it again
    assert Gr00tPolicy(checkpoint, "absolute", device="cpu", processor=processor).processor is processor
    with pytest.raises(ConfigError, match="letterbox and processor are both given"):
        Gr00tPolicy(checkpoint, "absolute", device="cpu", processor=processor, letterbox=True)


# ---- too little memory ---------------------------------------------------------------------------


def test_a_full_device_is_named(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Gr00tPolicy(checkpoint, "absolute", device="cpu")

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(policy._engine.form, "backbone", full)
    with pytest.raises(BackendError, match="device cpu has too little memory for an inference"):
        policy.get_action(observation(), t_obs_ns=STAMP)
    assert json.dumps(policy.config.to_file())  # and the policy is still whole
