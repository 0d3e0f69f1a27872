# SPDX-License-Identifier: Apache-2.0
"""What runs: the programs of a system with their parameters, as plain data.

The launch files turn the list into launch_ros nodes; ``demo`` turns the same list into processes where
``launch`` is not installed. Both read it from here, so they cannot differ.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gr00t_ros import dds, parameter_file, share
from gr00t_ros.errors import Gr00tRosError
from gr00t_ros.executables import find_executable, find_foreign

ParameterValue = bool | int | float | str
# The simulator's task: touch the object that the instruction names. What else the demo's may be: without one,
# or as the checkpoint has it.
REACH = "reach"
NO_TASK, AUTO = "none", "auto"
# The arm presses on what it touches, and is then held back from its command by so much at most, rad.
PRESSING_ERROR = 0.5
# Edge of that task's pictures, pixels: five of the network's tokens, so that nothing has to scale them.
REACHING_PICTURE = 140


@dataclass(frozen=True, kw_only=True)
class Program:
    """One process: a node of this package, or a program of another one such as ``rviz2``.

    ``parameter_files`` are read in order, then ``parameters`` override them. ``environment`` is added to the
    one that the process inherits.
    """

    name: str
    executable: str
    package: str = share.PACKAGE
    namespace: str = ""
    parameter_files: tuple[Path, ...] = ()
    parameters: Mapping[str, ParameterValue] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    log_level: str = "info"

    def command(self) -> list[str]:
        """The command line that starts this program without launch_ros.

        Raises:
            Gr00tRosError: the executable is not installed.
        """
        ours = self.package == share.PACKAGE
        found = find_executable(self.executable) if ours else find_foreign(self.executable, self.package)
        line = [str(found), *self.arguments, "--ros-args"]
        line += ["-r", f"__node:={self.name}"]
        if self.namespace:
            line += ["-r", f"__ns:={self.namespace}"]
        for path in self.parameter_files:
            line += ["--params-file", str(path)]
        for key, value in self.parameters.items():
            # JSON's scalars are YAML's, and its quotes keep a text such as "123" a text.
            line += ["-p", f"{key}:={json.dumps(value, ensure_ascii=False)}"]
        return [*line, "--log-level", self.log_level]


@dataclass(frozen=True)
class Argument:
    """One argument of the launch files: name, default and the sentence that ``--show-args`` prints."""

    name: str
    default: str
    description: str


DDS_PROFILE = Argument(
    "dds_profile",
    dds.SHIPPED,
    "Fast DDS profile for camera traffic: shipped (unless the environment chooses transports already), a "
    "path, or empty for none",
)

VISUALIZER = Argument("visualizer", "false", "start action_visualizer; rviz:=true does too")
RVIZ = Argument("rviz", "false", "start rviz2 with config/rviz/policy.rviz, and action_visualizer")

POLICY_ARGUMENTS = (
    Argument("robot", "so101", "name of a shipped robot description, or the path of a robot YAML"),
    Argument("checkpoint", "", "directory of a checkpoint, or a hub id where the machine is online"),
    Argument("backend", "auto", "auto, tensorrt or pytorch"),
    Argument("device", "auto", "auto, cpu, cuda or cuda:N"),
    Argument("precision", "auto", "auto, bfloat16, float32, or fp8, int8, nvfp4 with a TensorRT engine"),
    Argument("engine", "", "directory of a TensorRT engine; empty looks for tensorrt in the checkpoint"),
    Argument("num_steps", "0", "denoising steps; 0 takes the checkpoint's number"),
    Argument("letterbox", "auto", "pad images to a square: auto (as the checkpoint says), always or never"),
    Argument("instruction", "", "what the robot is told at the start; the instruction topic overrides it"),
    Argument("seed", "0", "seed of the chunk noise"),
    Argument("rate", "0.0", "chunks per second; 0 means back to back"),
    Argument("real_time_chunking", "true", "chunks join the plan that the executor is committed to"),
    Argument(
        "mode", "continuous", "continuous, or tasks: plan only while a goal of the action run_task asks"
    ),
    Argument("enabled", "false", "execute chunks at once; false waits stopped for executor/start"),
    Argument("urdf", "", "URDF file whose limits hold where they are tighter than the robot YAML's"),
    Argument("dry_run", "false", "commands go out under another name, so that no controller takes them"),
    Argument("real_time", "auto", "executor with real-time priority and locked memory: auto, on or off"),
    Argument("params_file", "", "ROS 2 parameter file with what is no launch argument; read last"),
    Argument("namespace", "/gr00t", "namespace of the nodes"),
    Argument("use_sim_time", "false", "take the time from /clock"),
    Argument("autostart", "true", "walk the lifecycle nodes to active; false leaves them unconfigured"),
    VISUALIZER,
    RVIZ,
    Argument(
        "publish_urdf",
        "",
        "URDF file that action_visualizer, which this starts, publishes on /robot_description with the TF of "
        "its links; for a robot without robot_state_publisher",
    ),
    DDS_PROFILE,
    Argument("log_level", "info", "debug, info, warn, error or fatal"),
)

RECORD_ARGUMENTS = (
    Argument("robot", "so101", "name of a shipped robot description, or the path of a robot YAML"),
    Argument("output", "episodes", "folder that the episodes lie in"),
    Argument("instruction", "", "what the robot is told; the instruction topic and start override it"),
    Argument("all_topics", "false", "record all topics, not only those of the robot YAML"),
    Argument("write_bags", "true", "false only marks episodes, for use beside ros2 bag record"),
    Argument("params_file", "", "ROS 2 parameter file with what is no launch argument; read last"),
    Argument("namespace", "/gr00t", "namespace of the node"),
    Argument("use_sim_time", "false", "take the time from /clock"),
    DDS_PROFILE,
    Argument("log_level", "info", "debug, info, warn, error or fatal"),
)

DEMO_ARGUMENTS = (
    Argument(
        "checkpoint",
        "",
        "directory of a checkpoint; empty takes the shipped one, or makes a small one with random weights "
        "where there is none for the task",
    ),
    Argument("duration", "30.0", "seconds until the demo ends by itself; 0 means never"),
    Argument("output", ".demo", "folder for the made checkpoint and the picture"),
    Argument("instruction", "pick up the red cube", "what the robot is told; a task tells it by itself"),
    Argument(
        "task",
        AUTO,
        "reach: episode after episode, told and counted; none; auto is reach with the shipped checkpoint",
    ),
    Argument("kinds", "static,moved,swapped", "of the task's episodes, in turn: what happens in them"),
    Argument("seed", "0", "the task's first episode"),
    Argument("note", "", "a sentence below the picture; made up where the weights are random"),
    Argument("use_sim_time", "false", "the simulator publishes /clock and every node follows it"),
    VISUALIZER,
    RVIZ,
    DDS_PROFILE,
    Argument("log_level", "info", "debug, info, warn, error or fatal"),
)


def policy_programs(arguments: Mapping[str, str]) -> list[Program]:
    """The policy and the executor (and what shows them), from the values of ``POLICY_ARGUMENTS``.

    Raises:
        RobotConfigError: the robot is not found.
        Gr00tRosError: an argument is unknown or does not read as its type, or params_file is of no use.
    """
    values = with_defaults(POLICY_ARGUMENTS, arguments)
    robot = share.robot_file(values["robot"])
    shared: dict[str, ParameterValue] = {
        "use_sim_time": boolean(values, "use_sim_time"),
        "autostart": boolean(values, "autostart"),
    }
    policy: dict[str, ParameterValue] = {
        **shared,
        "checkpoint": values["checkpoint"],
        "backend": values["backend"],
        "device": values["device"],
        "precision": values["precision"],
        "engine": values["engine"],
        "num_steps": integer(values, "num_steps"),
        "letterbox": values["letterbox"],
        "instruction": values["instruction"],
        "seed": integer(values, "seed"),
        "rate": _number(values, "rate"),
        "real_time_chunking": boolean(values, "real_time_chunking"),
        "mode": values["mode"],
    }
    executor: dict[str, ParameterValue] = {
        **shared,
        "enabled": boolean(values, "enabled"),
        "urdf": values["urdf"],
        "dry_run": boolean(values, "dry_run"),
        "real_time": values["real_time"],
    }
    visualizer: dict[str, ParameterValue] = {
        "use_sim_time": shared["use_sim_time"],
        "urdf": values["publish_urdf"],
    }
    files = [share.config_file("policy.yaml"), robot]
    if values["params_file"]:
        arguments_of = {"policy": policy, "chunk_executor": executor, "action_visualizer": visualizer}
        files.append(parameter_file.checked(values["params_file"], arguments_of))
    common: dict[str, Any] = {
        "namespace": values["namespace"],
        "parameter_files": tuple(files),
        "log_level": values["log_level"],
    }
    programs = [
        Program(
            name="policy",
            executable="policy_node",
            parameters=policy,
            environment=dds_environment(values),
            **common,
        ),
        # No camera frame passes the executor: it needs no segment for them.
        Program(name="chunk_executor", executable="chunk_executor", parameters=executor, **common),
    ]
    if boolean(values, "visualizer") or boolean(values, "rviz") or values["publish_urdf"]:
        programs.append(
            Program(
                name="action_visualizer",
                executable="action_visualizer",
                parameters=visualizer,
                environment=dds_environment(values),
                **common,
            )
        )
    if boolean(values, "rviz"):
        programs.append(
            Program(
                name="rviz2",
                package="rviz2",
                executable="rviz2",
                arguments=("-d", str(share.config_file("rviz/policy.rviz"))),
                parameters={"use_sim_time": shared["use_sim_time"]},
                log_level=values["log_level"],
            )
        )
    return programs


def record_programs(arguments: Mapping[str, str]) -> list[Program]:
    """The episode recorder, from the values of ``RECORD_ARGUMENTS``.

    Raises:
        RobotConfigError: the robot is not found.
        Gr00tRosError: an argument is unknown or does not read as its type, or params_file is of no use.
    """
    values = with_defaults(RECORD_ARGUMENTS, arguments)
    parameters: dict[str, ParameterValue] = {
        "use_sim_time": boolean(values, "use_sim_time"),
        # Here a relative folder means the one that the launch was started in.
        "output": str(Path(values["output"]).expanduser().absolute()),
        "instruction": values["instruction"],
        "all_topics": boolean(values, "all_topics"),
        "write_bags": boolean(values, "write_bags"),
    }
    files = [share.config_file("record.yaml"), share.robot_file(values["robot"])]
    if values["params_file"]:
        files.append(parameter_file.checked(values["params_file"], {"episode_recorder": parameters}))
    return [
        Program(
            name="episode_recorder",
            executable="episode_recorder",
            namespace=values["namespace"],
            parameter_files=tuple(files),
            parameters=parameters,
            environment=dds_environment(values),
            log_level=values["log_level"],
        )
    ]


def demo_programs(arguments: Mapping[str, str]) -> list[Program]:
    """The simulated SO-101 with policy, executor and monitor, from the values of ``DEMO_ARGUMENTS``.

    The checkpoint must exist. Everything ends when the monitor does.
    """
    values = with_defaults(DEMO_ARGUMENTS, arguments)
    sim_time = boolean(values, "use_sim_time")
    robot = share.robot_file(demo_robot(values))
    simulator: dict[str, ParameterValue] = {"publish_clock": sim_time}
    monitor: dict[str, ParameterValue] = {}
    if values["task"] == REACH:
        simulator |= reaching_parameters(values["kinds"], REACHING_PICTURE) | {
            "seed": integer(values, "seed")
        }
        monitor = {"task": REACH, "max_tracking_error": PRESSING_ERROR}
    log_level = values["log_level"]
    passed_on = (
        "checkpoint", "instruction", "use_sim_time", "visualizer", "rviz", "dds_profile", "log_level"
    )  # fmt: skip
    environment = dds_environment(values)
    return [
        Program(
            name="so101_sim",
            executable="so101_sim",
            parameter_files=(robot,),
            parameters=simulator,
            environment=environment,
            log_level=log_level,
        ),
        # Nobody is at hand to call executor/start, and the arm is not real.
        *policy_programs(
            {
                "robot": str(robot),
                "enabled": "true",
                "publish_urdf": _simulated_urdf(values),
                **{key: values[key] for key in passed_on},
            }
        ),
        Program(
            name="demo_monitor",
            executable="demo_monitor",
            namespace="/gr00t",
            parameter_files=(robot,),
            parameters={
                **monitor,
                "use_sim_time": sim_time,
                "duration": _number(values, "duration"),
                "output": values["output"],
                "note": values["note"],
            },
            environment=environment,
            log_level=log_level,
        ),
    ]


def demo_robot(values: Mapping[str, str]) -> str:
    """The name of the demo's robot description. Raises Gr00tRosError for a task that does not exist."""
    if values["task"] not in (AUTO, NO_TASK, REACH):
        raise Gr00tRosError(f"argument task is {values['task']!r}, expected {AUTO}, {REACH} or {NO_TASK}")
    return "so101_reach" if values["task"] == REACH else "so101"


def reaching_parameters(kinds: str, size: int) -> dict[str, ParameterValue]:
    """The simulator's, for the reaching task: ``kinds`` of episodes in turn, square pictures of ``size``
    pixels."""
    return {"task": REACH, "kinds": kinds, "width": size, "height": size}


def with_defaults(declared: tuple[Argument, ...], given: Mapping[str, str]) -> dict[str, str]:
    """``given`` completed by the declared defaults; an undeclared name is refused."""
    known = {argument.name: argument.default for argument in declared}
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise Gr00tRosError(f"unknown argument {', '.join(unknown)}; known are {', '.join(known)}")
    return {**known, **given}


def _simulated_urdf(values: Mapping[str, str]) -> str:
    """The URDF of the simulated SO-101, where its picture is asked for: nobody else publishes it."""
    if not (boolean(values, "visualizer") or boolean(values, "rviz")):
        return ""
    from gr00t_ros.sim.scene import robot_model_path

    return str(robot_model_path().with_suffix(".urdf"))


def dds_environment(values: Mapping[str, str]) -> dict[str, str]:
    """What ``dds_profile`` adds to a program's environment."""
    return dds.environment(values["dds_profile"], os.environ)


def boolean(values: Mapping[str, str], name: str) -> bool:
    """An argument that reads true or false. Raises Gr00tRosError for another text."""
    text = values[name].strip().lower()
    if text in ("true", "1", "yes"):
        return True
    if text in ("false", "0", "no"):
        return False
    raise Gr00tRosError(f"argument {name} is {values[name]!r}, expected true or false")


def _number(values: Mapping[str, str], name: str) -> float:
    try:
        return float(values[name])
    except ValueError as error:
        raise Gr00tRosError(f"argument {name} is {values[name]!r}, expected a number") from error


def integer(values: Mapping[str, str], name: str) -> int:
    """An argument that is a whole number. Raises Gr00tRosError for another text."""
    try:
        return int(values[name])
    except ValueError as error:
        raise Gr00tRosError(f"argument {name} is {values[name]!r}, expected a whole number") from error
