# SPDX-License-Identifier: Apache-2.0
"""Everything that is drawn, from everything that was heard. No ROS types, not thread safe.

Forward kinematics of a chunk is computed once, when it comes; :meth:`Scene.shapes` only puts together what
holds at a moment. What is missing is said in the status text, and drawn nowhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gr00t_ros.chunk import Chunk, ChunkGroup, chunk_group
from gr00t_ros.robot import RobotConfig
from gr00t_ros.robot_types import TWIST
from gr00t_ros.visualization import drawing, grippers
from gr00t_ros.visualization.effectors import find_effectors
from gr00t_ros.visualization.kinematics import Kinematics
from gr00t_ros.visualization.predicting import (
    Excess,
    agreement,
    effector_paths,
    excesses,
    joint_positions,
    pose_matrices,
    twist_path,
)
from gr00t_ros.visualization.robot_model import RobotModel, read_model
from gr00t_ros.visualization.shapes import Shape, over_time
from gr00t_ros.visualization.trail import Trail

Values = NDArray[np.float64]

# s. What a chunk meant is removed this long after its last step.
CHUNK_STAYS_S = 0.5
# s. Joint states of a robot come at 20 Hz and more: older ones say where it was.
STALE_S = 1.0
# s. A status that comes five or ten times a second and was not heard for longer is none.
SILENT_S = 2.0
# s. Between two samples of the executed path: 25 Hz.
TRAIL_PERIOD_S = 0.04
# s. Messages of several topics overtake each other by less; a simulation that begins anew goes back further.
SET_BACK_S = 1.0
# REP 105's name for a robot's own frame, where neither URDF nor robot YAML names one.
DEFAULT_FRAME = "base_link"
# Where the status text stands, in shares of the robot's size above its root: arms seldom point straight up.
STATUS_HEIGHT = 0.9
# Lines of the status text about limits, and characters of an instruction: more would fill the view.
MAX_LINES, MAX_CHARS = 4, 80


class Scene:
    """The picture of one robot.

    ``wanted`` names the links whose paths are drawn (empty: found by themselves), ``trail_s`` is how long the
    executed path reaches back. ``draw_robot`` adds the measured robot, for viewers without TF.
    """

    def __init__(
        self,
        robot: RobotConfig,
        *,
        wanted: Sequence[str] = (),
        frame: str = "",
        trail_s: float = 10.0,
        draw_robot: bool = False,
    ) -> None:
        self.robot = robot
        self.model: RobotModel | None = None
        self.kinematics: Kinematics | None = None
        self.measured: dict[str, float] = {}
        self.policy, self.executor = ("policy not heard", -math.inf), ("executor not heard", -math.inf)
        self._wanted, self._frame, self._trail_s, self._draw_robot = tuple(wanted), frame, trail_s, draw_robot
        self._measured_ns = 0
        self._chunk: Chunk | None = None
        self._paths: list[Values] = []
        self._end: dict[str, float] = {}
        self._excesses: list[Excess] = []
        self._chunk_shapes: list[Shape] = []
        self._plan_shapes: list[Shape] = []
        self._sampled_ns = 0
        self._find()

    # What is heard.

    def set_model(self, text: str, where: str = "/robot_description") -> None:
        """The robot's URDF. Raises UrdfError, or EffectorError for a wanted link that it does not have; then
        the model before stays."""
        model = read_model(text, where)
        find_effectors(self.robot, model, self._wanted)
        self.model, self.kinematics = model, Kinematics(model)
        self._find()
        self.end_chunk()

    def measure(self, names: Sequence[str], positions: Sequence[float], stamp_ns: int) -> None:
        """Measured joints (rad, m). Values that are no numbers are left out, and so forgotten."""
        for name, position in zip(names, positions, strict=False):
            if math.isfinite(position):
                self.measured[name] = float(position)
            else:
                self.measured.pop(name, None)
        if self._needed and not set(self._needed) & set(names):
            return  # says nothing of where the end effectors are
        self._measured_ns = stamp_ns
        if not -SET_BACK_S * 1e9 < stamp_ns - self._sampled_ns < TRAIL_PERIOD_S * 1e9:
            self._sampled_ns = stamp_ns
            paths = effector_paths(self.effectors, (), self._link_poses(self.measured, self._ends))
            for effector, path in zip(self.effectors, paths, strict=True):
                if effector.link:
                    self.trails[effector.name].add(stamp_ns, path[0])

    def measure_pose(self, key: str, pose: ArrayLike, stamp_ns: int) -> None:
        """The measured pose [7] of the pose group ``key``, in its frame."""
        for effector in self.effectors:
            if not effector.link and effector.key == key:
                self.trails[effector.name].add(stamp_ns, pose_matrices(np.asarray(pose)[None])[0])

    def take_chunk(self, chunk: Chunk) -> None:
        """A chunk whose groups are the robot's (``check_chunk``). One without groups ends what was drawn."""
        before, paths_before = self._chunk, self._paths
        self.end_chunk()
        if not chunk.groups:
            return
        positions = joint_positions(chunk.groups, chunk.step_ns, self.measured)
        self._chunk = chunk
        poses = self._link_poses(positions, self._moved)
        self._paths = effector_paths(self.effectors, chunk.groups, poses)
        end = {name: float(np.reshape(value, -1)[-1]) for name, value in positions.items()}
        self._end = {name: value for name, value in end.items() if math.isfinite(value)}
        self._excesses = excesses(chunk, self.robot)
        shapes: list[Shape] = []
        for index, (effector, path) in enumerate(zip(self.effectors, self._paths, strict=True)):
            known = paths_before[index] if index < len(paths_before) else None
            sure = agreement(chunk, path, before, known)
            if len(path) == chunk.horizon:
                shapes += drawing.predicted(index, effector.frame, path, chunk.frozen_steps, sure, self.size)
        shapes += self._base_shapes(chunk) + self._limit_shapes(poses) + self._gripper_shapes()
        if self.model is not None:
            # The rest of the robot is where it is seen.
            at_end = {link: poses[link][-1] for link in self._moved}
            shapes += drawing.body("ghost", self.model, at_end, drawing.GHOST, self.size)
        self._chunk_shapes = shapes

    def end_chunk(self) -> None:
        """Nothing is predicted any more."""
        self._chunk, self._paths, self._end, self._excesses, self._chunk_shapes = None, [], {}, [], []

    def take_plan(self, plan: Mapping[str, Values] | None, step_ns: int = 0) -> None:
        """The executor's committed plan: values [T, D] by action key, or None where it has none."""
        self._plan_shapes = []
        groups: list[ChunkGroup] = []
        for key, values in (plan or {}).items():
            config = self.robot.action.get(key)
            if config is None or values.shape[1] != len(config.names):
                return
            groups.append(chunk_group(config, values))
        if not groups:
            return
        positions = joint_positions(groups, step_ns, self.measured)
        paths = effector_paths(self.effectors, groups, self._link_poses(positions, self._ends))
        for index, (effector, path) in enumerate(zip(self.effectors, paths, strict=True)):
            self._plan_shapes += drawing.strip(
                "committed", index, effector.frame, path[:, :3, 3], drawing.COMMITTED, self.size
            )

    # What is shown.

    @property
    def predicted_joints(self) -> dict[str, float]:
        """Where the joints will be at the end of the chunk, as far as that is known; empty without one."""
        return self._end

    def tracks(self) -> list[tuple[str, Values, Values]]:
        """The predicted paths: frame, positions [T, 3] and colours [T, 4] of each."""
        return [
            (effector.frame, path[:, :3, 3], over_time(len(path)))
            for effector, path in zip(self.effectors, self._paths, strict=False)
        ]

    def camera_pose(self, frame: str) -> tuple[str, Values] | None:
        """Where the link ``frame`` is: the frame that it is given in, and its pose [4, 4]; None where that is
        not known."""
        if self.model is None or self.kinematics is None or frame not in self.model.links:
            return None
        pose = self.kinematics.poses(self.measured, [frame])[frame][0]
        return (self.model.frame_of(frame), pose) if np.isfinite(pose).all() else None

    def shapes(self, now_ns: int, now_s: float) -> list[Shape]:
        """All that holds at ROS time ``now_ns``; ``now_s`` is monotonic time, for what falls silent."""
        chunk = self._chunk
        if chunk is not None and now_ns > chunk.end_ns + CHUNK_STAYS_S * 1e9:
            self.end_chunk()
        found = list(self._chunk_shapes)
        if now_s - self.executor[1] < SILENT_S:
            found += self._plan_shapes
        for index, effector in enumerate(self.effectors):
            trail = self.trails[effector.name]
            trail.forget(now_ns)
            places = trail.poses[:, :3, 3]
            found += drawing.strip("executed", index, effector.frame, places, drawing.EXECUTED, self.size)
        if self._draw_robot and self.model is not None:
            poses = self._link_poses(self.measured, self.model.links)
            here = {link: pose[0] for link, pose in poses.items()}
            found += drawing.body("robot", self.model, here, drawing.ROBOT, self.size)
        place = np.array([0.0, 0.0, STATUS_HEIGHT * self.size])
        text = "\n".join(self.lines(now_ns, now_s))
        found.append(drawing.words(("status", 0), self.frame, place, text, self.size))
        return found

    def lines(self, now_ns: int, now_s: float) -> list[str]:
        """The status text."""
        found = []
        if self._chunk is not None and self._chunk.instruction:
            found.append(f'"{_short(self._chunk.instruction)}"')
        for (text, heard_s), who in ((self.policy, "policy"), (self.executor, "executor")):
            found.append(text if now_s - heard_s < SILENT_S else f"{who} not heard")
        if self._chunk is not None and self._chunk.frozen_steps:
            found.append(f"{self._chunk.frozen_steps} of {self._chunk.horizon} steps kept from the plan")
        for joint, _ in self._grippers:
            if told := grippers.told(self.robot, joint, self.measured, self._end):
                found.append(told)
        beyond = [f"beyond its limit: {excess}" for excess in self._excesses]
        more = len(beyond) - MAX_LINES
        found += beyond[:MAX_LINES] + ([f"and {more} more beyond their limits"] if more > 0 else [])
        return found + self.missing(now_ns)

    def missing(self, now_ns: int) -> list[str]:
        """Sentences about what cannot be drawn, and why."""
        found = list(self._missing)
        absent = [joint for joint in self._needed if joint not in self.measured]
        topic = self.robot.executor_joint_state_topic
        if absent and self.measured:
            found.append(f"no position of {', '.join(absent)} on {topic}")
        elif absent:
            found.append(f"no joint states on {topic}")
        elif self._needed and now_ns - self._measured_ns > STALE_S * 1e9:
            found.append(f"joint states on {topic} are {(now_ns - self._measured_ns) / 1e9:.1f} s old")
        return found

    # How.

    def _find(self) -> None:
        robot, model = self.robot, self.model
        self.effectors, self._missing = find_effectors(robot, model, self._wanted if model else ())
        names = [effector.name for effector in self.effectors]
        self.effectors = [
            replace(effector, name=f"{effector.key}_{effector.name}") if names.count(effector.name) > 1
            else effector
            for effector in self.effectors
        ]  # fmt: skip
        self.trails = {effector.name: Trail(self._trail_s) for effector in self.effectors}
        self.size = drawing.DEFAULT_SIZE
        self._ends: list[str] = []
        self._links: dict[str, str] = {}  # below each commanded joint
        self._moved: tuple[str, ...] = ()
        self._needed: tuple[str, ...] = ()  # joints that say where the end effectors are
        # Gripper joints, each with the place of its end effector among all.
        self._grippers: list[tuple[str, int | None]] = [
            (joint, None) for joint in grippers.gripper_joints(robot)
        ]
        frames = [group.frame_id for group in robot.action.values() if group.frame_id]
        self.frame = self._frame or (model.root if model else next(iter(frames), DEFAULT_FRAME))
        if model is not None:
            self._ends = [effector.link for effector in self.effectors if effector.link]
            self.size = drawing.robot_size(model, self._ends or model.links)
            joints = model.joints
            self._links = {joint: joints[joint].child for joint in robot.joints if joint in joints}
            driven = list(self._links.values())
            followers = [j.child for j in joints.values() if j.mimic and model.followed(j) in robot.joints]
            self._moved = model.below([*driven, *followers])
            above = [joint for link in self._ends for joint in model.chain(link) if joint.moves]
            self._needed = tuple(dict.fromkeys(model.followed(joint) for joint in above))
            ends = {effector.link: index for index, effector in enumerate(self.effectors) if effector.link}
            self._grippers = [(joint, grippers.holder(model, joint, ends)) for joint, _ in self._grippers]

    def _link_poses(self, positions: Mapping[str, ArrayLike], links: Sequence[str]) -> dict[str, Values]:
        """The poses of ``links`` and of every end effector; none without a model."""
        if self.kinematics is None:
            return {}
        return self.kinematics.poses(positions, dict.fromkeys([*links, *self._ends]))

    def _base_shapes(self, chunk: Chunk) -> list[Shape]:
        found: list[Shape] = []
        for index, group in enumerate(chunk.groups, len(self.effectors)):
            # A twist of another frame than its own starts where that frame is, which nobody tells here.
            if group.representation == TWIST and group.child_frame in ("", group.frame_id):
                path = np.tile(np.eye(4), (chunk.horizon, 1, 1))
                path[:, :3, 3] = twist_path(group, chunk.step_ns)[1:]
                frame = group.frame_id or self.frame
                found += drawing.predicted(index, frame, path, chunk.frozen_steps, None, self.size)
        return found

    def _limit_shapes(self, poses: Mapping[str, Values]) -> list[Shape]:
        found: list[Shape] = []
        # A speed has no place; it is in the status text.
        beyond = [excess for excess in self._excesses if excess.kind == "position"]
        for index, excess in enumerate(beyond):
            link = self._links.get(excess.name)
            if link is not None and self.model is not None:
                place = poses[link][min(excess.step, len(poses[link]) - 1), :3, 3]
                found += drawing.ball(index, self.model.frame_of(link), place, str(excess), self.size)
                continue
            for effector, path in zip(self.effectors, self._paths, strict=True):
                if not effector.link and excess.name.startswith(f"{effector.key} "):
                    place = path[excess.step, :3, 3]
                    found += drawing.ball(index, effector.frame, place, str(excess), self.size)
        return found

    def _gripper_shapes(self) -> list[Shape]:
        found: list[Shape] = []
        for number, (joint, index) in enumerate(self._grippers):
            text = grippers.told(self.robot, joint, self.measured, self._end)
            if index is None or not text or not np.isfinite(self._paths[index][-1]).all():
                continue
            place = self._paths[index][-1, :3, 3] + [0.0, 0.0, 2 * drawing.LETTER * self.size]
            found.append(
                drawing.words(("gripper", number), self.effectors[index].frame, place, text, self.size)
            )
        return found


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_CHARS else line[: MAX_CHARS - 3] + "..."
