# SPDX-License-Identifier: Apache-2.0
"""The ``policy`` node: cameras, joint states and an instruction in, action chunks out. It commands nothing.

Configure reads the robot description, loads the checkpoint and checks that the two fit; that takes as long
as the model takes to load, and the node answers no service meanwhile (SIGINT and SIGTERM end it all the
same). Activate subscribes and starts the planner's thread (``gr00t_ros.planning``), which assembles and
infers; callbacks here only store. Gives ``action_chunk``, ``policy/status`` (five times a second, which is
its sign of life, and at every change) and ``/diagnostics``. Serves the action ``run_task``
(``nodes.task_server``).
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from geometry_msgs.msg import PoseStamped
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Float64MultiArray, String

from gr00t_model.errors import CheckpointError, Gr00tError
from gr00t_ros.cadence import Cadence
from gr00t_ros.chunk import Chunk
from gr00t_ros.engine_limits import engine_limits, joint_names
from gr00t_ros.errors import Gr00tRosError
from gr00t_ros.executor_report import ExecutorReport
from gr00t_ros.instruction import Instruction
from gr00t_ros.msg import ActionChunk, ExecutorStatus, PolicyStatus
from gr00t_ros.nodes.conversions import chunk_msg, plan_from_msg
from gr00t_ros.nodes.lifecycle import ManagedNode, run
from gr00t_ros.nodes.policy_parameters import LETTERBOX, PARAMETERS, TASKS
from gr00t_ros.nodes.policy_status import diagnosis, fill_progress, report_from_msg, untrained_warning
from gr00t_ros.nodes.qos import silent_event_callbacks
from gr00t_ros.nodes.task_server import TaskServer
from gr00t_ros.observation import ObservationBuilder
from gr00t_ros.planning import Planner
from gr00t_ros.progress import Progress, State
from gr00t_ros.robot import RobotConfig
from gr00t_ros.rtc import RealTimeChunking
from gr00t_ros.stillness import Stillness
from gr00t_ros.tasks import Seen, Settings, Tasks

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
# The executor takes a policy that is silent for a few of these for dead.
STATUS_PERIOD_S = 0.2
# A chunk replaces the one before it; a queue would only deliver old ones.
CHUNKS = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
STATUS = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)


class PolicyNode(ManagedNode):
    """See the module."""

    user_errors = (Gr00tRosError, Gr00tError)

    def __init__(self) -> None:
        super().__init__("policy", PARAMETERS)
        self._robot: RobotConfig | None = None
        self._policy: Gr00tPolicy | None = None
        self._planner: Planner | None = None
        self._builder: ObservationBuilder | None = None
        self._ending: Planner | None = None  # of the last session, when its inference outlived it
        self._instruction: Instruction | None = None
        self._tasks: Tasks | None = None  # while active
        self._stillness = Stillness((), 0.0)
        self._executor: ExecutorReport | None = None
        self._cadence = Cadence()
        self._chunking: RealTimeChunking | None = None
        self._chunks: Publisher | None = None
        self._inputs: list[Subscription] = []
        self._session = 0
        self._status = self.create_publisher(PolicyStatus, "policy/status", STATUS)
        self.parameters.on_runtime = self._on_parameter
        self.create_steady_timer(STATUS_PERIOD_S, self._publish_status)
        self._task_server = TaskServer(
            self,
            tasks=lambda: self._tasks,
            begun=self._on_task_begun,
            look=self._look,
            progress=lambda: Progress() if self._planner is None else self._planner.progress,
            remaining_s=lambda: self._executor.remaining_s(self.now_ns()) if self._executor else 0.0,
        )

    def destroy_node(self) -> None:
        """Also takes the action server away, which rclpy leaves to whoever made it."""
        self._task_server.destroy()
        super().destroy_node()

    @property
    def awaited(self) -> bool:
        """Whether a client of ``run_task`` waits for the result."""
        return self._task_server.awaited

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
        if text.strip() and self.parameters["mode"] != TASKS:
            self._instruction.set(text)
        self._stillness = Stillness(robot.joints, robot.executor.max_joint_state_age)
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
            self.get_logger().warning(untrained_warning(robot.embodiment_tag))

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
        builder = self._builder = ObservationBuilder(robot, policy.modality)
        # Nanoseconds since 1970 grow from start to start, also when the process is a new one.
        self._session = max(self._session + 1, time.time_ns())
        delta0 = min(policy.modality["action"].delta_indices)
        self._chunking = self._make_chunking(robot, policy, delta0)
        self._cadence = Cadence(
            lambda: float(self.parameters["rate"]), lambda: float(self.parameters["replan_below"])
        )
        planner = self._planner = Planner(
            robot,
            policy,
            builder,
            instruction,
            delta0=delta0,
            session=self._session,
            seed=self.parameters["seed"],
            cadence=self._cadence,
            now_ns=self.now_ns,
            publish=self._publish_chunk,
            changed=self._publish_status,
            warn=self.tell_warning,
            chunking=self._chunking,
        )
        self._tasks = self._make_tasks(instruction, planner)
        self._executor = None
        self._inputs.append(
            self.create_subscription(ExecutorStatus, "executor/status", self._on_executor, STATUS)
        )
        # States before cameras: rclpy runs what is ready in the order of subscription, and a frame wakes the
        # planner, which should then find the joint state that came with the frame.
        for spec in reversed(robot.topics):
            if spec.topic in builder.topics:
                self._subscribe(spec.topic, MESSAGE_CLASSES[spec.message_type], self._on_source)
        # Every commanded joint is measured there, whatever the checkpoint uses.
        if robot.joints and robot.executor_joint_state_topic not in builder.topics:
            self._subscribe(robot.executor_joint_state_topic, JointState, self._on_joint_state)
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
        """Ends the session, its task and its plan; no chunk is published after it."""
        tasks, self._tasks = self._tasks, None
        if tasks is not None:
            tasks.abandon("the policy was deactivated", time.monotonic())
            self._task_server.settle()
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
        self._chunks = self._policy = self._robot = self._instruction = self._builder = None

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

    def _make_chunking(self, robot: RobotConfig, policy: Gr00tPolicy, delta0: int) -> RealTimeChunking | None:
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

    def _make_tasks(self, instruction: Instruction, planner: Planner) -> Tasks:
        only_tasks = self.parameters["mode"] == TASKS
        tasks = Tasks(
            instruction,
            settings=lambda: Settings(
                float(self.parameters["still_time"]), float(self.parameters["task_patience"])
            ),
            end_plan=planner.end_plan,
            how_to="send a goal to the action run_task" + ("" if only_tasks else " or a new instruction"),
        )
        if only_tasks:
            tasks.rest("no task")
        return tasks

    def _subscribe(self, topic: str, kind: Any, take: Callable[[str, Any], None]) -> None:
        self._inputs.append(
            self.create_subscription(
                kind,
                topic,
                lambda message: take(topic, message),
                copy.copy(qos_profile_sensor_data),  # rclpy writes what is overridden into it
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            )
        )

    # While active.

    def _on_source(self, topic: str, message: Any) -> None:
        if self._planner is not None:
            self._planner.add(topic, message)
        if self._robot is not None and topic == self._robot.executor_joint_state_topic:
            self._on_joint_state(topic, message)

    def _on_instruction(self, message: String) -> None:
        self._take_instruction(message.data)

    def _on_parameter(self, name: str, value: Any) -> None:
        if name == "instruction":
            self._take_instruction(value)

    def _take_instruction(self, text: str) -> None:
        """A text by topic or parameter: the newest one wins, also over a task."""
        if self._instruction is None:
            return
        if self.parameters["mode"] == TASKS:
            text = "an instruction by topic or parameter is ignored: mode is tasks, send a goal to run_task"
            self.get_logger().warning(text, throttle_duration_sec=60.0)
            return
        tasks = self._tasks
        if tasks is None:
            self._instruction.set(text)
        else:
            tasks.supersede(text, time.monotonic())
            self._task_server.settle()
        if self._planner is not None:
            self._planner.look_again()

    def _on_task_begun(self) -> None:
        self._stillness.clear()
        if self._planner is not None:
            self._planner.look_again()

    def _on_joint_state(self, topic: str, message: JointState) -> None:
        if self._tasks is not None and self._tasks.task is not None:
            threshold = float(self.parameters["still_threshold"])
            self._stillness.measure(message.name, message.position, time.monotonic(), threshold)

    def _on_executor(self, message: ExecutorStatus) -> None:
        self._executor = report_from_msg(message)
        self._cadence.hear(self._executor)
        if self._chunking is not None:
            self._chunking.hear(plan_from_msg(message))

    def _look(self) -> Seen:
        """What a task is judged by, now."""
        now_s = time.monotonic()
        progress = Progress() if self._planner is None else self._planner.progress
        since_s = progress.busy_since_s
        return Seen(
            now_s=now_s,
            state=progress.state,
            reason=progress.reason,
            busy_s=0.0 if since_s is None else now_s - since_s,
            executor=self._executor,
            still_s=self._stillness.still_s(now_s),
            faults=progress.faults,
        )

    def _publish_chunk(self, chunk: Chunk) -> None:
        """From the planner's thread; a chunk without steps also from the node's."""
        chunks, tasks = self._chunks, self._tasks  # once: a deactivation takes them away meanwhile
        if chunks is not None and self.context.ok():
            chunks.publish(chunk_msg(chunk))
        if tasks is not None and chunk.groups:
            tasks.published(chunk.instruction)

    def _publish_status(self) -> None:
        """From the planner's thread at a change, from the node's all the time."""
        message = PolicyStatus(state=int(State.INACTIVE), reason=self.problem or "not active")
        message.header.stamp = self.get_clock().now().to_msg()
        policy, planner, robot, instruction = self._policy, self._planner, self._robot, self._instruction
        if policy is not None and robot is not None:
            message.backend, message.device = policy.choice.backend, str(policy.choice.device)
            message.precision, message.embodiment_tag = policy.choice.precision, robot.embodiment_tag
        if instruction is not None:
            message.instruction = instruction.text
        if planner is not None:
            fill_progress(message, planner)
        self._status.publish(message)

    def diagnose(self) -> tuple[bytes, str, Mapping[str, Any]]:
        """Level, sentence and values for ``/diagnostics``."""
        planner, policy, builder = self._planner, self._policy, self._builder
        if planner is None or policy is None or builder is None:
            return self.diagnose_inactive()
        return diagnosis(planner, policy, builder, self.now_ns())


def main(argv: list[str] | None = None) -> int:
    """Runs the node until SIGINT or SIGTERM."""
    return run(PolicyNode, argv, DESCRIPTION)


if __name__ == "__main__":
    raise SystemExit(main())
