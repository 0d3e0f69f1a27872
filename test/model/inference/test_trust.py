# SPDX-License-Identifier: Apache-2.0
"""The verdict about an engine: what it is reached on, what is kept of it, and when it counts."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gr00t_model.errors import BackendError, CheckpointError, Gr00tError
from gr00t_model.inference.observations import ObservationSet, synthetic
from gr00t_model.inference.trt import engine as engines
from gr00t_model.inference.trt import trust
from gr00t_model.inference.trt.export import shapes_of
from gr00t_model.inference.trt.trust import ensure_verified, measure, stored_verdict, verify
from gr00t_model.inference.trt.verdict import VERDICT_FILE, Verdict
from gr00t_model.processing import Gr00tProcessor
from gr00t_ros.engine_limits import engine_limits, joint_names
from support_deployed import module_functions
from support_trusted import MACHINE, ROBOT, TAG, Shelf, shelf_for

LIMITS, NAMES = engine_limits(ROBOT), joint_names(ROBOT)


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Shelf:
    return shelf_for(monkeypatch)


@pytest.fixture
def engine(shelf: Shelf, tmp_path: Path) -> Any:
    """An engine that nobody has verified."""
    folder = shelf.write(tmp_path / "engines")
    return engines.TensorRTEngine(folder, shelf.checkpoint, TAG, shelf.form.embodiment_id, device="cuda")


def observations(shelf: Shelf, count: int, seed: int = 3) -> ObservationSet:
    return synthetic(shelf.processor, TAG, shelf.form.config, count, seed)


def arguments(shelf: Shelf) -> tuple[Any, ...]:
    return shelf.processor, TAG, LIMITS, NAMES, shelf.told.append


def test_the_verdict_says_what_was_measured_and_where(shelf: Shelf, engine: Any) -> None:
    verdict = verify(engine, *arguments(shelf), observations=observations(shelf, 2))
    assert verdict.passed
    assert verdict.machine == MACHINE
    assert verdict.manifest_digest == engine.manifest.digest
    measures = verdict.measures
    assert measures.observations == 2
    assert measures.cosine.keys() == {"arm", "gripper"}
    assert all(value > 0.999999 for value in measures.cosine.values())
    assert measures.worst_joints.keys() == {"arm", "gripper"}
    for key, worst in measures.worst_joints.items():
        assert worst.joint in ROBOT.joints
        assert worst.error < 1e-4
        assert worst.limit == pytest.approx(LIMITS[key][0])
    assert measures.limits == {key: tuple(own.tolist()) for key, own in LIMITS.items()}
    assert Verdict.read(engine.directory) == verdict
    assert stored_verdict(engine, LIMITS, shelf.told.append) == verdict


def test_measuring_keeps_nothing(shelf: Shelf, engine: Any) -> None:
    assert measure(engine, *arguments(shelf), observations=observations(shelf, 1)).passed
    assert not (engine.directory / VERDICT_FILE).exists()


def test_observations_that_came_with_the_engine_are_taken(shelf: Shelf, engine: Any) -> None:
    observations(shelf, 3).save(engine.directory / trust.OBSERVATIONS_FILE)
    assert ensure_verified(engine, *arguments(shelf)) == "verified here on 3 observations"
    assert shelf.runs == 3
    assert any("3 observations (synthetic: random images" in line for line in shelf.told)


def test_observations_of_another_robot_or_damaged_ones_are_no_verdict(shelf: Shelf, engine: Any) -> None:
    path = engine.directory / trust.OBSERVATIONS_FILE
    observations(shelf, 1).save(path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(Gr00tError, match="damaged"):
        ensure_verified(engine, *arguments(shelf))
    assert not (engine.directory / VERDICT_FILE).exists()
    assert shelf.runs == 0


def test_a_damaged_checkpoint_is_no_verdict_about_the_engine(
    shelf: Shelf, engine: Any, tmp_path: Path
) -> None:
    engine.checkpoint = tmp_path / "gone"
    with pytest.raises(CheckpointError, match="gone"):
        verify(engine, *arguments(shelf))
    assert not (engine.directory / VERDICT_FILE).exists()


def test_what_it_fails_in_is_kept_and_told(shelf: Shelf, engine: Any) -> None:
    def late(actions: Any) -> Any:
        actions[:, 3:, shelf.columns("gripper")] += shelf.normalised("gripper", 0, 1.0)
        return actions

    shelf.spoil(late)
    with pytest.raises(BackendError, match="gripper gripper: error"):
        ensure_verified(engine, *arguments(shelf))
    verdict = Verdict.read(engine.directory)
    assert not verdict.passed
    worst = verdict.measures.worst_joints
    assert worst["gripper"].joint == "gripper"
    assert worst["gripper"].error > worst["gripper"].limit
    assert worst["arm"].error < worst["arm"].limit
    assert any("refused: " in line for line in shelf.told)
    runs = shelf.runs
    with pytest.raises(BackendError, match="failed its verification"):
        ensure_verified(engine, *arguments(shelf))
    assert shelf.runs == runs, "nothing has changed that could change the verdict"


def unwritable(engine: Any, full: bool) -> None:
    """The verdict's file cannot be made: no space left, or another reason from the start."""
    partial = engine.directory / f".{VERDICT_FILE}.{os.getpid()}.partial"
    if full:
        partial.symlink_to("/dev/full")
    else:
        partial.mkdir()


@pytest.mark.parametrize("full", [True, False], ids=["full", "refused"])
def test_a_verdict_that_cannot_be_kept_is_told_and_counts_for_this_run(
    shelf: Shelf, engine: Any, full: bool
) -> None:
    if full and not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    observations(shelf, 1).save(engine.directory / trust.OBSERVATIONS_FILE)
    unwritable(engine, full)
    assert ensure_verified(engine, *arguments(shelf)) == "verified here on 1 observations"
    assert not (engine.directory / VERDICT_FILE).exists()
    (told,) = [line for line in shelf.told if "the verdict is not kept" in line]
    assert f"{VERDICT_FILE} cannot be written: {'No space left' if full else 'Is a directory'}" in told
    assert "verified again at the next start" in told


def test_an_older_verdict_does_not_outlive_one_that_cannot_be_kept(shelf: Shelf, engine: Any) -> None:
    given = observations(shelf, 1)
    assert verify(engine, *arguments(shelf), observations=given).passed
    unwritable(engine, full=False)
    shelf.spoil(lambda actions: actions * 0)
    assert not verify(engine, *arguments(shelf), observations=given).passed
    assert stored_verdict(engine, LIMITS) is None


def test_without_a_recording_the_images_have_the_sizes_of_the_engine(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cameras of 16:9 that are not padded to squares: nothing else would fit the engine."""
    wide = Gr00tProcessor.from_pretrained(shelf.checkpoint, letterbox=False)
    monkeypatch.setattr(trust, "SYNTHETIC_OBSERVATIONS", 2)
    sizes = [(252, 448)] * 2
    shelf.fake.functions.update(module_functions(shelf.form, shapes_of(shelf.form.config, sizes)))
    folder = shelf.write(tmp_path / "wide", sizes=sizes)
    made = engines.TensorRTEngine(folder, shelf.checkpoint, TAG, shelf.form.embodiment_id, device="cuda")
    seen: list[Any] = []
    run = made.run
    made.run = lambda inputs, noise: (seen.append(inputs["pixel_values"]), run(inputs, noise))[1]
    _, *others = arguments(shelf)
    assert ensure_verified(made, wide, *others) == "verified here on 2 observations"
    assert [tuple(image.shape[-2:]) for image in seen[0]] == sizes


def test_sizes_that_no_camera_has_are_named(shelf: Shelf, tmp_path: Path) -> None:
    """Built for other images than this checkpoint's processing makes: no verdict, and a reason."""
    folder = shelf.write(tmp_path / "odd", sizes=[(252, 448)] * 2)
    made = engines.TensorRTEngine(folder, shelf.checkpoint, TAG, shelf.form.embodiment_id, device="cuda")
    with pytest.raises(Gr00tError, match=r"no camera's image becomes one of 252 x 448 pixels"):
        ensure_verified(made, *arguments(shelf))
    assert not (folder / VERDICT_FILE).exists()


def test_asking_again_replaces_a_verdict(shelf: Shelf, engine: Any) -> None:
    """`benchmark --verify` after a driver was repaired, say."""
    sound = shelf.fake.functions["action"]
    shelf.spoil(lambda actions: actions * 0)
    assert not verify(engine, *arguments(shelf), observations=observations(shelf, 1)).passed
    shelf.fake.functions["action"] = sound
    assert verify(engine, *arguments(shelf), observations=observations(shelf, 1)).passed
    assert ensure_verified(engine, *arguments(shelf)) == "verified here on 1 observations"


def test_a_verdict_counts_for_its_limits_and_its_machine_only(shelf: Shelf, engine: Any) -> None:
    verify(engine, *arguments(shelf), observations=observations(shelf, 1))
    tell = shelf.told.append
    assert stored_verdict(engine, None, tell) is None
    narrower = {key: own * (0.5 if key == "arm" else 1.0) for key, own in LIMITS.items()}
    assert stored_verdict(engine, narrower, tell) is None
    for part in ("gpu", "compute_capability", "driver", "flavour", "tensorrt"):
        engine.machine = dataclasses.replace(MACHINE, **{part: "another"})
        shelf.told.clear()
        assert stored_verdict(engine, LIMITS, tell) is None
        assert part.replace("_", " ") in shelf.told[0]
    engine.machine = MACHINE
    assert stored_verdict(engine, LIMITS, tell) is not None


def test_without_limits_the_default_counts(shelf: Shelf, engine: Any) -> None:
    given = observations(shelf, 1)
    verdict = verify(engine, shelf.processor, TAG, observations=given)
    assert verdict.measures.limits == {}
    assert {worst.limit for worst in verdict.measures.worst_joints.values()} == {0.03}
    assert stored_verdict(engine, None) == verdict


def test_progress_is_told_with_the_time_that_is_left(
    shelf: Shelf, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trust._Narrator, "PERIOD_S", 0.0)
    verify(engine, *arguments(shelf), observations=observations(shelf, 1))
    lines = [line for line in shelf.told if line.startswith("float32 network: layer")]
    steps = shelf.form.num_steps * shelf.form.config.dit.num_layers
    assert len(lines) > steps
    assert lines[-1].endswith(", 0 s left")


def test_the_engine_is_asked_for_what_the_network_was(shelf: Shelf, engine: Any) -> None:
    """Same inputs and noise to both: the cosine of other noise would be far from 1."""
    seen: list[np.ndarray] = []
    run = engine.run
    engine.run = lambda inputs, noise: (seen.append(noise), run(inputs, noise))[1]
    given = observations(shelf, 2)
    assert measure(engine, *arguments(shelf), observations=given).passed
    for noise, one in zip(seen, given, strict=True):
        np.testing.assert_array_equal(noise, one.noise)
