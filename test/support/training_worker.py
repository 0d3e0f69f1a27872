# SPDX-License-Identifier: Apache-2.0
"""Runs in which each process computes its rows of one fixed batch: any number of them, in any number of
parts, computes the same.

    training_worker.py FOLDER OPTIONS...

Each OPTIONS is a JSON object with the name of the run and options of it; "resumes" is the name of a run that
it is a copy of, gone on with after the first step. The first process leaves FOLDER/NAME/report.json and the
gradients of its first step, as they were before they were clipped; the run is in FOLDER/NAME/run. Started by
a test with torchrun, or used in the test's own process.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from itertools import cycle, islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from accelerate.state import AcceleratorState, GradientState
from transformers import TrainerCallback

from gr00t_ros.training import running
from gr00t_ros.training.collate import collate
from gr00t_ros.training.deploying import Deployment
from gr00t_ros.training.options import Options
from gr00t_ros.training.running import Run
from gr00t_ros.training.stream import SampleStream
from gr00t_ros.training.trainer import Finetuner

BATCH = 4


def train(folder: Path, name: str, resumes: str = "", **changes: Any) -> dict[str, Any]:
    """Two steps, or the second of another run; what is worth knowing about them."""
    torch.set_num_threads(1)
    report: dict[str, Any] = {}
    wrote: list[int] = []
    write = Deployment.write

    def counted(self: Deployment, model: Any, directory: Path, step: int) -> None:
        wrote.append(step)
        write(self, model, directory, step)

    class LookedAt(Finetuner):
        def __init__(self, *given: Any, **more: Any) -> None:
            super().__init__(*given, **more)
            self.add_callback(Look(folder / name, report))

    options = Options(
        output=folder / name / "run",
        steps=2,
        batch_size=BATCH,
        save_every=1,
        eval_every=1,
        eval_episodes=1,
        log_every=1,
        report_to=(),
        workers=0,
        device="cpu",
        # Else the first of so few steps would be one of no length.
        warmup=0.0,
        **{**changes, "datasets": tuple(changes["datasets"])},
    )
    (folder / name).mkdir(exist_ok=True)
    if resumes and int(os.environ.get("RANK", "0")) == 0:
        shutil.copytree(folder / resumes / "run", options.output)
        shutil.rmtree(options.output / "checkpoint-2")
    # What the library remembers of a run before this one.
    AcceleratorState._reset_state()
    GradientState._reset_state()
    with patch.object(running, "Finetuner", LookedAt), patch.object(Deployment, "write", counted):
        run = SharedRun.prepare(options)
        # The copy is there before another process looks: it waits in there for the first.
        outcome = run.execute(resume="checkpoint-1" if resumes else None, tell=lambda _: None)
    mine = (SharedRun.counted, bool(wrote))
    every: list[Any] = [mine]
    if run.process.count > 1:
        every = [None] * run.process.count
        torch.distributed.all_gather_object(every, mine)
    report |= {
        "losses": list(outcome.losses.values()),
        "eval_losses": list(outcome.eval_losses.values()),
        "processes": run.process.count,
        "mask_sums": [one for one, _ in every],
        "writers": [writer for _, writer in every],
    }
    if run.process.first:
        (folder / name / "report.json").write_text(json.dumps(report))
    return report


class SharedRun(Run):
    """A run on the first samples of the recording, in order, over and over."""

    counted = 0.0  # real action values in this process's share of a batch

    def loader(self, processor: Any, lanes: int) -> Callable[[int], Any]:
        micro = self.options.micro_batch(self.process.count)
        sources = [recording.training for recording in self.recordings]
        stream = SampleStream(sources, processor, seed=0, batch_size=micro, train=False, lanes=1)
        samples = list(islice(iter(stream), BATCH))
        # By the numbers that the trainer gives them: part by part, and in each one process after the other.
        firsts = range(self.process.rank * micro, BATCH, self.process.count * micro)
        mine = [collate(samples[first : first + micro]) for first in firsts]
        SharedRun.counted = sum(float(part["action_mask"].sum()) for part in mine)
        return lambda start: Endless(mine)

    def evaluation(self, processor: Any) -> Callable[[], Iterator[dict[str, Any]]]:
        loader = self.loader(processor, 1)
        return lambda: islice(iter(loader(0)), 2 * self.options.accumulate)


class Endless:
    """The parts of a batch over and over: it has no length, as a loader of a stream."""

    def __init__(self, parts: list[dict[str, Any]]) -> None:
        self._parts = parts

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for part in cycle(self._parts):
            yield dict(part)


class Look(TrainerCallback):
    """Keeps the gradients of the first step, averaged by now, their norms at each, and what kind of things
    the run is made of."""

    def __init__(self, folder: Path, report: dict[str, Any]) -> None:
        self._folder, self._report = folder, report
        self._gradients: dict[str, torch.Tensor] = {}

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any, **more: Any) -> None:
        if state.global_step == 0:
            kept = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
            self._gradients = kept

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **more: Any) -> None:
        if "grad_norm" not in logs:
            return
        norm = float(logs["grad_norm"])
        self._report.setdefault("norms", []).append(norm)
        if self._gradients and args.process_index == 0:
            # What clipping did is undone.
            factor = max(norm / args.max_grad_norm, 1.0)
            torch.save({n: g * factor for n, g in self._gradients.items()}, self._folder / "gradients.pt")
            self._gradients.clear()

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any, **more: Any) -> None:
        self._report["optimizer"] = type(more["optimizer"]).__name__
        self._report["types"] = {
            kind: sorted({str(p.dtype) for p in model.parameters() if p.requires_grad is trained})
            for kind, trained in (("frozen", False), ("trained", True))
        }


def _without_compiling() -> None:
    """DeepSpeed would compile an operation for processes on one CPU when it starts; it works without."""
    try:
        # Not `import deepspeed.comm.torch`: by that name the package has torch itself.
        backend: Any = import_module("deepspeed.comm.torch")
    except ImportError:
        return
    backend.build_shm_op = lambda: None


if __name__ == "__main__":
    _without_compiling()
    for text in sys.argv[2:]:
        train(Path(sys.argv[1]), **json.loads(text))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
