# SPDX-License-Identifier: Apache-2.0
"""The parts of a robot description, as small frozen dataclasses, with the defaults and the reason for each.

``robot_parsing`` makes them from a robot YAML, ``robot.RobotConfig`` holds them, everything else reads them.
Values are SI: s, Hz, rad, m, and rad/s, m/s for velocities.
"""

from __future__ import annotations

from dataclasses import dataclass

from gr00t_ros.clockwatch import MAX_LEAP_S
from gr00t_ros.faults import Reaction

# A camera frame older than this shows another scene: six frames of a 30 Hz camera, four steps of a 20 Hz
# policy.
DEFAULT_VIDEO_MAX_AGE = 0.2
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
# rad (m for sliding joints, its own unit for a scalar). How far an engine's action may be from that of the
# float32 network before the engine is refused: 0.03 rad move the end of a 0.5 m arm by 15 mm.
DEFAULT_MAX_ENGINE_ERROR = 0.03

IMAGE = "image"
COMPRESSED_IMAGE = "compressed_image"
JOINT_STATE = "joint_state"
FLOAT64_MULTI_ARRAY = "float64_multi_array"
POSE = "pose"
JOINT_TRAJECTORY = "joint_trajectory"

REPLACE = "replace"
BLEND = "blend"
ENSEMBLE = "ensemble"
MERGES = (REPLACE, BLEND, ENSEMBLE)

LINEAR = "linear"
CUBIC = "cubic"
QUINTIC = "quintic"
INTERPOLATIONS = (LINEAR, CUBIC, QUINTIC)

HEADER = "header"
RECEIVE = "receive"

MESSAGE_TYPES = {
    IMAGE: "sensor_msgs/msg/Image",
    COMPRESSED_IMAGE: "sensor_msgs/msg/CompressedImage",
    JOINT_STATE: "sensor_msgs/msg/JointState",
    FLOAT64_MULTI_ARRAY: "std_msgs/msg/Float64MultiArray",
    POSE: "geometry_msgs/msg/PoseStamped",
    JOINT_TRAJECTORY: "trajectory_msgs/msg/JointTrajectory",
    "string": "std_msgs/msg/String",
}

# Columns of a pose source: x, y, z, then the rotation.
ROTATION_COLUMNS = {
    "quaternion": ("qx", "qy", "qz", "qw"),
    "rot6d": ("r11", "r12", "r13", "r21", "r22", "r23"),
    "rotvec": ("rx", "ry", "rz"),
}


@dataclass(frozen=True)
class VideoSource:
    """One camera: the topic that feeds one video key of the checkpoint."""

    key: str
    topic: str
    type: str = IMAGE
    max_age: float = DEFAULT_VIDEO_MAX_AGE
    stamp: str = HEADER


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
    def width(self) -> int:
        """Number of columns."""
        return len(self.joints)


@dataclass(frozen=True)
class ActionGroupConfig:
    """One action key: what its columns command, and through which interface and topic."""

    key: str
    representation: str
    joints: tuple[str, ...]
    interface: str
    topic: str

    @property
    def width(self) -> int:
        """Number of columns."""
        return len(self.joints)


@dataclass(frozen=True)
class JointLimits:
    """What one joint may be commanded: rad, rad/s, rad/s^2 (m for sliding joints).

    ``acceleration`` is None where the YAML gives none: velocity may then change at once.
    ``max_tracking_error`` is how far a command may be from the measured position. ``max_engine_error`` is how
    far an engine's action may be from the float32 network's, None where the robot's common value holds.
    """

    min: float
    max: float
    velocity: float
    acceleration: float | None = None
    max_tracking_error: float = DEFAULT_MAX_TRACKING_ERROR
    max_engine_error: float | None = None


@dataclass(frozen=True)
class InstructionConfig:
    """Where the task text comes from. A topic without a leading slash lies in the node's namespace."""

    topic: str = "instruction"
    default: str = ""


@dataclass(frozen=True)
class RecordingConfig:
    """What a converter takes as the action of a frame: what was commanded, or the state one step later."""

    action_source: str = "commands"


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
    # Braked at once: where the joints are is no longer known, so how far the command leads them is not either.
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
