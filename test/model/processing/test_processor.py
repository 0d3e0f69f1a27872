# SPDX-License-Identifier: Apache-2.0
"""The processor as the policy and the data loader see it."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gr00t_model.errors import CheckpointError, ConfigError, EmbodimentError, Gr00tError, ObservationError
from gr00t_model.processing import Gr00tProcessor, KeyStatistics, ModalityConfig, parallel, pixels_to_float

TAG = "new_embodiment"
VIEWS = ("front", "wrist")
LIMITS = {
    "arm": KeyStatistics.from_limits([-1.9] * 5, [1.9] * 5),
    "gripper": KeyStatistics.from_limits([0.0], [100.0]),
}


def robot(views: tuple[str, ...] = VIEWS, steps: tuple[int, ...] = (0,)) -> dict[str, ModalityConfig]:
    return {
        "video": ModalityConfig(steps, views),
        "state": ModalityConfig((0,), ("arm", "gripper"), sin_cos_embedding_keys=("arm",)),
        "action": ModalityConfig(tuple(range(16)), ("arm", "gripper")),
        "language": ModalityConfig((0,), ("task",)),
    }


def made_in_python(**options: Any) -> Gr00tProcessor:
    modality = robot(options.pop("views", VIEWS), options.pop("steps", (0,)))
    return Gr00tProcessor({TAG: modality}, {TAG: {"state": LIMITS, "action": LIMITS}}, **options)


def observation(batch: int = 1, steps: int = 1, size: tuple[int, int] = (48, 64), **changes: Any) -> dict:
    rng = np.random.default_rng(0)
    shape = (batch, steps, *size, 3)
    return {
        "video": {view: rng.integers(0, 256, shape, dtype=np.uint8) for view in VIEWS},
        "state": {
            "arm": np.zeros((batch, 1, 5), np.float32),
            "gripper": np.full((batch, 1, 1), 50.0, np.float32),
        },
        "language": {"task": [["pick up the cube"]] * batch},
        **changes,
    }


def actions(batch: int = 1) -> dict[str, np.ndarray]:
    return {"arm": np.full((batch, 16, 5), 0.95), "gripper": np.full((batch, 16, 1), 25.0)}


def test_a_robot_described_in_python_needs_no_files() -> None:
    processor = made_in_python()
    assert processor.state_widths(TAG) == processor.action_widths(TAG) == {"arm": 5, "gripper": 1}
    inputs = processor.encode(observation(), TAG)
    assert {key: tuple(value.shape) for key, value in inputs.items() if key != "pixel_values"} == {
        "input_ids": (1, inputs["input_ids"].shape[1]),
        "attention_mask": (1, inputs["input_ids"].shape[1]),
        "state": (1, 1, 128),
        "embodiment_id": (1,),
    }
    assert [tuple(image.shape) for image in inputs["pixel_values"]] == [(1, 3, 252, 252)] * 2
    assert inputs["state"][0, 0, :11].tolist() == [0.0] * 5 + [1.0] * 5 + [0.0]
    assert inputs["embodiment_id"].tolist() == [10]
    assert (inputs["input_ids"] == 151669).sum() == 162


def test_columns_are_what_the_network_must_hold() -> None:
    assert made_in_python().columns(TAG) == (11, 6)
    assert made_in_python(apply_sincos_state_encoding=False).columns(TAG) == (6, 6)


def test_a_neutral_state_encodes() -> None:
    processor = made_in_python()
    state = processor.neutral_state(TAG)
    assert {key: values.shape for key, values in state.items()} == {"arm": (1, 1, 5), "gripper": (1, 1, 1)}
    processor.encode(observation(state=state), TAG)


def test_training_inputs_hold_normalized_actions_and_their_mask() -> None:
    inputs = made_in_python().encode_training(observation(2), actions(2), TAG, np.random.default_rng(0))
    assert inputs["action"].dtype == inputs["action_mask"].dtype == torch.float32
    assert inputs["action"].shape == inputs["action_mask"].shape == (2, 50, 128)
    assert inputs["action_mask"].sum() == 2 * 16 * 6
    torch.testing.assert_close(inputs["action"][0, 0, :6], torch.tensor([0.5] * 5 + [-0.5]))


def test_steps_that_were_not_recorded_are_masked_in_training() -> None:
    processor, rng = made_in_python(), np.random.default_rng(0)
    whole = processor.encode_training(observation(2), actions(2), TAG, rng)
    inputs = processor.encode_training(observation(2), actions(2), TAG, rng, real_steps=(16, 3))
    assert torch.equal(inputs["action"], whole["action"])
    assert inputs["action_mask"].sum(dim=(1, 2)).tolist() == [16 * 6, 3 * 6]
    assert inputs["action_mask"][1, :3, :6].all()
    for wrong in ((16,), (16, 51), (16, -1)):
        with pytest.raises(ObservationError, match=r"real_steps is .*, expected 2 numbers from 0 to 50"):
            processor.encode_training(observation(2), actions(2), TAG, rng, real_steps=wrong)


def test_without_augmentation_training_images_are_those_of_evaluation() -> None:
    processor = made_in_python()
    plain = processor.encode(observation(), TAG)
    inputs = processor.encode_training(observation(), actions(), TAG, None)
    assert all(map(torch.equal, inputs["pixel_values"], plain["pixel_values"]))


def test_training_images_vary_by_sample_and_follow_the_seed() -> None:
    processor = made_in_python()
    same = observation(2)
    same["video"] = {view: np.repeat(images[:1], 2, axis=0) for view, images in same["video"].items()}
    batches = [
        processor.encode_training(same, actions(2), TAG, np.random.default_rng(seed), pixels="uint8")[
            "pixel_values"
        ]
        for seed in (5, 5, 6)
    ]
    assert all(torch.equal(a, b) for a, b in zip(batches[0], batches[1], strict=True))
    assert not torch.equal(batches[0][0], batches[0][2]), "two samples of a batch got the same draw"
    assert not torch.equal(batches[0][0], batches[2][0]), "another seed gave the same draw"


def test_views_of_a_sample_share_their_draw() -> None:
    twins = observation()
    twins["video"]["wrist"] = twins["video"]["front"].copy()
    front, wrist = made_in_python().encode_training(twins, actions(), TAG, np.random.default_rng(1))[
        "pixel_values"
    ]
    assert torch.equal(front, wrist)


def test_pixels_left_for_the_device_become_the_same_floats() -> None:
    processor = made_in_python()
    floats = processor.encode(observation(), TAG)["pixel_values"]
    pixels = processor.encode(observation(), TAG, pixels="uint8")["pixel_values"]
    assert {image.dtype for image in pixels} == {torch.uint8}
    assert all(torch.equal(pixels_to_float(raw), image) for raw, image in zip(pixels, floats, strict=True))


def test_images_are_ordered_by_sample_time_and_view() -> None:
    processor = made_in_python(steps=(-1, 0))
    brightness = np.arange(8, dtype=np.uint8).reshape(2, 2, 2) * 30  # sample, time, view
    video = {
        view: np.broadcast_to(brightness[:, :, index, None, None, None], (2, 2, 56, 56, 3))
        for index, view in enumerate(VIEWS)
    }
    inputs = processor.encode(observation(2, 2, video=video), TAG, pixels="uint8")
    assert [int(image[0, 0, 100, 100]) for image in inputs["pixel_values"]] == brightness.ravel().tolist()
    assert "<image 4>" in processor._prompts.tokenizer.decode(inputs["input_ids"][0].tolist())


def test_cameras_of_different_shape_need_letterbox() -> None:
    video = {"front": np.zeros((1, 1, 48, 64, 3), np.uint8), "wrist": np.zeros((1, 1, 64, 64, 3), np.uint8)}
    mixed = observation(video=video)
    assert len(made_in_python(letterbox=True).encode(mixed, TAG)["pixel_values"]) == 2
    with pytest.raises(ObservationError, match=r"front 252x336, wrist 252x252.*need letterbox"):
        made_in_python(letterbox=False).encode(mixed, TAG)


def test_decoding_takes_a_tensor_of_any_type() -> None:
    processor, state = made_in_python(), observation()["state"]
    values, _ = processor.encode_action(actions(), state, TAG)
    for given in (values, torch.from_numpy(values), torch.from_numpy(values).to(torch.bfloat16)):
        decoded = processor.decode(given, state, TAG)
        assert {key: value.shape for key, value in decoded.items()} == {
            "arm": (1, 16, 5),
            "gripper": (1, 16, 1),
        }
        np.testing.assert_allclose(decoded["arm"], 0.95, rtol=1e-6)
        np.testing.assert_allclose(decoded["gripper"], 25.0, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"video": {"front": 0}}, "video: missing wrist, found front"),
        ({"video": {}}, "video: missing front, wrist, found none"),
        ({"video": None}, "no mapping 'video', found video, state, language"),
        ({"language": {}}, "language: missing task, found none"),
        ({"language": {"task": ["wave"]}}, "expected a list of 1 lists with 1 text"),
        ({"language": {"task": [[3]]}}, "expected a list of 1 lists with 1 text"),
        ({"language": {"task": [["wave"], ["wave"]]}}, "expected a list of 1 lists"),
        ({"language": {"task": "wave"}}, "expected a list of 1 lists"),
        ({"state": {"arm": np.zeros((1, 1, 5))}}, "state: missing gripper, found arm"),
        (
            {"state": {"arm": np.zeros((2, 1, 5)), "gripper": np.zeros((2, 1, 1))}},
            "2 samples, expected 1 as video",
        ),
        ({"state": {"arm": np.zeros((2, 1, 5)), "gripper": np.zeros((1, 1, 1))}}, r"expected \[2, 1, 1\]"),
        (
            {"state": {"arm": np.full((1, 1, 5), np.nan), "gripper": np.zeros((1, 1, 1))}},
            "non-finite value nan",
        ),
        ({"language": {"task": [["put it down " * 900]]}}, "at most 512 tokens"),
    ],
)
def test_a_bad_observation_is_named(changes: dict, message: str) -> None:
    with pytest.raises(ObservationError, match=message):
        made_in_python().encode(observation(**changes), TAG)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((1, 1, 48, 64, 3), np.float32), "type float32, expected uint8"),
        (np.zeros((1, 1, 48, 64), np.uint8), r"shape \[1, 1, 48, 64\], expected \[1, 1, H, W, 3\]"),
        (np.zeros((1, 1, 48, 64, 4), np.uint8), r"shape \[1, 1, 48, 64, 4\], expected"),
        (np.zeros((1, 2, 48, 64, 3), np.uint8), r"shape \[1, 2, 48, 64, 3\], expected \[1, 1,"),
        (np.zeros((2, 1, 48, 64, 3), np.uint8), r"shape \[2, 1, 48, 64, 3\], expected \[1, 1,"),
        (np.zeros((1, 1, 0, 64, 3), np.uint8), r"shape \[1, 1, 0, 64, 3\], expected"),
        ("front.png", "type <U9, expected uint8"),
        ([[[[[1, 2, 3], [1, 2]]]]], "not an array .*inhomogeneous.*expected uint8"),
        (torch.zeros((1, 1, 8, 8, 3), requires_grad=True), "not an array .*grad.*expected uint8"),
    ],
)
def test_a_bad_image_is_named(images: Any, message: str) -> None:
    bad = observation()
    bad["video"]["wrist"] = images
    with pytest.raises(ObservationError, match=rf"video\.wrist: {message}"):
        made_in_python().encode(bad, TAG)


def test_an_observation_that_is_none_is_named() -> None:
    with pytest.raises(ObservationError, match="no mapping 'video', found NoneType"):
        made_in_python().encode(None, TAG)  # type: ignore[arg-type]


def test_an_unknown_embodiment_lists_those_known() -> None:
    with pytest.raises(EmbodimentError, match=f"'so101' is not in this checkpoint, it knows {TAG}"):
        made_in_python().encode(observation(), "so101")


def test_an_embodiment_without_statistics_lists_those_that_have() -> None:
    configs = {TAG: robot(), "gr1": robot()}
    processor = Gr00tProcessor(configs, {TAG: {"state": LIMITS, "action": LIMITS}})
    processor.require_statistics(TAG)
    for ask in (processor.require_statistics, processor.state_widths, processor.action_widths):
        with pytest.raises(EmbodimentError, match=f"'gr1' has no statistics.*exist for {TAG}"):
            ask("gr1")
    assert processor.modality("gr1")["video"].modality_keys == VIEWS


@pytest.mark.parametrize(
    ("option", "needed"), [("max_state_dim", 11), ("max_action_dim", 6), ("max_action_horizon", 16)]
)
def test_an_embodiment_too_wide_for_the_network_is_refused_at_once(option: str, needed: int) -> None:
    made_in_python(**{option: needed}).require_statistics(TAG)
    with pytest.raises(ConfigError, match=f"{TAG} needs {option} of at least {needed}, found {needed - 1}"):
        made_in_python(**{option: needed - 1}).require_statistics(TAG)


def test_an_embodiment_without_a_number_is_refused() -> None:
    processor = Gr00tProcessor({"mine": robot()}, {"mine": {"state": LIMITS, "action": LIMITS}})
    with pytest.raises(EmbodimentError, match=r"'mine' has no number.*add it to embodiment_id\.json"):
        processor.embodiment_id("mine")
    numbered = Gr00tProcessor({"mine": robot()}, {}, {"mine": 31})
    assert numbered.embodiment_id("mine") == 31


def test_a_checkpoints_own_tokenizer_is_read_with_the_first_instruction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_in_python().save_pretrained(tmp_path / "checkpoint")
    (tmp_path / "checkpoint" / "tokenizer.json").write_text("{", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    processor = Gr00tProcessor.from_pretrained("checkpoint")
    monkeypatch.chdir("/")
    with pytest.raises(CheckpointError, match=r"checkpoint/tokenizer\.json: not a readable tokenizer"):
        processor.encode(observation(), TAG)
    with pytest.raises(CheckpointError, match=r"not a readable tokenizer"):
        pickle.loads(pickle.dumps(processor)).encode(observation(), TAG)


@pytest.mark.parametrize("letterbox", [True, False])
def test_a_saved_processor_does_the_same(tmp_path: Path, letterbox: bool) -> None:
    processor = made_in_python(letterbox=letterbox, use_percentiles=True, color_jitter_params=None)
    processor.save_pretrained(tmp_path / "checkpoint")
    loaded = Gr00tProcessor.from_pretrained(tmp_path / "checkpoint")
    assert loaded.options == processor.options
    assert loaded.modality_configs == processor.modality_configs
    assert loaded.embodiment_ids == processor.embodiment_ids
    before, after = processor.encode(observation(), TAG), loaded.encode(observation(), TAG)
    assert all(torch.equal(a, b) for a, b in zip(before["pixel_values"], after["pixel_values"], strict=True))
    assert all(torch.equal(before[key], after[key]) for key in before if key != "pixel_values")
    again = tmp_path / "again"
    loaded.save_pretrained(again)
    for file in sorted(again.iterdir()):
        assert file.read_bytes() == (tmp_path / "checkpoint" / file.name).read_bytes()


def test_the_files_have_the_published_form(tmp_path: Path) -> None:
    made_in_python().save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "embodiment_id.json",
        "processor_config.json",
        "statistics.json",
    ]
    config = json.loads((tmp_path / "processor_config.json").read_text())
    assert config["processor_class"] == "Gr00tN1d6Processor"
    kwargs = config["processor_kwargs"]
    assert kwargs["modality_configs"][TAG]["video"] == {
        "delta_indices": [0],
        "modality_keys": ["front", "wrist"],
        "sin_cos_embedding_keys": None,
        "mean_std_embedding_keys": None,
        "action_configs": None,
    }
    assert kwargs["color_jitter_params"] == {
        "brightness": 0.3,
        "contrast": 0.4,
        "saturation": 0.5,
        "hue": 0.08,
    }
    statistics = json.loads((tmp_path / "statistics.json").read_text())
    assert sorted(statistics[TAG]["action"]["arm"]) == ["max", "mean", "min", "q01", "q99", "std"]


def test_a_file_may_be_overridden(tmp_path: Path) -> None:
    made_in_python(letterbox=False).save_pretrained(tmp_path)
    assert Gr00tProcessor.from_pretrained(tmp_path).letterbox is False
    assert Gr00tProcessor.from_pretrained(tmp_path, letterbox=True).letterbox is True


def test_a_checkpoint_without_a_table_of_numbers_uses_the_built_in_one(tmp_path: Path) -> None:
    made_in_python().save_pretrained(tmp_path)
    (tmp_path / "embodiment_id.json").unlink()
    assert Gr00tProcessor.from_pretrained(tmp_path).embodiment_id(TAG) == 10


@pytest.mark.parametrize("file", ["processor_config.json", "statistics.json"])
def test_a_missing_file_is_named(tmp_path: Path, file: str) -> None:
    made_in_python().save_pretrained(tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(CheckpointError, match=f"{re.escape(file)} is missing"):
        Gr00tProcessor.from_pretrained(tmp_path)


@pytest.mark.parametrize("file", ["processor_config.json", "statistics.json", "embodiment_id.json"])
@pytest.mark.parametrize(
    "content",
    ["{", "[1]", "", "\ud83d", "[" * 200_000],
    ids=["cut", "list", "empty", "no text", "deep"],
)
def test_a_damaged_file_is_named(tmp_path: Path, file: str, content: str) -> None:
    made_in_python().save_pretrained(tmp_path)
    (tmp_path / file).write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(CheckpointError, match=re.escape(file)):
        Gr00tProcessor.from_pretrained(tmp_path)


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    made_in_python().save_pretrained(tmp_path)
    (tmp_path / "processor_config.json").write_text('{"processor_class": "Other"}')
    with pytest.raises(CheckpointError, match=r"no processor_kwargs.*GR00T N1.6"):
        Gr00tProcessor.from_pretrained(tmp_path)


def test_a_wrong_entry_is_named_with_its_directory(tmp_path: Path) -> None:
    made_in_python().save_pretrained(tmp_path)
    path = tmp_path / "processor_config.json"
    config = json.loads(path.read_text())
    config["processor_kwargs"]["use_percentiles"] = "maybe"
    path.write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=rf"{re.escape(str(tmp_path))}: use_percentiles is 'maybe'"):
        Gr00tProcessor.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        *[
            (name, 3, f"processor option {name} = 3 is not known")
            for name in ("tokenizer", "embodiment_ids", "self", "options", "cls", "directory")
        ],
        *[("embodiment_id_mapping", table, "embodiment ids: ") for table in ([1], "ab", 3, {TAG: "x"}, [])],
        ("letterbox", 3, "letterbox is 3"),
        ("shortest_image_edge", "256", "shortest_image_edge is '256'"),
    ],
)
def test_no_entry_of_a_file_passes_for_something_else(
    tmp_path: Path, entry: str, value: Any, message: str
) -> None:
    made_in_python().save_pretrained(tmp_path)
    path = tmp_path / "processor_config.json"
    config = json.loads(path.read_text())
    config["processor_kwargs"][entry] = value
    path.write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=rf"{re.escape(str(tmp_path))}: {message}"):
        Gr00tProcessor.from_pretrained(tmp_path)


def test_a_files_numbers_of_embodiments_count(tmp_path: Path) -> None:
    made_in_python().save_pretrained(tmp_path)
    path = tmp_path / "processor_config.json"
    config = json.loads(path.read_text())
    config["processor_kwargs"]["embodiment_id_mapping"] = {TAG: 31, "mine": 30}
    path.write_text(json.dumps(config))
    found = Gr00tProcessor.from_pretrained(tmp_path).embodiment_ids
    assert (found[TAG], found["mine"]) == (10, 30), "embodiment_id.json goes before the mapping"
    (tmp_path / "embodiment_id.json").unlink()
    assert Gr00tProcessor.from_pretrained(tmp_path).embodiment_ids[TAG] == 31


def test_statistics_that_json_cannot_hold_are_refused(tmp_path: Path) -> None:
    broken = {"min": [float("nan")] * 5}
    processor = Gr00tProcessor({TAG: robot()}, {TAG: {"state": {"arm": broken}}})
    with pytest.raises(ConfigError, match=r"statistics\.json: not written, expected finite numbers"):
        processor.save_pretrained(tmp_path)


def test_one_processor_serves_several_threads() -> None:
    processor = made_in_python()
    expected = processor.encode(observation(), TAG, pixels="uint8")["pixel_values"][0]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: processor.encode(observation(), TAG, pixels="uint8"), range(12)))
    assert all(torch.equal(inputs["pixel_values"][0], expected) for inputs in found)


@pytest.mark.parametrize("cores", [1, 2, 3, 8])
def test_the_number_of_cores_changes_no_image(monkeypatch: pytest.MonkeyPatch, cores: int) -> None:
    wanted = made_in_python().encode(observation(3), TAG, pixels="uint8")["pixel_values"]
    monkeypatch.setattr(parallel, "available_threads", lambda: min(cores, parallel.MOST_THREADS))
    found = made_in_python().encode(observation(3), TAG, pixels="uint8")["pixel_values"]
    assert all(torch.equal(a, b) for a, b in zip(wanted, found, strict=True))


def test_an_error_on_a_thread_reaches_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "available_threads", lambda: 2)

    def fail(job: int) -> int:
        if job == 1:
            raise ObservationError("image 1 is bad")
        return job

    with pytest.raises(Gr00tError, match="image 1 is bad"):
        parallel.parallel_map(fail, [0, 1, 2])


def test_a_data_loader_process_may_receive_it() -> None:
    processor = made_in_python()
    processor.encode(observation(), TAG)
    copy = pickle.loads(pickle.dumps(processor))
    assert torch.equal(
        copy.encode(observation(), TAG)["input_ids"], processor.encode(observation(), TAG)["input_ids"]
    )


def encode_in_child(processor: Gr00tProcessor, queue: Any) -> None:
    queue.put(len(processor.encode(observation(4), TAG, pixels="uint8")["pixel_values"]))


def test_a_forked_process_makes_its_own_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "available_threads", lambda: 2)
    processor = made_in_python()
    processor.encode(observation(4), TAG)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=encode_in_child, args=(processor, queue))
    child.start()
    try:
        assert queue.get(timeout=60) == 8
    finally:
        child.terminate()
        child.join()
