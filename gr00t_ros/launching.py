# SPDX-License-Identifier: Apache-2.0
"""Turns the program list of ``gr00t_ros.system`` into a launch description. Only the launch files use this.

``launch`` and ``launch_ros`` come with a ROS installation and are not on PyPI, so nothing else may import
this module.
"""

from collections.abc import Callable, Mapping, Sequence

from launch.actions import DeclareLaunchArgument, OpaqueFunction, Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from gr00t_ros.system import Argument, Program
from launch import LaunchContext, LaunchDescription

# Seconds between SIGINT and SIGTERM. launch's 5 are too few on a small machine, to unload torch or for the
# demo's monitor to draw its picture; what still runs then dies with an exit code that looks like a failure.
SIGTERM_TIMEOUT_S = "60"


def description(
    arguments: Sequence[Argument],
    programs: Callable[[Mapping[str, str]], list[Program]],
    *,
    ends_with: str | None = None,
) -> LaunchDescription:
    """Declare ``arguments`` and start what ``programs`` makes of their values.

    Args:
        arguments: the launch arguments, declared with default and description.
        programs: from argument values to what runs; called when the launch starts.
        ends_with: name of the program whose end shuts the launch down, or None.
    """

    def start(context: LaunchContext) -> list[Node]:
        values = {
            argument.name: LaunchConfiguration(argument.name).perform(context) for argument in arguments
        }
        return [_node(program, ends=program.name == ends_with) for program in programs(values)]

    declared = [
        DeclareLaunchArgument(argument.name, default_value=argument.default, description=argument.description)
        for argument in arguments
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=start)])


def _node(program: Program, *, ends: bool) -> Node:
    # Left to itself, launch_ros reads a text as YAML: the instruction 123 would arrive as a number.
    parameters = {
        name: ParameterValue(value, value_type=str) if isinstance(value, str) else value
        for name, value in program.parameters.items()
    }
    return Node(
        package=program.package,
        executable=program.executable,
        name=program.name,
        namespace=program.namespace,
        parameters=[*map(str, program.parameter_files), parameters],
        arguments=list(program.arguments),
        ros_arguments=["--log-level", program.log_level],
        additional_env=dict(program.environment),
        output="screen",
        on_exit=[Shutdown(reason=f"{program.name} ended")] if ends else None,
        sigterm_timeout=SIGTERM_TIMEOUT_S,
    )
