# SPDX-License-Identifier: Apache-2.0
"""The parts of a robot description, as small frozen dataclasses, with the defaults and the reason for each.

``robot_parsing`` makes them from a robot YAML, ``robot.RobotConfig`` holds them, everything else reads them.
Values are SI: s, Hz, rad, m, and rad/s, m/s for velocities.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gr00t_ros.clockwatch import MAX_LEAP_S
from gr00t_ros.faults import Reaction

# A camera frame older than this shows another scene: six frames of a 30 Hz camera, four steps of a 20 Hz
# policy.
DEFAULT_VIDEO_MAX_AGE = 0.2
# A camera whose pixels have not changed at all for this long is taken for frozen: 30 frames of a 30 Hz
# camera. A sensor's noise changes some in every frame.
DEFAULT_FROZEN_AFTER = 1.0
# Joint states come at 50 Hz or more from any controller manager: five missed messages.
DEFAULT_STATE_MAX_AGE = 0.1
# The executor holds when measured joints are older than this: ten missed messages at 50 Hz, and still short
# against what an arm at 1 rad/s does unseen (0.2 rad).
DEFAULT_MAX_JOINT_STATE_AGE = 0.2
# A chunk whose camera frame is older than this was decided about another scene. It must exceed the time of
# one inference, which is 0.1 to 0.3 s on the hardware that this is meant for.
DEFAULT_MAX_CHUNK_AGE = 1.0
# How far ahead of now a chunk may start. Chunks start at their camera frame, in the past, unless the
# checkpoint predicts from a later step on.
DEFAULT_MAX_START_AHEAD = 1.0
# Over how long a newer chunk takes over from the one that is followed. Where the two are 0.05 rad apart, as
# when a policy corrects itself, that adds at most 0.5 rad/s and 7 rad/s^2 (1.9 times that over the time, 5.8
# times that over its square) to the motion, which a small arm can do; and it is over before the next chunk of
# a policy that gives up to five a second.
DEFAULT_BLEND_TIME = 0.2
# How much less a newer prediction counts in an ensemble, per step: the original's (Zhao et al., 2023).
DEFAULT_ENSEMBLE_DECAY = 0.01
# rad (m for sliding joints). A position command may lead the measured joint by this much, no more: enough for
# the lag of a soft position controller, too little for an arm that is blocked to wind up far behind its
# obstacle.
DEFAULT_MAX_TRACKING_ERROR = 0.5
# m and rad. A commanded pose may lead the measured one by this much: at 0.25 m/s and 1 rad/s, what a
# Cartesian controller moves in 0.4 s, which is more than one lags.
DEFAULT_MAX_DISTANCE = 0.1
DEFAULT_MAX_ANGLE = 0.4
# s. The longest time for which a controller may go on with the last velocity after the executor died: at 0.5
# m/s a base then rolls half a metre.
MAX_DOWNSTREAM_TIMEOUT = 1.0
# rad (m for sliding joints, its own unit for a scalar). How far an engine's action may be from that of the
# float32 network before the engine is refused: 0.03 rad move the end of a 0.5 m arm by 15 mm.
DEFAULT_MAX_ENGINE_ERROR = 0.03
# s. Commands of a person or a policy come at 10 Hz or more: five missed. What the robot was told longer ago
# says nothing about what it should do now.
DEFAULT_MAX_COMMAND_AGE = 0.5

IMAGE = "image"
COMPRESSED_IMAGE = "compressed_image"
JOINT_STATE = "joint_state"
FLOAT64_MULTI_ARRAY = "float64_multi_array"
POSE = "pose"
JOINT_TRAJECTORY = "joint_trajectory"
POSE_STAMPED = "pose_stamped"
TWIST_STAMPED = "twist_stamped"

# What the values of an action group are; TWIST is the name of an interface too.
JOINT_POSITION = "joint_position"
JOINT_VELOCITY = "joint_velocity"
TWIST = "twist"
EE_POSE = "ee_pose"
SCALAR = "scalar"
REPRESENTATIONS = (JOINT_POSITION, JOINT_VELOCITY, TWIST, EE_POSE, SCALAR)
# A velocity has no end of its own: whoever receives it goes on until told otherwise.
VELOCITIES = (JOINT_VELOCITY, TWIST)

REPLACE = "replace"
BLEND = "blend"
ENSEMBLE = "ensemble"
MERGES = (REPLACE, BLEND, ENSEMBLE)

CLIP = "clip"
STOP = "stop"
REFUSE = "refuse"

LINEAR = "linear"
CUBIC = "cubic"
QUINTIC = "quintic"
INTERPOLATIONS = (LINEAR, CUBIC, QUINTIC)

# What is done about a frozen camera. To stop is no default: a simulated camera in front of a robot that holds
# still looks frozen, and would then keep the robot from ever moving again.
REPORT = "report"
STOP = "stop"
FROZEN_REACTIONS = (REPORT, STOP)

HEADER = "header"
RECEIVE = "receive"

MESSAGE_TYPES = {
    IMAGE: "sensor_msgs/msg/Image",
    COMPRESSED_IMAGE: "sensor_msgs/msg/CompressedImage",
    JOINT_STATE: "sensor_msgs/msg/JointState",
    FLOAT64_MULTI_ARRAY: "std_msgs/msg/Float64MultiArray",
    POSE: "geometry_msgs/msg/PoseStamped",
    JOINT_TRAJECTORY: "trajectory_msgs/msg/JointTrajectory",
    POSE_STAMPED: "geometry_msgs/msg/PoseStamped",
    TWIST: "geometry_msgs/msg/Twist",
    TWIST_STAMPED: "geometry_msgs/msg/TwistStamped",
    "string": "std_msgs/msg/String",
}

# Columns of a pose source: x, y, z, then the rotation.
ROTATION_COLUMNS = {
    "quaternion": ("qx", "qy", "qz", "qw"),
    "rot6d": ("r11", "r12", "r13", "r21", "r22", "r23"),
    "rotvec": ("rx", "ry", "rz"),
}
QUATERNION = "quaternion"
# Rotations with which a checkpoint can express a pose relative to another, and its names of such layouts.
POSE_LAYOUTS = {"rot6d": "XYZ_ROT6D", "rotvec": "XYZ_ROTVEC"}
POSITION_COLUMNS = ("x", "y", "z")
# Columns of a pose in a chunk: there a rotation is always a quaternion.
POSE_COLUMNS = (*POSITION_COLUMNS, *ROTATION_COLUMNS[QUATERNION])
# Columns that a twist may have, as in geometry_msgs/Twist: m/s and rad/s.
LINEAR_COLUMNS = ("linear_x", "linear_y", "linear_z")
ANGULAR_COLUMNS = ("angular_x", "angular_y", "angular_z")
TWIST_COLUMNS = (*LINEAR_COLUMNS, *ANGULAR_COLUMNS)


@dataclass(frozen=True)
class VideoSource:
    """One camera: the topic that feeds one video key of the checkpoint.

    Pixels that have not changed for ``frozen_after`` s (0: never looked at) are reported, and with
    ``frozen_reaction`` stop not used.
    """

    key: str
    topic: str
    type: str = IMAGE
    max_age: float = DEFAULT_VIDEO_MAX_AGE
    stamp: str = HEADER
    frozen_after: float = DEFAULT_FROZEN_AFTER
    frozen_reaction: str = REPORT


@dataclass(frozen=True)
class StateSource:
    """What feeds one state key: which topic, and which of its values, in column order.

    ``joints`` names the columns: joints of a JointState, matched by name; for an array the names given in the
    YAML or ``<key>_0`` and so on; for a pose x, y, z and the rotation's parts. ``indices`` are positions in
    an array (empty for the other types), ``array_width`` is the length that its messages must have, where the
    YAML says so.
    """

    key: str
    topic: str
    joints: tuple[str, ...]
    type: str = JOINT_STATE
    field: str = "position"
    indices: tuple[int, ...] = ()
    array_width: int | None = None
    rotation: str = "quaternion"
    frame_id: str = ""
    max_age: float = DEFAULT_STATE_MAX_AGE
    stamp: str = HEADER

    @property
    def unit_names(self) -> tuple[str, ...]:
        """What the units of a robot YAML call the columns."""
        return self.joints

    @property
    def width(self) -> int:
        """Number of columns."""
        return len(self.joints)


@dataclass(frozen=True)
class ActionGroupConfig:
    """One action key: what its columns command, and through which interface and topic.

    ``joints`` are the joints that it commands, in column order; twists and poses have none. ``twist`` are a
    twist's columns, in order. ``rotation`` is how the checkpoint has a pose's rotation. ``frame_id`` is the
    frame that poses and twists are expressed in, ``child_frame`` the one that moves; both may be empty for a
    twist.

    ``downstream_timeout`` (s) is after what time without commands the receiver of velocities stops by itself,
    0 for all others. ``measured_topic`` is the PoseStamped topic that says where a pose group is,
    ``measured_stamp`` which time counts for it, ``header`` or ``receive``. ``stamp`` is which time counts for
    recorded commands that have a header.
    """

    key: str
    representation: str
    joints: tuple[str, ...]
    interface: str
    topic: str
    twist: tuple[str, ...] = ()
    rotation: str = QUATERNION
    frame_id: str = ""
    child_frame: str = ""
    downstream_timeout: float = 0.0
    measured_topic: str = ""
    measured_stamp: str = HEADER
    stamp: str = HEADER

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns as the checkpoint has them: joints, ``linear_x``..., or x, y, z and the rotation's."""
        if self.representation == EE_POSE:
            return (*POSITION_COLUMNS, *ROTATION_COLUMNS[self.rotation])
        return self.twist or self.joints

    @property
    def names(self) -> tuple[str, ...]:
        """The columns in a chunk: as ``columns``, but a rotation is a quaternion (x, y, z, w)."""
        return POSE_COLUMNS if self.representation == EE_POSE else self.columns

    @property
    def measured(self) -> tuple[str, ...]:
        """What must be measured for the group to move: joints, the parts of a pose (a dot keeps their names
        apart from joints'), nothing for a twist."""
        if self.representation == EE_POSE:
            return tuple(f"{self.key}.{name}" for name in POSE_COLUMNS)
        return self.joints

    @property
    def unit_names(self) -> tuple[str, ...]:
        """What the robot YAML calls the columns where a name must be the robot's only one: joints, and
        ``<key>_x`` and so on for twists and poses."""
        return self.joints or tuple(f"{self.key}_{column}" for column in self.columns)

    @property
    def width(self) -> int:
        """Number of the checkpoint's columns."""
        return len(self.columns)


@dataclass(frozen=True)
class JointLimits:
    """What one joint may be commanded: rad, rad/s, rad/s^2 (m for sliding joints).

    ``acceleration`` is None where the YAML gives none: velocity may then change at once; so is ``jerk``
    (rad/s^3, m/s^3), how fast acceleration may change while a plan is followed. ``min`` and ``max`` are
    infinite for a wheel, which is commanded by velocity and turns without end. ``max_tracking_error`` is how
    far a command may be from the measured position. ``max_engine_error`` is how far an engine's action may be
    from the float32 network's, None where the robot's common value holds.
    """

    min: float
    max: float
    velocity: float
    acceleration: float | None = None
    max_tracking_error: float = DEFAULT_MAX_TRACKING_ERROR
    max_engine_error: float | None = None
    jerk: float | None = None

    @property
    def has_ends(self) -> bool:
        """Whether its positions are limited."""
        return math.isfinite(self.min)


@dataclass(frozen=True)
class TwistLimits:
    """What a twist may be: lengths of its linear part (m/s, m/s^2) and of its angular part (rad/s, rad/s^2).

    0 for a part that it does not have. ``max_engine_error`` as for joints, in m/s and rad/s.
    """

    linear_velocity: float = 0.0
    linear_acceleration: float = 0.0
    angular_velocity: float = 0.0
    angular_acceleration: float = 0.0
    max_engine_error: float | None = None


@dataclass(frozen=True)
class PoseLimits:
    """What a pose may be: a box for its position (``min``, ``max``: x, y, z in m, in the group's frame),
    lengths of its velocities and accelerations (m, rad, s), and how far it may be from the measured pose (m,
    rad).

    ``max_engine_error`` as for joints, in m for the position and rad for the rotation.
    """

    min: tuple[float, float, float]
    max: tuple[float, float, float]
    linear_velocity: float
    linear_acceleration: float
    angular_velocity: float
    angular_acceleration: float
    max_distance: float = DEFAULT_MAX_DISTANCE
    max_angle: float = DEFAULT_MAX_ANGLE
    max_engine_error: float | None = None


GroupLimits = TwistLimits | PoseLimits


@dataclass(frozen=True)
class InstructionConfig:
    """Where the task text comes from. A topic without a leading slash lies in the node's namespace."""

    topic: str = "instruction"
    default: str = ""


@dataclass(frozen=True)
class RecordingConfig:
    """What a converter takes as the action of a frame: ``commands`` that are no older than
    ``max_command_age`` s (0: of any age), or the ``future_state``, which is that one step later.

    An episode is divided where a joint is further than ``max_following_error`` (rad or m, 0: any distance)
    from where the frame before commanded it: it was pushed or held, and what follows was not planned before.
    """

    action_source: str = "commands"
    max_command_age: float = DEFAULT_MAX_COMMAND_AGE
    max_following_error: float = 0.0


@dataclass(frozen=True)
class WatchdogConfig:
    """After how many seconds a watchdog reports a fault, and what the executor does about it."""

    after: float
    reaction: Reaction


@dataclass(frozen=True)
class WatchdogsConfig:
    """The executor's watchdogs. What each looks at is said in ``gr00t_ros.watchdogs``."""

    # What is executed was decided on a scene of this age. The longest chunk of GR00T N1.6, 50 steps at 20 Hz,
    # may be executed to its end and 0.5 s be spent on computing it; nothing that is older is about this
    # scene. The motion ends where its trajectory ends by itself: the scene is old, not the plan wrong.
    observation_age: WatchdogConfig = WatchdogConfig(3.0, Reaction.HOLD)
    # The same time, from the arrival of the newest chunk on this machine's own clock: a policy whose stamps
    # are wrong, or run ahead, cannot make its chunks young.
    chunk_age: WatchdogConfig = WatchdogConfig(3.0, Reaction.HOLD)
    # Braked at once: where the joints are is no longer known, so how far the command leads them is not
    # either.
    joint_state_age: WatchdogConfig = WatchdogConfig(DEFAULT_MAX_JOINT_STATE_AGE, Reaction.STOP)
    # The policy gives a sign of life five times a second: five in a row are missed. A plan whose policy is
    # gone is not corrected any more, but it was sound when it was sent.
    policy_heartbeat: WatchdogConfig = WatchdogConfig(1.0, Reaction.HOLD)
    # The default lookahead: by then the last trajectory has come to rest, so that what follows is a new
    # motion, and is to begin with a new chunk.
    period_overrun: WatchdogConfig = WatchdogConfig(0.2, Reaction.STOP)
    # How far ROS time may leap ahead of monotonic time, or stand still: ClockWatch's own bounds.
    clock: WatchdogConfig = WatchdogConfig(MAX_LEAP_S, Reaction.STOP)
    # A controller that is restarted or switched is away for longer, a subscriber that discovery finds late is
    # not. A plan that nobody follows must not run on: who comes back would get its middle.
    command_subscribers: WatchdogConfig = WatchdogConfig(1.0, Reaction.STOP)


@dataclass(frozen=True)
class ViolationsConfig:
    """What is done about a plan that asks for more than a limit: ``clip`` brings it back inside, ``stop``
    stops until ``executor/start``. ``not_finite`` is about a chunk with values that are no numbers: ``stop``,
    because a policy that computes them cannot be trusted with the next one, or ``refuse`` that chunk alone.
    """

    position: str = CLIP
    velocity: str = CLIP
    acceleration: str = CLIP
    tracking: str = CLIP
    not_finite: str = STOP


@dataclass(frozen=True)
class ExecutorConfig:
    """Thresholds of the chunk executor, in seconds, the topic on which it sees the measured joints, and how
    it runs between the steps of a chunk and from one chunk to the next.

    ``merge`` is replace, blend or ensemble, ``interpolation`` linear, cubic or quintic. ``ensemble_decay`` is
    m in the weights exp(-m * i) of an ensemble's chunks, i counting steps from the oldest observation on.
    """

    joint_state_topic: str
    max_joint_state_age: float = DEFAULT_MAX_JOINT_STATE_AGE
    max_chunk_age: float = DEFAULT_MAX_CHUNK_AGE
    max_start_ahead: float = DEFAULT_MAX_START_AHEAD
    merge: str = BLEND
    blend_time: float = DEFAULT_BLEND_TIME
    interpolation: str = CUBIC
    ensemble_decay: float = DEFAULT_ENSEMBLE_DECAY
    watchdogs: WatchdogsConfig = WatchdogsConfig()
    violations: ViolationsConfig = ViolationsConfig()


@dataclass(frozen=True)
class VerificationConfig:
    """How far an engine may be from the float32 network: rad, m, or a scalar's own unit."""

    max_joint_error: float = DEFAULT_MAX_ENGINE_ERROR


@dataclass(frozen=True)
class TopicSpec:
    """A topic that the description names: its message type in full, and the key paths that use it."""

    topic: str
    message_type: str
    used_by: tuple[str, ...]
