# SPDX-License-Identifier: Apache-2.0
"""What a recorded frame's action is: each kind of command, trajectories as their controller runs them, ages,
and the state one step later."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gr00t_ros.data.bag_actions import CommandActions, future_state
from gr00t_ros.errors import Cause, MessageError, NotReady, RobotConfigError
from gr00t_ros.group_values import from_checkpoint
from gr00t_ros.robot import RobotConfig
from gr00t_ros.rotations import from_quaternion
from support_bags import NS, START, BagMaker
from support_messages import array, header, joint_state, pose
from support_mobile import mobile_robot
from support_robots import small_robot

STEP_NS = NS // 20


def small(**recording: Any) -> RobotConfig:
    values = small_robot()
    values["recording"] |= recording
    return RobotConfig.from_mapping(values)


def trajectory(*points: tuple[float, list[float], list[float]], joints: Any = ("shoulder", "elbow")) -> Any:
    maker = BagMaker()
    maker.trajectory(0.0, points, joints=joints)
    return maker.messages[0][3]


def arm(robot: RobotConfig | None = None, measured: dict[str, float] | None = None) -> Any:
    return CommandActions(robot or small(), STEP_NS, lambda: measured or {}).groups["arm"]


def at(commands: Any, seconds: float) -> Any:
    found = commands.action(START + round(seconds * NS))
    return found if isinstance(found, Cause) else found.astype(float).tolist()


def add(commands: Any, message: Any, seconds: float) -> bool:
    return bool(commands.add(message, START + round(seconds * NS)))


def test_straight_between_points_and_held_from_the_last() -> None:
    commands = arm(small(max_command_age=0.2))
    add(commands, trajectory((0.0, [0.0, 1.0], []), (1.0, [1.0, 0.0], [])), 0.0)
    assert at(commands, 0.25) == pytest.approx([0.3, 0.7])  # one step later than the frame
    assert at(commands, 0.95) == pytest.approx([1.0, 0.0])
    assert at(commands, 1.2) == pytest.approx([1.0, 0.0])
    late = at(commands, 1.25)
    assert (late.kind, late.source) == (NotReady.STALE, "action.arm")
    assert (
        "no command on /arm_controller/joint_trajectory for 0.250 s, expected one within 0.2 s" in late.text
    )


@given(
    st.lists(st.tuples(st.floats(0.05, 0.5), st.floats(-1, 1), st.floats(-2, 2)), min_size=2, max_size=6),
    st.floats(0.0, 1.0),
)
def test_points_with_velocities_make_hermite_cubics(
    steps: list[tuple[float, float, float]], share: float
) -> None:
    times = np.cumsum([0.0, *(round(t, 4) for t, _, _ in steps[1:])])
    positions, velocities = np.array([p for _, p, _ in steps]), np.array([v for _, _, v in steps])
    commands = arm()
    points = [
        (float(t), [float(p), 0.0], [float(v), 0.0])
        for t, p, v in zip(times, positions, velocities, strict=True)
    ]
    add(commands, trajectory(*points), 0.0)
    now = share * times[-1]
    k = min(int(np.searchsorted(times, now, side="right")), len(times) - 1)
    h = times[k] - times[k - 1]
    u = (now - times[k - 1]) / h
    expected = (
        (2 * u**3 - 3 * u**2 + 1) * positions[k - 1]
        + (u**3 - 2 * u**2 + u) * h * velocities[k - 1]
        + (3 * u**2 - 2 * u**3) * positions[k]
        + (u**3 - u**2) * h * velocities[k]
    )
    held = commands._held[0]
    assert held.at(START + round(now * NS))[0] == pytest.approx(expected, abs=1e-5)


def test_a_trajectory_begins_where_the_one_before_stood() -> None:
    commands = arm(measured={"shoulder": 0.0, "elbow": 0.0})
    add(commands, trajectory((0.4, [4.0, 0.0], [])), 0.0)  # from where it is measured
    assert at(commands, 0.05) == pytest.approx([1.0, 0.0])
    add(commands, trajectory((0.2, [2.0, 0.0], [])), 0.1)  # stood at 1.0; turns
    assert at(commands, 0.1) == pytest.approx([1.25, 0.0])
    assert at(commands, 0.35) == pytest.approx([2.0, 0.0])
    add(commands, trajectory(joints=("shoulder", "elbow")), 0.36)  # none: a stop, where it stands
    assert at(commands, 0.4) == pytest.approx([2.0, 0.0])


def test_where_a_first_trajectory_begins_may_be_unknown() -> None:
    commands = arm()
    add(commands, trajectory((0.2, [2.0, 0.0], [])), 0.0)
    early = at(commands, 0.1)
    assert (early.kind, early.source) == (NotReady.NO_MESSAGE, "action.arm")
    assert "has not reached its first point" in early.text
    assert at(commands, 0.15) == pytest.approx([2.0, 0.0])


def test_joints_are_found_by_name_and_others_ignored() -> None:
    commands = arm()
    add(commands, trajectory((0.0, [1.0, 2.0, 3.0], []), joints=("elbow", "other", "shoulder")), 0.0)
    assert at(commands, 0.0) == pytest.approx([3.0, 1.0])
    assert not add(commands, trajectory((0.0, [9.0], []), joints=("other",)), 0.1)
    assert at(commands, 0.2) == pytest.approx([3.0, 1.0])


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (trajectory((0.0, [1.0], []), joints=("shoulder",)), "joint elbow missing in a trajectory"),
        (trajectory((0.0, [np.nan, 0.0], [])), "positions of a trajectory's points are not finite"),
        (trajectory((0.0, [1.0], [])), "positions of a trajectory's points have 1 values for 2 joints"),
        (trajectory((0.2, [1.0, 1.0], []), (0.1, [1.0, 1.0], [])), "not in order of time"),
        (trajectory((0.0, [], [1.0, 1.0])), "without positions"),
    ],
)
def test_damaged_trajectories_are_refused(message: Any, text: str) -> None:
    commands = arm()
    with pytest.raises(MessageError, match=text):
        add(commands, message, 0.0)
    assert at(commands, 0.1).kind == NotReady.NO_MESSAGE


def test_arrays_joint_states_and_units() -> None:
    robot = small()
    gripper = CommandActions(robot, STEP_NS, dict).groups["gripper"]
    add(gripper, array([0.2]), 0.0)
    assert at(gripper, 0.1) == pytest.approx([30.0])  # (0.5 - 0.2) / 0.01
    with pytest.raises(MessageError, match=r"found an array of 2 values, expected 1 \(gripper\)"):
        add(gripper, array([0.2, 0.3]), 0.1)
    with pytest.raises(MessageError, match="gripper is nan in a command"):
        add(gripper, array([np.nan]), 0.1)
    values = small_robot()
    values["action"]["arm"]["interface"] = "joint_state"
    commands = CommandActions(RobotConfig.from_mapping(values), STEP_NS, dict).groups["arm"]
    add(commands, joint_state({"x": 9.0, "elbow": 2.0, "shoulder": 1.0}), 0.0)
    assert at(commands, 0.0) == pytest.approx([1.0, 2.0])


def test_a_command_holds_for_its_age_or_for_good() -> None:
    for limit, kind in ((0.5, NotReady.STALE), (0.0, None)):
        gripper = CommandActions(small(max_command_age=limit), STEP_NS, dict).groups["gripper"]
        assert at(gripper, 0.0).kind == NotReady.NO_MESSAGE
        add(gripper, array([0.2]), 0.0)
        assert at(gripper, 0.5) == pytest.approx([30.0])
        found = at(gripper, 3.0)
        assert (found.kind if isinstance(found, Cause) else None) == kind
    assert at(gripper, -0.1).kind == NotReady.NO_MESSAGE  # before it came


def mobile(stamped: bool = False) -> RobotConfig:
    """The mobile manipulator, its tool's state in another rotation, its dataset in other units."""
    values = mobile_robot()
    values["state"]["tool"]["rotation"] = "rotvec"
    values["action"]["base"]["stamped"] = stamped
    values["units"] = {"base_linear_x": {"scale": 0.1}, "tool_x": {"scale": 0.001, "offset": 0.5}}
    values["recording"] = {"max_command_age": 0.0}
    return RobotConfig.from_mapping(values)


def twist(linear_x: float, angular_z: float, frame_id: str | None = None) -> Any:
    linear = SimpleNamespace(x=linear_x, y=9.0, z=9.0)
    angular = SimpleNamespace(x=9.0, y=9.0, z=angular_z)
    plain = SimpleNamespace(linear=linear, angular=angular)
    return plain if frame_id is None else SimpleNamespace(header=header(START, frame_id), twist=plain)


def test_twists_count_no_longer_than_the_base_follows_them() -> None:
    base = CommandActions(mobile(), STEP_NS, dict).groups["base"]
    add(base, twist(0.2, 0.3), 0.0)
    assert at(base, 0.5) == pytest.approx([2.0, 0.3])
    assert at(base, 0.55).kind == NotReady.STALE
    stamped = CommandActions(mobile(stamped=True), STEP_NS, dict).groups["base"]
    add(stamped, twist(0.2, 0.3, "base_link"), 0.0)
    assert at(stamped, 0.5) == pytest.approx([2.0, 0.3])
    with pytest.raises(MessageError, match="a twist in frame 'map', expected 'base_link'"):
        add(stamped, twist(0.2, 0.3, "map"), 0.1)


def test_poses_come_in_the_checkpoints_rotation_and_units() -> None:
    robot = mobile()
    tool = CommandActions(robot, STEP_NS, dict).groups["tool"]
    quaternion = np.array([0.1, -0.2, 0.3, 0.9])
    quaternion /= np.linalg.norm(quaternion)
    add(tool, pose([0.6, 0.2, 0.3], quaternion.tolist(), frame_id="base_link"), 0.0)
    expected = [100.0, 0.2, 0.3, *from_quaternion(quaternion, "rot6d")]
    assert at(tool, 0.0) == pytest.approx(expected, abs=1e-5)
    with pytest.raises(MessageError, match="frame 'map', expected 'base_link'"):
        add(tool, pose([0, 0, 0], [0, 0, 0, 1], frame_id="map"), 0.1)
    with pytest.raises(MessageError, match="quaternion of length 0"):
        add(tool, pose([0, 0, 0], [0, 0, 0, 0], frame_id="base_link"), 0.1)
    # The state's rotation vector becomes the action's matrix rows.
    values = mobile()
    take = future_state(tool_only(values))
    state = np.array([100.0, 0.2, 0.3, 0.1, 0.2, 0.3], np.float32)
    found = take({"tool": state})
    back = from_checkpoint(values, values.action["tool"], found["tool"][None])[0]
    assert back[:3] == pytest.approx([0.6, 0.2, 0.3], rel=1e-5)  # SI: 100 thousandths beyond 0.5
    assert from_quaternion(back[3:], "rotvec") == pytest.approx([0.1, 0.2, 0.3], abs=1e-6)


def tool_only(robot: RobotConfig) -> RobotConfig:
    return replace(robot, action={"tool": robot.action["tool"]})


def test_an_action_without_a_state_has_no_future_state() -> None:
    with pytest.raises(RobotConfigError, match=r"robot\.action\.base: no state says what a twist does"):
        future_state(replace(mobile(), action={"base": mobile().action["base"]}))
    values = small_robot()
    values["state"]["arm"]["joints"] = ["shoulder"]
    values["state"]["arm"] |= {"field": "velocity"}
    with pytest.raises(RobotConfigError, match=r"no state has the position of shoulder, elbow"):
        future_state(RobotConfig.from_mapping(values))


def test_an_age_below_zero_is_refused() -> None:
    with pytest.raises(RobotConfigError, match=r"robot\.recording\.max_command_age: found -1"):
        small(max_command_age=-1.0)


def test_which_time_of_a_command_counts() -> None:
    stamp, receive = START + NS, START + NS + NS // 100
    commands = arm()
    assert commands.time_of(stamp, receive) == stamp
    assert commands.time_of(0, receive) == receive  # "now"
    assert commands.time_of(receive + NS, receive) == receive + NS  # a trajectory that begins later
    with pytest.raises(MessageError, match=r"found a stamp 11\.000 s ahead of the recorder's clock"):
        commands.time_of(receive + 11 * NS, receive)
    values = small_robot()
    values["action"]["arm"] |= {"interface": "joint_state", "stamp": "receive"}
    commands = CommandActions(RobotConfig.from_mapping(values), STEP_NS, dict).groups["arm"]
    assert commands.time_of(stamp, receive) == receive
    del values["action"]["arm"]["stamp"]
    commands = CommandActions(RobotConfig.from_mapping(values), STEP_NS, dict).groups["arm"]
    with pytest.raises(MessageError, match=r"1\.000 s ahead of the recorder's clock"):
        commands.time_of(receive + NS, receive)
    values["action"]["gripper"]["stamp"] = "header"
    with pytest.raises(RobotConfigError, match="receive: float64_multi_array has no header"):
        RobotConfig.from_mapping(values)
