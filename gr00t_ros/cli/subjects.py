# SPDX-License-Identifier: Apache-2.0
"""What the commands about engines are about: a checkpoint, one embodiment, maybe a robot, maybe a recording.

``build_engine`` and ``benchmark`` take the same options for these and refuse the same mistakes, before
anything slow begins.
"""

from __future__ import annotations

import argparse
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gr00t_model.errors import EmbodimentError, Gr00tError
from gr00t_ros.errors import Gr00tRosError
from gr00t_ros.robot import RobotConfig
from gr00t_ros.share import robot_file

if TYPE_CHECKING:
    from gr00t_model.inference.observations import ObservationSet
    from gr00t_model.processing import Gr00tProcessor

# What a person can cause, and is told in one line.
MISTAKES = (Gr00tError, Gr00tRosError, OSError)
# The exit code that the shell has for a program that SIGINT ended.
INTERRUPTED = 130
OBSERVATIONS_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Subject:
    """A checkpoint and the embodiment that is meant."""

    directory: Path
    processor: Gr00tProcessor
    tag: str
    robot: RobotConfig | None

    @property
    def instruction(self) -> str:
        """A task of the usual length, the robot's own where it has one."""
        own = self.robot.instruction.default if self.robot is not None else ""
        return own.strip() or "pick up the red block and place it in the bin"

    @property
    def accuracy(self) -> dict[str, Any]:
        """``limits`` and ``names`` of the robot's joints, as ``verification.compare`` takes them."""
        from gr00t_ros.engine_limits import engine_limits, joint_names

        if self.robot is None:
            return {"limits": None, "names": None}
        return {"limits": engine_limits(self.robot), "names": joint_names(self.robot)}


def add_subject(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Adds --checkpoint, --robot and --embodiment-tag; ``required`` is whether it goes without the first."""
    parser.add_argument("--checkpoint", required=required, help="directory, or a hub id where online")
    parser.add_argument(
        "--robot",
        metavar="NAME|YAML",
        help="a shipped robot description or a robot YAML: embodiment, joint names, limits, instruction",
    )
    parser.add_argument(
        "--embodiment-tag",
        metavar="TAG",
        help="instead of --robot; not needed where the checkpoint has statistics for one embodiment only",
    )


def subject_of(options: argparse.Namespace) -> Subject:
    """What those options mean.

    Raises:
        Gr00tRosError: the robot description cannot be read, or does not fit the checkpoint.
        Gr00tError: no such checkpoint or embodiment, or there are several to choose from.
    """
    from gr00t_model.checkpoint import read_config, resolve
    from gr00t_model.processing import Gr00tProcessor

    robot = None if options.robot is None else RobotConfig.from_file(robot_file(options.robot))
    directory = resolve(options.checkpoint)
    processor = Gr00tProcessor.from_pretrained(directory)
    tag = options.embodiment_tag or (robot.embodiment_tag if robot else _only_tag(processor))
    processor.require_statistics(tag)
    if robot is not None:
        robot.check_against(
            processor.modality(tag),
            processor.state_widths(tag),
            processor.action_widths(tag),
            read_config(directory).action_horizon,
        )
    return Subject(directory, processor, tag, robot)


def recorded(source: Path | None, subject: Subject, count: int) -> ObservationSet | None:
    """Observations out of a LeRobot dataset, or a file that holds such; None without a source.

    Raises:
        DatasetError, ObservationError: they cannot be read or do not fit.
    """
    from gr00t_model.checkpoint import read_config
    from gr00t_model.inference.observations import ObservationSet
    from gr00t_ros.data.calibration import recorded_observations

    if source is None:
        return None
    if source.suffix == OBSERVATIONS_SUFFIX:
        found = ObservationSet.load(source)
    else:
        found = recorded_observations(source, subject.processor, subject.tag, count, robot=subject.robot)
    found.check_fit(subject.processor, subject.tag, read_config(subject.directory))
    return found


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM ends the work as Ctrl-C does: clusters send it before they take a machine back."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def explain(command: str, error: BaseException) -> str:
    """A mistake in one line."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return f"{command}: {' '.join(text.split())}"


def _only_tag(processor: Gr00tProcessor) -> str:
    usable = []
    for tag in processor.tags:
        try:
            processor.require_statistics(tag)
            usable.append(tag)
        except Gr00tError:
            continue
    if len(usable) != 1:
        raise EmbodimentError(
            f"the checkpoint has statistics for {', '.join(usable) or 'no embodiment'}; choose with "
            "--robot or --embodiment-tag"
        )
    return usable[0]
