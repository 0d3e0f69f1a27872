# SPDX-License-Identifier: Apache-2.0
"""A checkpoint that the policy loads as it is: weights, processor, statistics, robot, provenance.

Written into every checkpoint folder of a run, so that each can be evaluated and deployed while training goes
on.
"""

from __future__ import annotations

import copy
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gr00t_model import Gr00tN1d6, Gr00tN1d6Config, Gr00tProcessor
from gr00t_model.checkpoint import save_tensors
from gr00t_ros.data.whole_files import write_json
from gr00t_ros.errors import RobotConfigError
from gr00t_ros.robot import RobotConfig
from gr00t_ros.training.lora import deployed_value
from gr00t_ros.training.options import TrainingError
from gr00t_ros.training.preparing import Recording
from gr00t_ros.training.provenance import PROVENANCE_FILE

ROBOT_FILE = "robot.yaml"
# In front of any comment; alone in its line, or with others in braces.
_TAG = re.compile(r"""^([^#\n]*\bembodiment_tag["']?\s*:\s*)[^\s#,}]+""", re.MULTILINE)


@dataclass(frozen=True)
class Deployment:
    """What goes into a checkpoint besides the weights of the moment.

    ``config`` is the network's own, kept apart because trainers write into the one that the network holds.
    ``robots`` are the texts of robot descriptions by the name of the file that they get; ``write_tokenizer``
    puts the tokenizer's files into a folder, where the checkpoint has its own.
    """

    config: Gr00tN1d6Config
    processor: Gr00tProcessor
    robots: Mapping[str, str]
    write_tokenizer: Callable[[Path], None]
    provenance: Mapping[str, Any]
    dtype: torch.dtype = torch.bfloat16

    @classmethod
    def of(
        cls,
        model: Gr00tN1d6,
        processor: Gr00tProcessor,
        recordings: Sequence[Recording],
        write_tokenizer: Callable[[Path], None],
        provenance: Mapping[str, Any],
        dtype: torch.dtype,
    ) -> Deployment:
        """The deployment of a run."""
        config = copy.deepcopy(model.config)
        return cls(config, processor, robot_files(recordings), write_tokenizer, provenance, dtype)

    def write(self, model: Gr00tN1d6, directory: Path, step: int) -> None:
        """Write it with the network's present weights, adapters merged.

        Raises:
            CheckpointError: it cannot be written.
        """
        self.processor.save_pretrained(directory)
        self.write_tokenizer(directory)
        for name, text in self.robots.items():
            (directory / name).write_text(text, encoding="utf-8")
        write_json(directory / PROVENANCE_FILE, {**self.provenance, "steps": step})
        save_tensors(self.config, deployed_value(model), directory, dtype=self.dtype)


def robot_files(recordings: Sequence[Recording]) -> dict[str, str]:
    """``robot.yaml`` for the only robot of a run, ``robot_<tag>.yaml`` each where there are several; with the
    embodiment tag that was trained, so that the policy finds it.

    Raises:
        TrainingError: that tag cannot be written into a description.
    """
    tags = {recording.tag for recording in recordings}
    texts: dict[str, str] = {}
    for recording in recordings:
        if recording.robot is None or recording.robot_path is None:
            continue
        text = recording.robot_path.read_text(encoding="utf-8")
        if recording.robot.embodiment_tag != recording.tag:
            text = _TAG.sub(rf"\g<1>{recording.tag}", text)
            _check_tag(text, recording.tag, recording.robot_path)
        texts[ROBOT_FILE if len(tags) == 1 else f"robot_{recording.tag}.yaml"] = text
    return texts


def _check_tag(text: str, tag: str, source: Path) -> None:
    """That a description which was changed says what it should."""
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / ROBOT_FILE
        written.write_text(text, encoding="utf-8")
        try:
            found = RobotConfig.from_file(written).embodiment_tag
        except RobotConfigError:
            found = ""
    if found != tag:
        raise TrainingError(
            f"{source}: its embodiment_tag cannot be changed to {tag}, which is trained; write "
            f"'embodiment_tag: {tag}' in a copy of it, and give that with --robot"
        )
