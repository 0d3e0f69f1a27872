# SPDX-License-Identifier: Apache-2.0
"""The ``policy`` node: cameras, joint states and an instruction in, action chunks out. It commands nothing.

Configure reads the robot description, loads the checkpoint and checks that the two fit; that takes as long
as the model takes to load, and the node answers no service meanwhile (SIGINT and SIGTERM end it all the
same). Activate subscribes and starts the planner's thread (``gr00t_ros.planning``), which assembles and
infers; callbacks here only store. Gives ``action_chunk``, ``policy/status`` (once a second and at every
change) and ``/diagnostics``.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Float64MultiArray, String

from gr00t_model.errors import CheckpointError, Gr00tError
from gr00t_ros.chunk import Chunk
from gr00t_ros.engine_limits import engine_limits, joint_names
from gr00t_ros.errors import Gr00tRosError
from gr00t_ros.msg import ActionChunk, ExecutorStatus, PolicyStatus
from gr00t_ros.nodes.conversions import chunk_msg, plan_from_msg
from gr00t_ros.nodes.lifecycle import ManagedNode, run
from gr00t_ros.nodes.parameters import ParameterSpec
from gr00t_ros.nodes.qos import silent_event_callbacks
from gr00t_ros.observation import MAX_INSTRUCTION_CHARS, ObservationBuilder, check_instruction
from gr00t_ros.planning import Instruction, Planner, State
from gr00t_ros.robot import RobotConfig
from gr00t_ros.rtc import RealTimeChunking

if TYPE_CHECKING:
    from gr00t_model import Gr00tPolicy

DESCRIPTION = __doc__ or ""
MESSAGE_CLASSES: dict[str, Any] = {
    "sensor_msgs/msg/Image": Image,
    "sensor_msgs/msg/CompressedImage": CompressedImage,
    "sensor_msgs/msg/JointState": JointState,
    "std_msgs/msg/Float64MultiArray": Float64MultiArray,
    "geometry_msgs/msg/PoseStamped": PoseStamped,
}
STATUS_PERIOD_S = 1.0
# A chunk replaces the one before it; a queue would only deliver old ones.
CHUNKS = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
STATUS = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
# Values of the parameter letterbox, and what they replace in the checkpoint's processor. Not on and off,
# which YAML reads as true and false.
LETTERBOX: dict[str, dict[str, bool]] = {
    "auto": {},
    "always": {"letterbox": True},
    "never": {"letterbox": False},
}


def _usable_instruction(text: str) -> None:
    if text.strip():
        check_instruction(text)


PARAMETERS = (
    ParameterSpec("checkpoint", "", "directory of a checkpoint, or a hub id where the machine is online"),
    ParameterSpec(
        "backend",
        "auto",
        "inference engine: auto (a verified TensorRT engine, else PyTorch on CUDA, else on the CPU), "
        "tensorrt or pytorch",
    ),
    ParameterSpec("device", "auto", "auto, cpu, cuda or cuda:N"),
    ParameterSpec(
        "precision",
        "auto",
        "auto (what the TensorRT engine has; else bfloat16 on CUDA, float32 on the CPU), bfloat16, float32, "
        "fp8, int8 or nvfp4",
    ),
    ParameterSpec(
        "engine",
        "",
        "directory of a TensorRT engine, made by build_engine; empty looks for the folder tensorrt in the "
        "checkpoint",
    ),
    ParameterSpec(
        "compile",
        "auto",
        "compile PyTorch's layers: auto (on CUDA, when it measures faster), on or off",
        choices=("auto", "on", "off"),
    ),
    ParameterSpec(
        "letterbox",
        "auto",
        "pad camera images to a square: auto (as processor_config.json says, else always), always or never",
        choices=tuple(LETTERBOX),
    ),
    ParameterSpec("num_steps", 0, "denoising steps; 0 takes the checkpoint's number", "", 0, 100),
    ParameterSpec("seed", 0, "seed of the chunk noise, which is a function of it and of the frame's stamp"),
    ParameterSpec(
        "real_time_chunking",
        True,
        "chunks begin with the plan that the executor is committed to, so that nothing jumps where one takes "
        "over; false leaves each chunk to itself",
    ),
    ParameterSpec(
        "rate", 0.0, "chunks wanted per second; 0 plans back to back", "Hz", 0.0, 100.0, runtime=True
    ),
    ParameterSpec(
        "instruction",
        "",
        f"task text, at most {MAX_INSTRUCTION_CHARS} characters; the newest text wins, here or on the "
        "topic, and an empty one stops planning",
        runtime=True,
        verify=_usable_instruction,
    ),
)


class PolicyNode(ManagedNode):
    """See the module."""

    user_errors = (Gr00tRosError, Gr00tError)

    def __init__(self) -> None:
        super().__init__("policy", PARAMETERS)
        self._robot: RobotConfig | None = None
        self._policy: Gr00tPolicy | None = None
        self._planner: Planner | None = None
        self._ending: Planner | None = None  # of the last session, when its inference outlived it
        self._instruction: Instruction | None = None
        self._chunks: Publisher | None = None
        self._inputs: list[Subscription] = []
        self._session = 0
        self._status = self.create_publisher(PolicyStatus, "policy/status", STATUS)
        self.parameters.on_runtime = self._on_parameter
        self.create_steady_timer(STATUS_PERIOD_S, self._publish_status)

    # Lifecycle.

    def configure(self) -> None:
        """Loads the checkpoint and checks that it fits the robot."""
        robot = RobotConfig.from_flat(self.parameters.robot())
        if not self.parameters["checkpoint"]:
            raise CheckpointError("parameter checkpoint is empty, expected a directory or a hub id")
        self.get_logger().info(f"loading {self.parameters['checkpoint']}, which can take a while")
        began = time.monotonic()
        policy = self._load(robot)
        self._robot, self._policy = robot, policy
        topic = self.resolve_topic_name(robot.instruction.topic)
        self._instruction = Instruction(f"publish a text on {topic} or set the parameter instruction")
        self._instruction_topic = robot.instruction.topic
        text = self.parameters["instruction"] or robot.instruction.default
        if text.strip():
            self._instruction.set(text)
        self._chunks = self.create_lifecycle_publisher(ActionChunk, "action_chunk", CHUNKS)
        self.get_logger().info(
            f"loaded {policy.directory} for robot {robot.name}, embodiment {robot.embodiment_tag}, in "
            f"{time.monotonic() - began:.1f} s: {policy.choice.backend} on {policy.choice.device} in "
            f"{policy.choice.precision}, letterbox {'on' if policy.processor.letterbox else 'off'}"
        )
        for note in policy.notes:
            self.get_logger().info(note)
        if policy.choice.refused:
            self.get_logger().warning(f"the TensorRT engine is not used: {policy.choice.refused}")
        if policy.untrained:
            self.get_logger().warning(self._untrained_warning())

    def activate(self) -> None:
        """Begins a session: subscribes and starts the planner."""
        robot, policy, instruction = self._robot, self._policy, self._instruction
        assert robot is not None
        assert policy is not None
        assert instruction is not None
        if self._ending is not None and self._ending.busy:
            # A network takes one inference at a time.
            raise Gr00tRosError("an inference of the last session still runs; try again when it has ended")
        self._ending = None
        builder = ObservationBuilder(robot, policy.modality)
        # Nanoseconds since 1970 grow from start to start, also when the process is a new one.
        self._session = max(self._session + 1, time.time_ns())
        delta0 = min(policy.modality["action"].delta_indices)
        chunking = self._chunking(robot, policy, delta0)
        planner = self._planner = Planner(
            robot,
            policy,
            builder,
            instruction,
            delta0=delta0,
            session=self._session,
            seed=self.parameters["seed"],
            rate=lambda: float(self.parameters["rate"]),
            now_ns=self.now_ns,
            publish=self._publish_chunk,
            changed=self._publish_status,
            warn=self.tell_warning,
            chunking=chunking,
        )
        if chunking is not None:
            self._inputs.append(
                self.create_subscription(
                    ExecutorStatus,
                    "executor/status",
                    lambda message: chunking.hear(plan_from_msg(message)),
                    STATUS,
                )
            )
        # States before cameras: rclpy runs what is ready in the order of subscription, and a frame wakes the
        # planner, which should then find the joint state that came with the frame.
        for spec in reversed(robot.topics):
            if spec.topic in builder.topics:
                self._subscribe(spec.topic, MESSAGE_CLASSES[spec.message_type], planner)
        # A subscription that asks for latched samples does not match a plain publisher, and one that does
        # not ask gets none: so both. A latched publisher's live messages come twice, which changes nothing.
        for durability in (DurabilityPolicy.VOLATILE, DurabilityPolicy.TRANSIENT_LOCAL):
            self._inputs.append(
                self.create_subscription(
                    String,
                    self._instruction_topic,
                    self._on_instruction,
                    QoSProfile(depth=1, durability=durability),
                    event_callbacks=silent_event_callbacks(),
                )
            )
        planner.start()

    def deactivate(self) -> None:
        """Ends the session; no chunk is published after it."""
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        self._inputs = []
        planner, self._planner = self._planner, None
        if planner is not None and not planner.stop():
            self._ending = planner
            self.get_logger().error("an inference still runs and cannot be ended; its result will be dropped")
        if self.context.ok():
            self._publish_status()

    def cleanup(self) -> None:
        """Lets go of the model."""
        if self._chunks is not None:
            self.destroy_lifecycle_publisher(self._chunks)
        self._chunks = self._policy = self._robot = self._instruction = None

    def _load(self, robot: RobotConfig) -> Gr00tPolicy:
        """The policy, warmed up. What is quick to check is checked before the weights are read."""
        # torch takes seconds to import: --help and a wrong robot description need not wait for it.
        from gr00t_model import Gr00tPolicy, Gr00tProcessor
        from gr00t_model.checkpoint import read_config, resolve

        directory = resolve(self.parameters["checkpoint"])
        tag = robot.embodiment_tag
        overrides = LETTERBOX[self.parameters["letterbox"]]
        processor = Gr00tProcessor.from_pretrained(directory, **overrides)
        robot.check_against(
            processor.modality(tag),
            processor.state_widths(tag),
            processor.action_widths(tag),
            read_config(directory).action_horizon,
        )
        policy = Gr00tPolicy(
            directory,
            tag,
            backend=self.parameters["backend"],
            device=self.parameters["device"],
            precision=self.parameters["precision"],
            num_steps=self.parameters["num_steps"] or None,
            processor=processor,
            engine=self.parameters["engine"] or None,
            compile=self.parameters["compile"],
            engine_limits=engine_limits(robot),
            joint_names=joint_names(robot),
            tell=self.get_logger().info,
        )
        policy.warm_up(guided=self.parameters["real_time_chunking"])
        return policy

    def _chunking(self, robot: RobotConfig, policy: Gr00tPolicy, delta0: int) -> RealTimeChunking | None:
        if not self.parameters["real_time_chunking"]:
            return None
        return RealTimeChunking(
            robot,
            delta0=delta0,
            steps=policy.horizon,
            horizon=policy.config.action_horizon,
            num_steps=policy.num_steps,
            encode=policy.encode_plan,
        )

    def _subscribe(self, topic: str, kind: Any, planner: Planner) -> None:
        self._inputs.append(
            self.create_subscription(
                kind,
                topic,
                lambda message: planner.add(topic, message),
                copy.copy(qos_profile_sensor_data),  # rclpy writes what is overridden into it
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            )
        )

    # While active.

    def _on_instruction(self, message: String) -> None:
        if self._instruction is not None:
            self._instruction.set(message.data)

    def _on_parameter(self, name: str, value: Any) -> None:
        if name == "instruction" and self._instruction is not None:
            self._instruction.set(value)

    def _publish_chunk(self, chunk: Chunk) -> None:
        if self._chunks is not None:
            self._chunks.publish(chunk_msg(chunk))

    def _publish_status(self) -> None:
        """From the planner's thread at a change, from the node's once a second."""
        message = PolicyStatus(state=int(State.INACTIVE), reason=self.problem or "not active")
        message.header.stamp = self.get_clock().now().to_msg()
        policy, planner, robot, instruction = self._policy, self._planner, self._robot, self._instruction
        if policy is not None and robot is not None:
            message.backend, message.device = policy.choice.backend, str(policy.choice.device)
            message.precision, message.embodiment_tag = policy.choice.precision, robot.embodiment_tag
        if instruction is not None:
            message.instruction = instruction.text
        if planner is not None:
            progress, skipped = planner.progress, dict(planner.progress.skipped)
            message.state, message.reason = int(progress.state), progress.reason
            message.session = planner.session
            message.observation_age = progress.observation_age_s
            message.processing_time, message.inference_time = progress.processing_s, progress.inference_s
            message.decoding_time, message.total_time = progress.decoding_s, progress.total_s
            message.chunks, message.skipped = progress.chunks, sum(skipped.values())
            message.skip_causes, message.skip_counts = list(skipped), list(skipped.values())
        self._status.publish(message)

    def _untrained_warning(self) -> str:
        tag = self._robot.embodiment_tag if self._robot is not None else ""
        return (
            f"UNTRAINED WEIGHTS: the checkpoint's weights for embodiment {tag!r} are still at their initial "
            "values. Its actions mean nothing: fine-tune it for this robot before it moves real hardware"
        )

    def diagnose(self) -> tuple[bytes, str, Mapping[str, Any]]:
        """Level, sentence and values for ``/diagnostics``."""
        planner, policy = self._planner, self._policy
        if planner is None or policy is None:
            return self.diagnose_inactive()
        progress = planner.progress
        level = {State.WAITING: DiagnosticStatus.WARN, State.FAULT: DiagnosticStatus.ERROR}
        text = f"{progress.state.name.lower()}{': ' if progress.reason else ''}{progress.reason}"
        values: dict[str, Any] = {
            "chunks": progress.chunks,
            "observation age [s]": f"{progress.observation_age_s:.3f}",
            "total time [s]": f"{progress.total_s:.3f}",
            "inference time [s]": f"{progress.inference_s:.3f}",
            "untrained weights": policy.untrained,
            "backend": f"{policy.choice.backend} on {policy.choice.device} in {policy.choice.precision}",
            "TensorRT engine refused": policy.choice.refused or "no",
        }
        values.update({f"skipped: {cause}": count for cause, count in dict(progress.skipped).items()})
        least = DiagnosticStatus.WARN if policy.untrained or policy.choice.refused else DiagnosticStatus.OK
        worst = level.get(progress.state, least)
        return worst, text, values


def main(argv: list[str] | None = None) -> int:
    """Runs the node until SIGINT or SIGTERM."""
    return run(PolicyNode, argv, DESCRIPTION)


if __name__ == "__main__":
    raise SystemExit(main())
