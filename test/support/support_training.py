# SPDX-License-Identifier: Apache-2.0
"""For tests of fine-tuning: a small recording, a base checkpoint that sees small images, runs of a few steps.

Each is made once per test process, in a folder that goes with it.
"""

from __future__ import annotations

import atexit
import functools
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gr00t_model import Gr00tProcessor
from gr00t_ros.training.network import open_base
from gr00t_ros.training.options import Options
from gr00t_ros.training.preparing import Recording, find_recordings, prepare_processor
from gr00t_ros.training.running import Outcome, Run
from support_checkpoints import tiny_checkpoint
from support_datasets import write_dataset
from support_network import edit_json

# Four image tokens instead of 81: training is tested here, not vision.
IMAGE_EDGE = 56


@functools.cache
def work_folder() -> Path:
    """Of this test process."""
    path = Path(tempfile.mkdtemp(prefix="gr00t_ros_training_"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


@functools.cache
def recording() -> Path:
    """Three short episodes of an SO-101 with two cameras, LeRobot v2.1."""
    return write_dataset(work_folder() / "recording", lengths=(12, 10, 8))


@functools.cache
def base(dropout: float | None = None) -> Path:
    """A checkpoint of the tiny preset that knows the SO-101; with the transformer's dropout changed."""
    path = work_folder() / f"base_{dropout}"
    shutil.copytree(tiny_checkpoint(), path)
    edit_json(path / "processor_config.json", _small_images)
    if dropout is not None:
        edit_json(path / "config.json", lambda c: c["diffusion_model_cfg"].update(dropout=dropout))
    return path


def _small_images(content: dict[str, Any]) -> None:
    content["processor_kwargs"]["shortest_image_edge"] = IMAGE_EDGE


def options(output: Path, **changes: Any) -> Options:
    """Six steps of four samples."""
    values: dict[str, Any] = {
        "datasets": (str(recording()),),
        "base": str(base()),
        "robot": "so101",
        "output": output,
        "steps": 6,
        "batch_size": 4,
        "learning_rate": 1e-3,
        "save_every": 3,
        "log_every": 1,
        "report_to": (),
        "workers": 0,
        "device": "cpu",
    }
    return Options(**{**values, **changes})


def run(chosen: Options, resume: str | None = None) -> Outcome:
    """A run in this process."""
    torch.set_num_threads(1)
    return Run.prepare(chosen).execute(resume=resume, tell=lambda _: None)


def recordings(*datasets: object, **changes: Any) -> list[Recording]:
    """The datasets of a run, by default of this file's recording."""
    return find_recordings(of_data(*datasets, **changes))


def prepared(*datasets: object, **changes: Any) -> tuple[Gr00tProcessor, list[str]]:
    """The processor of a run and what is told of its data; of a preset where no base is given."""
    chosen, told = of_data(*datasets, **changes), []
    return prepare_processor(chosen, open_base(chosen.base), find_recordings(chosen), told.append), told


def of_data(*datasets: object, **changes: Any) -> Options:
    values: dict[str, Any] = {"base": "tiny", "output": Path("out"), **changes}
    return Options(datasets=tuple(map(str, datasets or (recording(),))), **values)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def trained(checkpoint: Path) -> dict[str, Tensor]:
    """The trained parameters in a checkpoint folder, bit for bit."""
    from safetensors.torch import load_file

    return load_file(checkpoint / "trained.safetensors")
