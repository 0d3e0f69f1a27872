# SPDX-License-Identifier: Apache-2.0
"""Small checkpoints with random weights that fit a shipped robot description, and the same ones spoiled.

Each kind is made once per test run, on first use, in a folder that goes with the process.
"""

from __future__ import annotations

import atexit
import functools
import json
import shutil
import tempfile
from pathlib import Path

from support_robots import shipped


@functools.cache
def _folder() -> Path:
    path = Path(tempfile.mkdtemp(prefix="gr00t_ros_checkpoints_"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def tiny_checkpoint(robot: str = "so101") -> Path:
    """The tiny preset, its keys and widths those of the robot; weights as if trained."""
    return _tiny(robot)


@functools.cache
def _tiny(robot: str) -> Path:
    from gr00t_ros.cli.random_checkpoint import write

    path = _folder() / f"{robot}_tiny"
    write(shipped(robot), path, preset="tiny")
    return path


def _copy(name: str) -> Path:
    path = _folder() / f"so101_{name}"
    shutil.copytree(tiny_checkpoint(), path)
    return path


@functools.cache
def untrained_checkpoint() -> Path:
    """The robot's embodiment still has its initial weights."""
    from gr00t_model.checkpoint import write_random_checkpoint
    from gr00t_model.config import Gr00tN1d6Config

    path = _copy("untrained")
    number = json.loads((path / "embodiment_id.json").read_text())[shipped("so101").embodiment_tag]
    (path / "model.safetensors").unlink()
    write_random_checkpoint(Gr00tN1d6Config.tiny(), path, untrained=[number], progress=False)
    return path


@functools.cache
def truncated_checkpoint() -> Path:
    """The weight file ends early, as after an interrupted download."""
    path = _copy("truncated")
    weights = path / "model.safetensors"
    with weights.open("r+b") as file:
        file.truncate(weights.stat().st_size * 2 // 3)
    return path


@functools.cache
def checkpoint_without_statistics() -> Path:
    """The robot's tag is known, but nothing is said about the ranges of its values."""
    path = _copy("without_statistics")
    statistics = json.loads((path / "statistics.json").read_text())
    del statistics[shipped("so101").embodiment_tag]
    (path / "statistics.json").write_text(json.dumps(statistics))
    return path


@functools.cache
def checkpoint_with_short_network() -> Path:
    """The network makes fewer steps than the processor files want of it."""
    path = _copy("short_network")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "action_horizon": 10}))
    return path


@functools.cache
def foreign_checkpoint() -> Path:
    """A checkpoint of some other model."""
    path = _folder() / "foreign"
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_size": 8}))
    return path
