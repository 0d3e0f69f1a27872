# SPDX-License-Identifier: Apache-2.0
"""A robot YAML is read completely or refused with the key path, the value found and what was expected."""

from __future__ import annotations

import array
import copy
import dataclasses
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gr00t_ros.errors import RobotConfigError
from gr00t_ros.robot import JointUnit, RobotConfig
from support_messages import modality
from support_robots import REPOSITORY, flatten, shipped, small_config, small_robot

SAMPLE_DATA = REPOSITORY.parent / "shared" / "data" / "gr1_pick_and_place"


def changed(path: str, value: Any) -> dict[str, Any]:
    """The small robot with one value set, or removed where ``value`` is ``...``."""
    robot = small_robot()
    level = robot
    *parents, leaf = path.split(".")
    for parent in parents:
        level = level[parent]
    if value is ...:
        del level[leaf]
    else:
        level[leaf] = value
    return robot


def test_reads_every_part() -> None:
    robot = small_config()
    assert (robot.name, robot.embodiment_tag, robot.step_rate) == ("small", "new_embodiment", 20.0)
    assert robot.step_ns == 50_000_000
    assert list(robot.video) == ["front", "wrist"]
    assert robot.video["front"].type == "image"
    assert robot.video["wrist"].type == "compressed_image", (
        "a topic that ends in /compressed carries CompressedImage"
    )
    assert robot.state["arm"].joints == ("shoulder", "elbow")
    assert robot.action["gripper"].interface == "float64_multi_array"
    assert robot.unit("gripper") == JointUnit(0.01, 0.5, -1)
    assert robot.unit("elbow") == JointUnit()
    assert robot.limits["shoulder"].acceleration == 8.0
    assert robot.limits["elbow"].acceleration is None
    assert robot.joints == ("shoulder", "elbow", "gripper")
    assert robot.executor_joint_state_topic == "/joint_states"
    assert robot.verification.max_joint_error == 0.03
    assert robot.limits["shoulder"].max_engine_error is None


def test_how_exact_an_engine_must_be() -> None:
    values = changed("limits.elbow.max_engine_error", 0.1)
    values["verification"] = {"max_joint_error": 0.02}
    robot = RobotConfig.from_mapping(values)
    assert robot.verification.max_joint_error == 0.02
    assert robot.limits["elbow"].max_engine_error == 0.1


def test_how_the_executor_follows_chunks() -> None:
    executor = small_config().executor
    assert (executor.merge, executor.interpolation) == ("blend", "cubic"), "where the YAML says nothing"
    assert (executor.blend_time, executor.ensemble_decay) == (0.2, 0.01)
    values = small_robot()
    values["executor"] |= {
        "merge": "ensemble",
        "interpolation": "linear",
        "blend_time": 1,
        "ensemble_decay": -0.5,
    }
    executor = RobotConfig.from_mapping(values).executor
    assert (executor.merge, executor.interpolation) == ("ensemble", "linear")
    assert (executor.blend_time, executor.ensemble_decay) == (1.0, -0.5)


def test_lists_its_topics_with_types() -> None:
    robot = small_config()
    assert [(spec.topic, spec.message_type, spec.used_by) for spec in robot.topics] == [
        ("/camera/front/image_raw", "sensor_msgs/msg/Image", ("video.front",)),
        ("/camera/wrist/image_raw/compressed", "sensor_msgs/msg/CompressedImage", ("video.wrist",)),
        ("/joint_states", "sensor_msgs/msg/JointState", ("state.arm", "state.gripper")),
        ("/gr00t/instruction", "std_msgs/msg/String", ("instruction",)),
    ]
    assert [(spec.topic, spec.message_type) for spec in robot.command_topics] == [
        ("/arm_controller/joint_trajectory", "trajectory_msgs/msg/JointTrajectory"),
        ("/gripper_controller/commands", "std_msgs/msg/Float64MultiArray"),
    ]


def test_file_mapping_and_flat_parameters_give_the_same_robot(tmp_path: Any) -> None:
    nested = small_robot()
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump({"/**": {"ros__parameters": {"robot": nested, "rate": 10.0}}}))
    assert (
        RobotConfig.from_file(path)
        == RobotConfig.from_mapping(nested)
        == RobotConfig.from_flat(flatten(nested))
    )


def test_node_names_dotted_keys_and_arrays_are_read_too(tmp_path: Any) -> None:
    expected = small_config()
    named = tmp_path / "named.yaml"
    named.write_text(yaml.safe_dump({"gr00t": {"policy": {"ros__parameters": {"robot": small_robot()}}}}))
    assert RobotConfig.from_file(named) == expected
    dotted = tmp_path / "dotted.yaml"
    flat = {f"robot.{key}": value for key, value in flatten(small_robot()).items()}
    dotted.write_text(yaml.safe_dump({"/gr00t/policy": {"ros__parameters": flat}}))
    assert RobotConfig.from_file(dotted) == expected
    # rclpy hands arrays of numbers over as array.array.
    with_array = changed("state.gripper", {"topic": "/grip", "type": "float64_multi_array"})
    with_array["state"]["gripper"]["indices"] = array.array("q", [2, 0])
    del with_array["units"]
    with_array["limits"]["gripper"]["min"] = -1
    assert RobotConfig.from_mapping(with_array).state["gripper"].indices == (2, 0)
    assert RobotConfig.from_mapping(with_array).limits["gripper"].min == -1.0, (
        "whole numbers count as numbers"
    )


def test_is_immutable() -> None:
    robot = small_config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        robot.name = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        robot.limits["elbow"] = robot.limits["shoulder"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("name", ..., "robot.name: missing, expected the robot's name"),
        (
            "step_rate",
            0.0,
            "robot.step_rate: found 0.0, expected the policy's action steps per second (greater than 0)",
        ),
        ("step_rate", "20", "robot.step_rate: found '20', expected"),
        ("step_rate", "2e1", "and 1.0e-3 rather than 1e-3"),
        ("step_rate", float("nan"), "(finite)"),
        ("step_rate", True, "robot.step_rate: found True"),
        (
            "video.keys",
            ["front", "wirst"],
            "robot.video.wirst: missing, expected this camera's topic (did you mean wrist?)",
        ),
        ("video.keys", ["front"], "robot.video.wrist: unknown key"),
        ("video.keys", [], "robot.video.keys: found [], expected the video keys of the checkpoint"),
        ("video.keys", ["front", "front"], "each once; 'front' is there 2 times"),
        ("video.keys", "front", "a list with at least one entry"),
        ("video.front", None, "robot.video.front: found nothing (ROS parameters know no null)"),
        ("video.front.topic", "camera front", "expected a topic name such as /joint_states"),
        ("video.front.topic", "/camera/wrist/image_raw/compressed", "two cameras cannot share it"),
        ("video.front.topic", "/joint_states", "which robot.video.front reads as sensor_msgs/msg/Image"),
        (
            "video.front.max_age",
            0,
            "robot.video.front.max_age: found 0, expected the largest age of a frame in s",
        ),
        ("video.front.stamp", "recieve", "one of header, receive (did you mean receive?)"),
        ("video.front.maxage", 0.1, "robot.video.front.maxage: unknown key with the value 0.1"),
        ("video.front.maxage", 0.1, "(did you mean max_age?)"),
        ("state.arm.joints", ["shoulder", "shoulder"], "robot.state.arm.joints"),
        ("state.arm.joints", ["shoulder.1"], "is not a name of letters"),
        (
            "state.arm.type",
            "float64_multi_array",
            "robot.state.arm.indices: missing, expected positions in the array",
        ),
        ("state.gripper.stamp", "receive", "expected 'header', as robot.state.arm has for the same topic"),
        ("state.arm.field", "positions", "one of position, velocity, effort (did you mean position?)"),
        (
            "action.arm.representation",
            "joint_velocity",
            "robot.action.arm.interface: found 'joint_trajectory'",
        ),
        ("action.arm.representation", "ee_poses", "(did you mean ee_pose?)"),
        ("action.arm.interface", "twist", "one of joint_trajectory, float64_multi_array, joint_state"),
        ("action.arm.interface", "joint_trajectorie", "(did you mean joint_trajectory?)"),
        ("action.gripper.joints", ["elbow"], "elbow is commanded by arm too"),
        ("action.gripper.topic", "/arm_controller/joint_trajectory", "has a command topic of its own"),
        ("action.gripper.topic", "/joint_states", "expected a topic that carries commands only"),
        ("units.griper", {"scale": 1.0}, "robot.units.griper: unknown key"),
        ("units.griper", {"scale": 1.0}, "(did you mean gripper?)"),
        ("units.gripper.scale", -0.01, "SI units per dataset unit (greater than 0)"),
        ("units.gripper.sign", 0, "robot.units.gripper.sign: found 0, expected the direction: 1 or -1"),
        (
            "limits.elbow",
            ...,
            "robot.limits.elbow: missing, expected min, max and velocity: a joint without limits",
        ),
        ("limits.elbow.velocity", ..., "robot.limits.elbow.velocity: missing"),
        ("limits.elbow.max", -1.0, "robot.limits.elbow.max: found -1.0, expected more than min, which is -1"),
        ("limits.elbow.min", float("-inf"), "robot.limits.elbow.min: found -inf"),
        ("limits.elbo", {"min": 0.0, "max": 1.0, "velocity": 1.0}, "robot.limits.elbo: unknown key"),
        ("recording.action_source", "command", "(did you mean commands?)"),
        ("executor.max_chunk_age", -1.0, "robot.executor.max_chunk_age: found -1.0"),
        (
            "executor.merge",
            "mix",
            "robot.executor.merge: found 'mix', expected how a newer chunk takes over: one of",
        ),
        ("executor.merge", True, "robot.executor.merge: found True"),
        ("executor.interpolation", "cubik", "(did you mean cubic?)"),
        ("executor.blend_time", 0.0, "robot.executor.blend_time: found 0.0"),
        ("executor.blend_time", 1.5, "at most 1 s"),
        ("executor.blend_time", "0.2", "without quotes"),
        ("executor.ensemble_decay", 2, "between -1 and 1 per step"),
        ("executor.max_chunk_aeg", 1.0, "(did you mean max_chunk_age?)"),
        (
            "verification",
            {"max_joint_error": 0.0},
            "robot.verification.max_joint_error: found 0.0, expected how far",
        ),
        ("verification", {"max_error": 0.1}, "(did you mean max_joint_error?)"),
        ("verification", 0.03, "robot.verification: found 0.03"),
        ("limits.elbow.max_engine_error", -0.1, "robot.limits.elbow.max_engine_error: found -0.1"),
        ("limits.elbow.max_engine_error", "0.1", "(a number, without quotes"),
        (
            "sate",
            {},
            "robot.sate: unknown key with the value no keys, expected a known key (did you mean state?)",
        ),
    ],
)
def test_mistakes_are_named(path: str, value: Any, expected: str) -> None:
    with pytest.raises(RobotConfigError) as error:
        RobotConfig.from_mapping(changed(path, value))
    assert expected in str(error.value)


def test_joint_states_on_two_topics_need_the_executors_topic() -> None:
    robot = changed("state.gripper.topic", "/gripper/joint_states")
    with pytest.raises(
        RobotConfigError, match=r"robot.executor.joint_state_topic: missing.*names /gripper/joint_states"
    ):
        RobotConfig.from_mapping(robot)
    robot["executor"]["joint_state_topic"] = "/all_joint_states"
    assert RobotConfig.from_mapping(robot).executor_joint_state_topic == "/all_joint_states"


def test_the_executor_takes_the_stamp_rule_of_its_topic() -> None:
    robot = small_robot()
    assert RobotConfig.from_mapping(robot).executor_joint_state_stamp == "header"
    robot["state"]["arm"]["stamp"] = robot["state"]["gripper"]["stamp"] = "receive"
    assert RobotConfig.from_mapping(robot).executor_joint_state_stamp == "receive"


def test_array_and_pose_sources() -> None:
    robot = small_robot()
    robot["state"]["keys"] = ["arm", "gripper", "force", "eef"]
    robot["state"]["force"] = {"topic": "/force", "type": "float64_multi_array", "width": 3}
    robot["state"]["eef"] = {"topic": "/pose", "type": "pose", "rotation": "rot6d", "frame_id": "base"}
    config = RobotConfig.from_mapping(robot)
    assert config.state["force"].joints == ("force_0", "force_1", "force_2")
    assert config.state["force"].stamp == "receive", "an array has no header"
    assert config.state["eef"].width == 9
    robot["state"]["force"]["stamp"] = "header"
    with pytest.raises(RobotConfigError, match="a Float64MultiArray has no header"):
        RobotConfig.from_mapping(robot)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "expected a ROS 2 parameter file"),
        ("robot: {name: x}", "expected a ROS 2 parameter file"),
        ("/**: {ros__parameters: {robot: 3}}", "robot: found 3, expected keys with values"),
        ("/**: {ros__parameters: {robot: [", "not valid YAML"),
        (
            "/**:\n  ros__parameters:\n    robot:\n      name: a\n      name: b\n",
            "line 5: found the key 'name' twice",
        ),
        (
            "a: {ros__parameters: {robot: {name: a}}}\nb: {ros__parameters: {robot: {name: b}}}",
            "found different robots for /a, /b",
        ),
        ("/**: {ros__parameters: {robot: {1: 2}}}", "expected keys that are text"),
    ],
)
def test_broken_files_are_refused_by_name(tmp_path: Any, text: str, expected: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(RobotConfigError) as error:
        RobotConfig.from_file(path)
    assert str(error.value).startswith(str(path))
    assert expected in str(error.value)


def test_a_missing_file_is_refused_by_name(tmp_path: Any) -> None:
    with pytest.raises(RobotConfigError, match=r"nowhere.yaml: cannot be read"):
        RobotConfig.from_file(tmp_path / "nowhere.yaml")


def paths(values: dict[str, Any], prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for key, value in values.items():
        found.append((*prefix, key))
        if isinstance(value, dict):
            found += paths(value, (*prefix, key))
    return found


ODD_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.one_of(st.none(), st.integers(), st.text(max_size=4), st.floats()), max_size=3),
    st.dictionaries(st.one_of(st.text(max_size=4), st.integers()), st.integers(), max_size=2),
    st.just(10**400),
    st.binary(max_size=4),
)


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_any_change_is_read_or_refused_but_never_crashes(data: st.DataObject) -> None:
    """Dropping, renaming or altering any key gives a valid description or a RobotConfigError, nothing
    else."""
    robot = small_robot()
    for _ in range(data.draw(st.integers(1, 3))):
        *parents, leaf = data.draw(st.sampled_from(paths(robot)))
        level: Any = robot
        for parent in parents:
            level = level[parent]
        change = data.draw(st.sampled_from(["drop", "rename", "alter"]))
        value = level.pop(leaf)
        if change == "rename":
            level[data.draw(st.text(max_size=6))] = value
        elif change == "alter":
            level[leaf] = data.draw(ODD_VALUES)
        if not robot:
            break
    for read in (RobotConfig.from_mapping, lambda r: RobotConfig.from_flat(flatten(r))):
        refusal = ""
        try:
            config = read(copy.deepcopy(robot))
        except RobotConfigError as error:
            refusal = str(error)
        assert refusal.startswith("robot") or set(config.joints) <= set(config.limits)


MODALITY = modality(["front", "wrist"], ["arm", "gripper"], ["arm", "gripper"])
WIDTHS = {"arm": 2, "gripper": 1}


def test_a_fitting_checkpoint_is_accepted_also_when_it_uses_less() -> None:
    robot = small_config()
    robot.check_against(MODALITY, WIDTHS, WIDTHS, 16)
    robot.check_against(modality(["wrist"], ["gripper"], ["arm", "gripper"]), {"gripper": 1}, WIDTHS, 16)


def test_every_mismatch_is_in_one_message() -> None:
    odd = modality(
        ["wrist", "front", "top"], ["arm", "legs"], ["gripper", "base"], video_deltas=[0, 1], horizon=20
    )
    with pytest.raises(RobotConfigError) as error:
        small_config().check_against(odd, {"arm": 7, "legs": 6}, {"gripper": 2, "base": 3}, 16)
    text = str(error.value)
    for expected in (
        "does not fit the checkpoint's embodiment new_embodiment",
        "video.top: missing, the checkpoint needs it; found front, wrist",
        "video: the checkpoint's delta_indices are [0, 1], expected none after 0",
        "state.legs: missing",
        "state.arm: found 2 columns (shoulder, elbow), expected 7",
        "action.base: missing",
        "action.arm: the checkpoint gives no such action",
        "action.gripper: found 1 columns (gripper), expected 2",
        "action: the checkpoint's delta_indices have 20 steps, its horizon only 16",
    ):
        assert expected in text


def test_the_order_of_cameras_must_be_the_networks() -> None:
    with pytest.raises(RobotConfigError, match="found the order front, wrist, expected wrist, front"):
        small_config().check_against(
            modality(["wrist", "front"], ["arm", "gripper"], ["arm", "gripper"]), WIDTHS, WIDTHS, 16
        )


@pytest.mark.parametrize("name", ["so101", "gr1"])
def test_shipped_robots_are_valid_and_named_after_their_file(name: str) -> None:
    robot = shipped(name)
    assert robot.name == name
    assert set(robot.joints) == set(robot.limits)


def test_so101_has_the_arms_joints() -> None:
    robot = shipped("so101")
    arm = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll")
    assert robot.action["arm"].joints == robot.state["arm"].joints == arm
    assert robot.units == {}, "the simulated arm's dataset is in rad"


def test_the_commented_units_of_so101_are_valid_when_uncommented() -> None:
    text = (REPOSITORY / "config" / "robots" / "so101.yaml").read_text()
    robot = yaml.safe_load(text)["/**"]["ros__parameters"]["robot"]
    lines = text.splitlines()
    first = next(i for i, line in enumerate(lines) if line.strip() == "# units:")
    block = [line.replace("      # ", "", 1) for line in lines[first : first + 3]]
    robot |= yaml.safe_load("\n".join(block))
    config = RobotConfig.from_mapping(robot)
    gripper, limits = config.unit("gripper"), config.limits["gripper"]
    assert gripper.offset == pytest.approx(limits.min), "0 percent is closed"
    assert gripper.offset + 100 * gripper.scale == pytest.approx(limits.max), "100 percent is open"


def test_gr1_groups_have_the_datasets_widths() -> None:
    robot = shipped("gr1")
    widths = {"left_arm": 7, "right_arm": 7, "left_hand": 6, "right_hand": 6, "waist": 3}
    assert {key: source.width for key, source in robot.state.items()} == widths
    keys = list(widths)
    robot.check_against(modality(["ego_view"], keys, keys), widths, widths, 16)


@pytest.mark.skipif(not SAMPLE_DATA.exists(), reason="the GR1 sample recording is not beside this repository")
def test_gr1_limits_hold_what_was_recorded() -> None:
    import json

    import numpy as np
    import pyarrow.parquet as pq

    robot = shipped("gr1")
    groups = json.loads((SAMPLE_DATA / "meta" / "modality.json").read_text())["action"]
    for path in sorted((SAMPLE_DATA / "data").rglob("*.parquet")):
        table = pq.read_table(path, columns=["observation.state", "action"])
        for column in ("observation.state", "action"):
            values = np.stack(table[column].to_pylist())
            for key, group in robot.action.items():
                part = values[:, groups[key]["start"] : groups[key]["end"]]
                assert part.shape[1] == group.width
                low = [robot.limits[joint].min for joint in group.joints]
                high = [robot.limits[joint].max for joint in group.joints]
                assert (part >= low).all(), f"{path.name} {column} {key} below its limits"
                assert (part <= high).all(), f"{path.name} {column} {key} above its limits"
