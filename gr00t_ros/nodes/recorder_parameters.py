# SPDX-License-Identifier: Apache-2.0
"""The parameters of the episode recorder. ``config/record.yaml`` lists them for users."""

from __future__ import annotations

from gr00t_ros.nodes.parameters import ParameterSpec

MEGABYTE = 1_000_000

PARAMETERS = (
    ParameterSpec("output", "episodes", "folder that the episodes lie in", read_only=True),
    ParameterSpec(
        "write_bags",
        True,
        "record episodes; false only marks them on the events topic, beside ros2 bag record",
        read_only=True,
    ),
    ParameterSpec("all_topics", False, "record all topics, not only those of the robot YAML", read_only=True),
    ParameterSpec(
        "instruction",
        "",
        "what the robot is told, when start says nothing; a newer text on the instruction topic overrides it",
        runtime=True,
    ),
    ParameterSpec(
        "queue_size",
        256.0,
        "what may wait for the disk; messages beyond that are dropped, counted and reported",
        "MB",
        1.0,
        65536.0,
        read_only=True,
    ),
    ParameterSpec(
        "min_free_space",
        1000.0,
        "no episode begins with less free space on the disk",
        "MB",
        0.0,
        1e9,
        runtime=True,
    ),
)
