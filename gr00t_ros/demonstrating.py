# SPDX-License-Identifier: Apache-2.0
"""What runs when the simulated SO-101 is shown a task: simulator, recorder, teacher, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gr00t_ros import share
from gr00t_ros.errors import Gr00tRosError
from gr00t_ros.sim import demonstrations
from gr00t_ros.system import (
    DDS_PROFILE,
    REACH,
    REACHING_PICTURE,
    Argument,
    ParameterValue,
    Program,
    dds_environment,
    integer,
    reaching_parameters,
    record_programs,
    with_defaults,
)

PARK = "park"
DEMONSTRATION_ARGUMENTS = (
    Argument("task", PARK, "park, or reach: touch the object that the instruction names"),
    Argument("output", "episodes", "folder that the episodes lie in"),
    Argument("episodes", "20", "how many to record, of about four seconds each"),
    Argument("seed", "0", "where the episodes begin"),
    Argument("instruction", demonstrations.INSTRUCTION, "what the task park is called"),
    Argument(
        "kinds", "static,moved,static,swapped", "of the task reach, in turn: what happens in an episode"
    ),
    Argument("size", str(REACHING_PICTURE), "edge of the pictures of the task reach, pixels"),
    DDS_PROFILE,
    Argument("log_level", "info", "debug, info, warn, error or fatal"),
)


def demonstration_programs(arguments: Mapping[str, str]) -> list[Program]:
    """The simulated SO-101, its scripted teacher, and the recorder, from the values of
    ``DEMONSTRATION_ARGUMENTS``. Everything ends when the teacher does."""
    values = with_defaults(DEMONSTRATION_ARGUMENTS, arguments)
    if values["task"] not in (PARK, REACH):
        raise Gr00tRosError(f"argument task is {values['task']!r}, expected {PARK} or {REACH}")
    reach = values["task"] == REACH
    robot = share.robot_file("so101_reach" if reach else "so101")
    seed = integer(values, "seed")
    simulator: dict[str, ParameterValue] = {"seed": seed}
    if reach:
        simulator |= reaching_parameters(values["kinds"], integer(values, "size"))
        # Time waits for the teacher, so that it may run as fast as the machine can.
        simulator |= {
            "publish_clock": True,
            "real_time_factor": 100.0,
            "wait_for_commands": True,
            "command_prefix": "/executed",
            # One picture a step.
            "camera_rate": 10.0,
        }
    common: dict[str, Any] = {"parameter_files": (robot,), "log_level": values["log_level"]}
    environment = dds_environment(values)
    passed_on = {key: values[key] for key in ("output", "dds_profile", "log_level")}
    return [
        Program(
            name="so101_sim",
            executable="so101_sim",
            parameters=simulator,
            environment=environment,
            **common,
        ),
        *record_programs({"robot": str(robot), "use_sim_time": str(reach).lower(), **passed_on}),
        Program(
            name="so101_teacher",
            executable="so101_teacher",
            parameters={
                "task": values["task"],
                "seed": seed,
                "episodes": integer(values, "episodes"),
                "instruction": values["instruction"],
            },
            **common,
        ),
    ]
