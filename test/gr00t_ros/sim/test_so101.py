# SPDX-License-Identifier: Apache-2.0
"""The simulated arm follows its targets, repeats itself exactly, and its cameras show the scene."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from gr00t_ros.errors import SimulationError
from gr00t_ros.sim import rendering
from gr00t_ros.sim.scene import JOINTS, OBJECTS
from gr00t_ros.sim.so101 import START_POSE, SimulatedSO101
from support_simulator import NEEDS_SIMULATOR

pytestmark = NEEDS_SIMULATOR


@pytest.fixture(scope="module")
def arm() -> Iterator[SimulatedSO101]:
    simulation = SimulatedSO101()
    yield simulation
    simulation.close()


def test_joint_limits_are_the_models(arm: SimulatedSO101) -> None:
    limits = arm.joint_limits()
    assert tuple(limits) == JOINTS
    assert limits["shoulder_pan"] == pytest.approx((-1.91986, 1.91986))
    assert limits["gripper"] == pytest.approx((-0.17453, 1.74533))


def test_rests_at_its_start_pose(arm: SimulatedSO101) -> None:
    arm.reset()
    arm.step(1.0)
    np.testing.assert_allclose(arm.joint_positions(), [START_POSE[name] for name in JOINTS], atol=2e-3)
    np.testing.assert_allclose(arm.joint_velocities(), 0.0, atol=1e-2)


def test_follows_a_smooth_motion_of_all_joints_within_3_degrees(arm: SimulatedSO101) -> None:
    arm.reset()
    start = arm.joint_positions()
    worst = 0.0
    for i in range(300):
        swing = 0.2 * (1 - math.cos(2.0 * i * 0.01))
        arm.set_targets({name: start[k] + (swing if k % 2 else -swing) for k, name in enumerate(JOINTS)})
        arm.step(0.01)
        worst = max(worst, float(np.abs(arm.targets() - arm.joint_positions()).max()))
    assert worst < math.radians(3.0)


def test_the_same_seed_and_targets_give_the_same_motion_to_the_bit() -> None:
    def run(seed: int) -> NDArray[np.float64]:
        simulation = SimulatedSO101(cameras=(), seed=seed)
        simulation.set_targets({"shoulder_pan": 0.7, "elbow_flex": 1.2, "gripper": 0.0})
        simulation.step(0.5)
        return simulation.snapshot()

    np.testing.assert_array_equal(run(3), run(3))
    assert not np.array_equal(run(3), run(4))


def test_servos_stay_inside_the_joint_limits_whatever_they_are_told(arm: SimulatedSO101) -> None:
    arm.reset()
    arm.set_targets(dict.fromkeys(JOINTS, 1e6))
    arm.step(2.0)
    for name, position in zip(JOINTS, arm.joint_positions(), strict=True):
        low, high = arm.joint_limits()[name]
        assert low - 0.05 < position < high + 0.05, name


@pytest.mark.parametrize(
    ("targets", "said"), [({"elbow": 1.0}, "elbow"), ({"gripper": math.nan}, "not finite")]
)
def test_impossible_targets_are_refused_as_a_whole(
    arm: SimulatedSO101, targets: dict[str, float], said: str
) -> None:
    before = arm.targets()
    with pytest.raises(SimulationError, match=said):
        arm.set_targets({"shoulder_pan": 0.1} | targets)
    np.testing.assert_array_equal(arm.targets(), before)


def test_objects_lie_on_the_table_and_come_back_when_lost(arm: SimulatedSO101) -> None:
    arm.reset()
    arm.step(0.5)
    for item in OBJECTS:
        assert arm.object_positions()[item.name][2] == pytest.approx(item.size, abs=3e-3)
    arm._data.joint("red_cube").qpos[:3] = (2.0, 0.0, -0.5)
    arm.step(0.01)
    assert arm.object_positions()["red_cube"][2] > 0.0


def colour_share(picture: NDArray[np.uint8], channel: int) -> float:
    """Share of pixels in which one colour is more than twice as bright as both others."""
    values = picture.astype(np.int64)
    others = np.max(np.delete(values, channel, axis=2), axis=2)
    return float((values[:, :, channel] > np.maximum(2 * others, 60)).mean())


def test_cameras_show_arm_and_objects(arm: SimulatedSO101) -> None:
    arm.reset()
    front, wrist = arm.render("front"), arm.render("wrist")
    for picture in (front, wrist):
        assert picture.shape == (240, 320, 3)
        assert picture.dtype == np.uint8
        assert 60 < picture.mean() < 200, "the scene is too dark or washed out"
    assert colour_share(front, 0) > 0.002
    assert colour_share(front, 2) > 0.002
    yellow = (front[:, :, 0] > 150) & (front[:, :, 1] > 110) & (front[:, :, 2] < 60)
    assert yellow.mean() > 0.02, "the arm is not in the front camera's picture"
    assert colour_share(wrist, 2) > 0.002, "the wrist camera does not see the ball in front of the gripper"


def test_pictures_follow_the_arm(arm: SimulatedSO101) -> None:
    arm.reset()
    before = arm.render("front").astype(int)
    arm.set_targets({"shoulder_pan": 0.8})
    arm.step(1.5)
    assert (np.abs(arm.render("front").astype(int) - before).max(axis=2) > 40).mean() > 0.02


def test_unknown_camera_is_named() -> None:
    with pytest.raises(SimulationError, match=r"'side'.*front and wrist"):
        SimulatedSO101(cameras=("side",))


def test_missing_renderer_names_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(rendering, "_egl_devices", lambda: 0)
    monkeypatch.setattr(rendering.ctypes.util, "find_library", lambda name: None)
    with pytest.raises(SimulationError, match=r"apt-get install libegl1.*libosmesa6"):
        rendering.choose_renderer()
    monkeypatch.setattr(rendering.ctypes.util, "find_library", lambda name: "libOSMesa.so.8")
    assert rendering.choose_renderer() == "osmesa"


def test_a_renderer_that_does_not_work_is_told_in_one_error() -> None:
    code = (
        "from gr00t_ros.sim.so101 import SimulatedSO101\n"
        "from gr00t_ros.errors import SimulationError\n"
        "try: SimulatedSO101().render('front')\n"
        "except SimulationError as error: print('told:', error)\n"
    )
    environment = {**os.environ, "MUJOCO_GL": "egl", "MUJOCO_EGL_DEVICE_ID": "99"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120
    )
    assert "told: MUJOCO_GL=" in done.stdout, done.stdout + done.stderr
