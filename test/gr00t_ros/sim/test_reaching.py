# SPDX-License-Identifier: Apache-2.0
"""The reaching task: fair episodes, an honest referee, and an expert that never errs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gr00t_ros.errors import SimulationError
from gr00t_ros.sim.expert import Expert
from gr00t_ros.sim.reaching import LATE, RUNNING, SUCCESS, TIME_LIMIT, WRONG, ReachingTask
from gr00t_ros.sim.reaching_episodes import (
    FIRST_WAY,
    KINDS,
    MARGIN,
    MOVE,
    MOVED,
    NAMES,
    OBJECTS,
    ROOM,
    STATIC,
    SWAPPED,
    WORDINGS,
    draw,
)
from gr00t_ros.sim.reaching_samples import KICK_ABOVE, KICK_AWAY, LOWEST, Kicks, generate
from gr00t_ros.sim.scene import JOINTS
from support_simulator import NEEDS_SIMULATOR

pytestmark = NEEDS_SIMULATOR

SEEDS = range(5)
# Where the two others leave the named object no way as long as most.
CROWDED = (1_000_346, 1_000_360)


@pytest.fixture(scope="module")
def task() -> ReachingTask:
    return ReachingTask(width=64, height=64)


def test_a_seed_is_one_scene_for_every_kind_and_another_for_another_seed(task: ReachingTask) -> None:
    scenes = [draw(seed, STATIC, task.kinematics) for seed in SEEDS]
    assert len({scene.start for scene in scenes}) == len(SEEDS)
    for scene in scenes:
        for kind in (MOVED, SWAPPED):
            other = draw(scene.seed, kind, task.kinematics)
            assert other.change is not None
            assert replace(other, kind=STATIC, change=None) == scene
            assert (other.change.named != scene.named) == (kind == SWAPPED)


def test_objects_have_room_are_in_the_picture_and_every_name_and_wording_comes(task: ReachingTask) -> None:
    named, texts = set(), set()
    for seed in range(150):
        scene = draw(seed, STATIC, task.kinematics)
        spots = np.array([scene.places[name][:2] for name in NAMES])
        for place, item in enumerate(OBJECTS):
            others = np.delete(spots, place, axis=0)
            assert np.linalg.norm(others - spots[place], axis=1).min() >= ROOM
            seen = scene.view.project(np.append(spots[place], item.size))
            assert all(MARGIN <= share <= 1 - MARGIN for share in seen)
        tip = task.kinematics.point(task.kinematics.tip(np.array(scene.start)))
        assert np.linalg.norm(tip[:2] - spots[NAMES.index(scene.named)]) >= FIRST_WAY
        named.add(scene.named)
        texts.add(scene.instruction.replace(scene.named.replace("_", " "), "{}"))
    assert named == set(NAMES)
    assert texts == set(WORDINGS)


def test_the_label_is_where_the_picture_shows_the_object(task: ReachingTask) -> None:
    colours = {item.name: np.argmax(item.rgba[:3]) for item in OBJECTS}
    for seed in SEEDS:
        task.begin(seed)
        picture = task.arm.render("front").astype(int)
        u, v = task.where_named()
        pixel = picture[int(v * 64), int(u * 64)]
        assert pixel.argmax() == colours[task.named], (seed, task.named, pixel)
        assert np.sort(pixel)[-1] > np.sort(pixel)[-2] + 20, "the object's own colour"


@pytest.mark.parametrize("kicks", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_expert_touches_what_is_named_and_nothing_else(
    task: ReachingTask, kind: str, kicks: bool
) -> None:
    """Kicked low between the objects it may brush against another one (3 % of the episodes, seed 2 among
    them), which is no demonstration."""
    for seed in SEEDS:
        sample = generate(task, seed, kind, kicks=kicks, pictures=False)
        if kicks and (seed, kind) == (2, MOVED):
            assert sample.outcome == WRONG
            continue
        assert sample.outcome == SUCCESS, seed
        assert (kind == STATIC) == (task.changed_s is None)
        assert (len(set(sample.instruction)) == 2) == (kind == SWAPPED)
        assert len(sample.state) == len(sample.action) == len(sample.where)
        assert ((sample.where > 0) & (sample.where < 1)).all()


def test_an_arm_that_was_kicked_high_comes_down_before_it_goes_out(task: ReachingTask) -> None:
    # The seed in whose second second the tip is 0.17 m high, where the arm is too short for the way out.
    assert generate(task, 147, pictures=False).outcome == SUCCESS


def test_one_that_is_crowded_moves_as_far_as_it_can(task: ReachingTask) -> None:
    for seed in CROWDED:
        scene = draw(seed, MOVED, task.kinematics)
        assert scene.change is not None
        assert scene.change.place is not None
        way = np.array(scene.change.place) - scene.places[scene.named][:2]
        assert 0.02 < np.linalg.norm(way) < MOVE[0], seed


def test_what_is_recorded_is_the_clean_command_and_what_is_executed_is_kicked(task: ReachingTask) -> None:
    apart = 0.0
    for seed in SEEDS:
        clean, kicked = (generate(task, seed, kicks=kicks, pictures=False) for kicks in (False, True))
        np.testing.assert_array_equal(clean.action[0], kicked.action[0])
        rows = min(len(clean.state), len(kicked.state))
        apart = max(apart, float(np.abs(clean.state[:rows] - kicked.state[:rows]).max()))
        # Without kicks a command is a step from the one before, and the state follows it.
        assert np.abs(np.diff(clean.action, axis=0)).max() < 0.15
        assert np.abs(clean.state[1:] - clean.action[:-1]).max() < 0.1
    assert apart > 0.05, "kicks move the arm"


def test_kicks_go_low_only_where_they_meet_nothing() -> None:
    def kicked(height: float, away: float) -> int:
        return sum(Kicks(seed).next(height, away, 1.0).any() for seed in range(40))

    assert kicked(KICK_ABOVE + 0.01, 0.0) > 30  # one a second, at every place
    assert kicked(KICK_ABOVE - 0.01, KICK_AWAY + 0.01) > 30
    assert kicked(KICK_ABOVE - 0.01, KICK_AWAY - 0.01) == 0
    assert kicked(LOWEST - 0.001, 0.3) == 0


def test_touching_another_object_first_is_no_success(task: ReachingTask) -> None:
    task.begin(1)
    other = next(name for name in NAMES if name != task.named)
    expert = Expert(task.kinematics, task.arm.targets())
    while task.outcome == RUNNING:
        centre = task.arm.object_positions()[other]
        command, _ = expert.follow(centre, float(centre[2]) + 0.02, 0.1)
        task.arm.set_targets(dict(zip(JOINTS, command, strict=True)))
        task.step(0.1)
    assert (task.outcome, task.touched) == (WRONG, other)


def test_an_arm_that_stands_still_runs_out_of_time_and_changes_nothing(task: ReachingTask) -> None:
    task.begin(0, MOVED)
    place = task.target()[0]
    while task.outcome == RUNNING:
        task.step(0.5)
    assert task.outcome == LATE
    assert task.time == pytest.approx(TIME_LIMIT)
    assert task.changed_s is None, "the change comes on the way, not by the clock"
    np.testing.assert_allclose(task.target()[0], place, atol=1e-3)


def test_an_object_that_moves_arrives_where_the_episode_says(task: ReachingTask) -> None:
    sample = generate(task, 5, MOVED, kicks=False, pictures=False)
    assert sample.outcome == SUCCESS
    change = task.episode.change
    assert change is not None
    assert change.place is not None
    task.begin(5, STATIC)
    begin = task.target()[0][:2]
    assert np.linalg.norm(np.array(change.place) - begin) > 0.05
    assert np.abs(sample.where[-1] - sample.where[0]).max() > 0.03, "seen in the label"


def test_a_kind_that_does_not_exist_is_named(task: ReachingTask) -> None:
    with pytest.raises(SimulationError, match=r"'flying'.*static, moved, swapped"):
        draw(0, "flying", task.kinematics)
