# SPDX-License-Identifier: Apache-2.0
"""Training samples a second: fed by the data pipeline, and the same step on one batch without loading data.

    python bench/training.py [--preset small] [--batch N] [--steps N] [--workers N...] [--device auto]
        [--dataset DIR] [--gradient-checkpointing] [--optimizer adamw_8bit] [--lora PART...] [--json FILE]

Goes through the trainer that ``finetune`` uses: mixed precision, clipping and optimizer included, checkpoints
not. The first steps are not counted. Without --dataset, a recording of two 640x480 cameras is made up. "cpu"
is processor time of the training process for one sample; that of workers is not in it. On a GPU the memory at
its highest is shown beside what is counted before activations.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from dataset_loading import made_up
from transformers import TrainerCallback
from transformers.utils import logging as transformers_logging

from gr00t_model import Gr00tProcessor
from gr00t_model.errors import Gr00tError
from gr00t_ros.errors import Gr00tRosError
from gr00t_ros.training import memory
from gr00t_ros.training.arguments import training_arguments
from gr00t_ros.training.deploying import Deployment
from gr00t_ros.training.network import build_network, outline, use_autocast
from gr00t_ros.training.options import LoraOptions, Options
from gr00t_ros.training.preparing import prepare_processor
from gr00t_ros.training.running import Run
from gr00t_ros.training.trainer import Finetuner

# Steps before the counted ones: shards are opened, kernels chosen, optimizer states made.
WARM_UP = 2


@dataclass(frozen=True)
class Result:
    name: str
    samples_per_second: float
    step_ms: float
    cpu_ms_per_sample: float
    peak_memory_gb: float | None


class Cached:
    """One batch again and again."""

    def __init__(self, batch: dict[str, Any]) -> None:
        self._batch = batch

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while True:
            yield dict(self._batch)


class Stopwatch(TrainerCallback):
    """Wall and processor time of the counted steps."""

    def __init__(self, device: str) -> None:
        self._device = device
        self.began = self.ended = (0.0, 0.0)

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        if state.global_step in (WARM_UP, state.max_steps):
            if self._device == "cuda":
                torch.cuda.synchronize()
            now = (time.perf_counter(), processor_time())
            if state.global_step == WARM_UP:
                self.began = now
            else:
                self.ended = now


def processor_time() -> float:
    """Of all threads of this process."""
    return time.process_time()


def measure(
    name: str, run: Run, processor: Gr00tProcessor, loader: Callable[[int], Any], steps: int
) -> Result:
    """A row of the table. Nothing of it stays in memory: network and trainer hold themselves and each other,
    and would be there while the next one is measured."""
    try:
        return _measure(name, run, processor, loader, steps)
    finally:
        gc.collect()


def _measure(
    name: str, run: Run, processor: Gr00tProcessor, loader: Callable[[int], Any], steps: int
) -> Result:
    options, device = run.options, run.process.device_type
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    model = build_network(run.base, options, bf16=run.process.bf16)
    deployment = Deployment.of(model, processor, run.recordings, (), {}, torch.bfloat16)
    if run.process.bf16:
        use_autocast(model, device)
    watch = Stopwatch(device)
    arguments = training_arguments(options, run.process, run.optimizer, saving=False)
    trainer = Finetuner(
        model,
        arguments,
        loader=loader,
        evaluation=None,
        deployment=deployment,
        keep=1,
        callbacks=[watch],
    )
    trainer.train()
    wall, cpu = (after - before for before, after in zip(watch.began, watch.ended, strict=True))
    peak = torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else None
    samples = steps * options.batch_size
    return Result(name, samples / wall, 1e3 * wall / steps, 1e3 * cpu / samples, peak)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--preset", default="small", help="tiny, small, released, or a checkpoint (default: %(default)s)")
    add("--dataset", help="DIR[:TAG] of a LeRobot dataset (default: one is made up)")
    add("--robot", help="of that dataset, where it has no meta/robot.yaml")
    add("--batch", type=int, default=4, help="samples a step (default: %(default)s)")
    add("--accumulate", type=int, default=1, help="parts of a batch (default: %(default)s)")
    add("--steps", type=int, default=10, help="counted steps of each row (default: %(default)s)")
    add("--workers", type=int, nargs="+", default=[0, 1, 2], help="a row for each number (default: 0 1 2)")
    add("--device", default="auto", choices=("auto", "cpu", "cuda"))
    add("--precision", default="auto", choices=("auto", "bf16", "fp32"))
    add("--gradient-checkpointing", action="store_true")
    add("--optimizer", default="adamw", choices=("adamw", "adamw_8bit"))
    add("--lora", nargs="+", default=[], choices=("backbone", "dit"))
    add("--json", type=Path, help="write the figures to this file as well")
    given = parser.parse_args(argv)
    transformers_logging.set_verbosity_error()
    with tempfile.TemporaryDirectory(prefix="training_bench_") as folder:
        try:
            options = Options(
                datasets=(given.dataset or str(made_up(Path(folder))),),
                base=given.preset,
                output=Path(folder) / "run",
                robot=given.robot,
                steps=WARM_UP + given.steps,
                batch_size=given.batch,
                accumulate=given.accumulate,
                device=given.device,
                precision=given.precision,
                gradient_checkpointing=given.gradient_checkpointing,
                optimizer=given.optimizer,
                lora=LoraOptions(parts=tuple(given.lora)),
                report_to=(),
                log_every=10_000,
            )
            results, run = rows(options, given.workers, given.steps)
        except (Gr00tError, Gr00tRosError) as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
    model = outline(run.base, options, bf16=run.process.bf16)
    counted = memory.count(model, optimizer=options.optimizer)
    show(results, run, counted)
    if given.json:
        report = {
            "rows": [asdict(row) for row in results],
            "options": options.deciding(),
            "device": run.process.device_type,
            "gpu": torch.cuda.get_device_name() if run.process.device_type == "cuda" else None,
            "bf16": run.process.bf16,
            "threads": torch.get_num_threads(),
            "counted_gb": counted.total / 1e9,
            "cores": len(os.sched_getaffinity(0)),
            "python": platform.python_version(),
            "torch": torch.__version__,
        }
        given.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


def rows(options: Options, workers: list[int], steps: int) -> tuple[list[Result], Run]:
    run = Run.prepare(options)
    processor = prepare_processor(options, run.base, run.recordings, lambda line: None)
    batch = next(islice(iter(run.loader(processor, 1)(0)), 1))
    results = [measure("no loading", run, processor, lambda start: Cached(batch), steps)]
    for number in workers:
        one = replace(run, options=replace(options, workers=number))
        loader = one.loader(processor, max(1, number))
        results.append(measure(f"{number} workers", one, processor, loader, steps))
    return results, run


def show(results: list[Result], run: Run, counted: memory.Memory) -> None:
    options = run.options
    kind = "bf16 autocast" if run.process.bf16 else "float32"
    print(
        f"{options.base}, {counted.trained_parameters / 1e6:.1f} M of {counted.parameters / 1e6:.1f} M "
        f"parameters trained, batch {options.batch_size}, {kind}, {run.process.device_type}, "
        f"{len(os.sched_getaffinity(0))} cores, {torch.get_num_threads()} threads"
    )
    print(f"{'':<14}{'samples/s':>11}{'step':>12}{'cpu/sample':>13}{'of no loading':>15}{'memory':>11}")
    for row in results:
        share = row.samples_per_second / results[0].samples_per_second
        peak = "" if row.peak_memory_gb is None else f"{row.peak_memory_gb:8.2f} GB"
        print(
            f"{row.name:<14}{row.samples_per_second:>11.2f}{row.step_ms:>10.0f}ms{row.cpu_ms_per_sample:>11.0f}ms"
            f"{100 * share:>14.0f}%{peak:>11}"
        )
    print(f"counted before activations: {counted.total / 1e9:.2f} GB")


if __name__ == "__main__":
    sys.exit(main())
