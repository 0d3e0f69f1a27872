# SPDX-License-Identifier: Apache-2.0
"""A fine-tuning run from its options to the finished checkpoint: the order in which the parts come together.

Mistakes come up in the order of what they cost: options and files in seconds, then the statistics of the
data, then the weights, and only then the first step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import TrainerState
from transformers.utils import logging as transformers_logging

from gr00t_model import Gr00tN1d6, Gr00tProcessor
from gr00t_model.checkpoint import out_of_memory
from gr00t_ros.training import memory, saving
from gr00t_ros.training.arguments import training_arguments
from gr00t_ros.training.callbacks import OwnIntervals, ProgressLine, StopWhenAsked, stoppable
from gr00t_ros.training.deploying import Deployment, robot_files
from gr00t_ros.training.loader import training_loader, workers_explained
from gr00t_ros.training.network import (
    Base,
    build_network,
    open_base,
    outline,
    trained_parts,
    use_autocast,
)
from gr00t_ros.training.optimizers import optimizer_name
from gr00t_ros.training.options import RESOLVED, Options, TrainingError
from gr00t_ros.training.preparing import Recording, find_recordings, prepare_processor
from gr00t_ros.training.processes import Process, deepspeed_config, join
from gr00t_ros.training.provenance import checkpoint_hash, dataset_hash, describe, file_hash
from gr00t_ros.training.samples import DatasetSource
from gr00t_ros.training.stream import DEFAULT_OPEN_SHARDS, SampleStream
from gr00t_ros.training.trainer import Finetuner, Interruption

Tell = Callable[[str], None]
Batch = dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """How a run ended: the last step, whether it was all of them, and the losses by step."""

    step: int
    finished: bool
    losses: dict[int, float]
    eval_losses: dict[int, float]

    @classmethod
    def of(cls, state: TrainerState, total: int) -> Outcome:
        """What the trainer knows of it."""
        history = state.log_history
        return cls(
            step=state.global_step,
            finished=state.global_step >= total,
            losses={int(entry["step"]): float(entry["loss"]) for entry in history if "loss" in entry},
            eval_losses={int(e["step"]): float(e["eval_loss"]) for e in history if "eval_loss" in e},
        )

    @classmethod
    def read(cls, checkpoint: Path, total: int) -> Outcome:
        """As a checkpoint tells it."""
        return cls.of(TrainerState.load_from_json(str(checkpoint / saving.STATE_FILE)), total)


@dataclass(frozen=True)
class Begun:
    """What identifies the run's data, how many lanes its samples come in, and what it goes on from."""

    hashes: tuple[str, ...]
    base_hash: str
    lanes: int
    checkpoint: Path | None = None
    step: int = 0


@dataclass(frozen=True)
class Run:
    """A run that is ready: everything is found and checked, no weight is loaded."""

    options: Options
    process: Process
    base: Base
    recordings: tuple[Recording, ...]
    optimizer: str

    @classmethod
    def prepare(cls, options: Options) -> Run:
        """Looks for all that is needed.

        Raises:
            Gr00tRosError, Gr00tError, OSError: something is missing or does not fit.
        """
        process = join(options)
        options.micro_batch(process.count)
        optimizer = optimizer_name(options.optimizer, process.device_type)
        deepspeed_config(options.deepspeed)
        _check_reports(options.report_to)
        base = open_base(options.base)
        recordings = tuple(find_recordings(options))
        robot_files(recordings)  # that they can be written is not found out at the first checkpoint
        return cls(options, process, base, recordings, optimizer)

    def plan(self) -> list[str]:
        """What the run will take, in lines for people."""
        options, process = self.options, self.process
        model = outline(self.base, options, bf16=process.bf16)
        shared = process.count if options.deepspeed else None
        taken = memory.count(model, optimizer=options.optimizer, shared_among=shared)
        table = memory.lines(taken, optimizer=options.optimizer, processes=process.count)
        micro = options.micro_batch(process.count)
        return [
            *table,
            f"batch: {options.batch_size} = {process.count} processes x {options.accumulate} parts x {micro}",
            f"disk: {self._checkpoint_bytes() / 1e9:.2f} GB a checkpoint, {options.keep} kept and one in "
            "passing",
        ]

    def _checkpoint_bytes(self) -> int:
        model = outline(self.base, self.options, bf16=self.process.bf16)
        itemsize = getattr(torch, self.options.deployed_dtype).itemsize
        return memory.checkpoint_bytes(
            model,
            deployed_bytes=itemsize,
            optimizer=self.options.optimizer,
            deepspeed=bool(self.options.deepspeed),
        )

    def execute(
        self, *, resume: str | None = None, command: Sequence[str] = (), tell: Tell = print
    ) -> Outcome:
        """Train, to the end or until somebody asks to stop.

        Args:
            resume: None begins a run; "" goes on from the newest checkpoint, a name from that one.
            command: for the record.
            tell: is told what a person should know, one line at a time.

        Raises:
            Gr00tRosError, Gr00tError, OSError: something is missing or does not fit.
            KeyboardInterrupt: Ctrl-C a second time.
        """
        options, process = self.options, self.process
        say: Tell = tell if process.first else _silent
        transformers_logging.set_verbosity_error()
        # From here on the processes can exchange something.
        arguments = training_arguments(options, process, self.optimizer)
        begun = process.from_first(lambda: self._begin(resume, say))
        if begun.step >= options.total_steps and begun.checkpoint is not None:
            say(f"all {options.total_steps} steps are done already")
            return self._finished(Outcome.read(begun.checkpoint, options.total_steps))
        processor = process.from_first(lambda: self._processor(begun.checkpoint, say))
        evaluation = self.evaluation(processor)
        numbers = sorted({processor.embodiment_id(recording.tag) for recording in self.recordings})
        torch.manual_seed(options.seed)  # adapters start at random
        model = build_network(self.base, options, bf16=process.bf16, embodiments=numbers)
        say(f"{memory.trained_line(memory.count(model))} ({', '.join(trained_parts(model))})")
        deployment = self._deployment(model, processor, begun, command)
        if process.bf16:
            use_autocast(model, process.device_type)
        interruption = Interruption()
        trainer = Finetuner(
            model,
            arguments,
            loader=self.loader(processor, begun.lanes),
            evaluation=evaluation,
            deployment=deployment,
            keep=options.keep,
            start_step=begun.step,
            interruption=interruption,
            callbacks=[ProgressLine(options.batch_size), OwnIntervals(), StopWhenAsked(interruption)],
            pointing_weight=options.pointing_weight or 1.0,
            noise_samples=options.noise_samples,
        )
        with stoppable(interruption), explained(options), workers_explained():
            trainer.train(resume_from_checkpoint=begun.checkpoint and str(begun.checkpoint))
        return self._finished(Outcome.of(trainer.state, options.total_steps))

    def _finished(self, outcome: Outcome) -> Outcome:
        """Puts what is deployed into the run's folder once all steps are done."""
        if outcome.finished and self.process.first:
            saving.finish(saving.folder(self.options.output, outcome.step), self.options.output)
        return outcome

    # ---- parts -----------------------------------------------------------------------------------

    def _begin(self, resume: str | None, say: Tell) -> Begun:
        """The run's folder made or found, and what identifies its data. By the first process alone."""
        options, process = self.options, self.process
        hashes = tuple(dataset_hash(recording.path) for recording in self.recordings)
        base_hash = "" if self.base.directory is None else checkpoint_hash(self.base.directory)
        deciding = self._identity(hashes, base_hash)
        lanes = max(1, options.workers)
        if resume is None:
            saving.check_space(options.output, self._checkpoint_bytes(), options.keep)
            order = {"lanes": lanes, "processes": process.count}
            saving.begin(options.output, {"deciding": deciding, "order": order})
            saving.clear(options.output)
            return Begun(hashes, base_hash, lanes)
        before = saving.go_on(options.output, deciding)
        if before.get("processes") != process.count:
            self._other_processes(before.get("processes"), say)
        saving.clear(options.output)
        checkpoint, passed = saving.find_checkpoint(options.output, resume)
        for problem in passed:
            say(f"passed over: {problem}")
        step = saving.step_of(checkpoint)
        present = sum(one <= step for one in saving.checkpoint_steps(options.output))
        saving.check_space(options.output, self._checkpoint_bytes(), options.keep, present)
        say(f"going on from {checkpoint}")
        for path in saving.set_aside(options.output, step):
            say(f"{path}: set aside, for the run makes its own of that step; it can be deleted")
        return Begun(hashes, base_hash, int(before.get("lanes", lanes)), checkpoint, step)

    def _identity(self, hashes: Sequence[str], base_hash: str) -> dict[str, Any]:
        """What decides the numbers of the run, to know it again. Files count by what is in them, wherever
        they lie."""
        options = self.options
        values = {name: value for name, value in options.deciding().items() if name not in RESOLVED}
        for number, (recording, digest) in enumerate(zip(self.recordings, hashes, strict=True), 1):
            own = recording.identity()
            del own["path"]
            values |= {f"dataset {number}: {name}": value for name, value in own.items()}
            values[f"dataset {number}: {saving.CONTENTS}"] = digest
            if recording.robot_path is not None:
                values[f"dataset {number}: robot description's {saving.CONTENTS}"] = file_hash(
                    recording.robot_path
                )
        if self.base.directory is None:
            values["base"] = options.base
        else:
            values[f"base's {saving.CONTENTS}"] = base_hash
        values["deepspeed"] = deepspeed_config(options.deepspeed)
        return {**values, "precision": "bf16" if self.process.bf16 else "fp32"}

    def _other_processes(self, before: Any, say: Tell) -> None:
        if self.options.deepspeed:
            raise TrainingError(
                f"the run was begun with {before} processes, and DeepSpeed's checkpoints are cut for that "
                f"number; go on with {before}"
            )
        say(
            f"the run was begun with {before} processes and goes on with {self.process.count}: from here on "
            "it sees the samples in another order"
        )

    def _deployment(
        self, model: Gr00tN1d6, processor: Gr00tProcessor, begun: Begun, command: Sequence[str]
    ) -> Deployment:
        options, process = self.options, self.process
        datasets = [
            {**recording.identity(), "sha256": digest}
            for recording, digest in zip(self.recordings, begun.hashes, strict=True)
        ]
        record = describe(
            datasets=datasets,
            base=options.base,
            base_hash=begun.base_hash,
            command=command,
            options=options.deciding(),
            processes=process.count,
            device=process.device_type,
        )
        dtype = getattr(torch, options.deployed_dtype)
        return Deployment.of(model, processor, self.recordings, self.base.write_tokenizer, record, dtype)

    def _processor(self, checkpoint: Path | None, say: Tell) -> Gr00tProcessor:
        if checkpoint is not None:
            return Gr00tProcessor.from_pretrained(checkpoint)
        return prepare_processor(self.options, self.base, self.recordings, say)

    def loader(self, processor: Gr00tProcessor, lanes: int) -> Callable[[int], DataLoader[Any]]:
        """Makes this process's training batches, from the one with a given number on."""
        options, process = self.options, self.process
        sources = [recording.training for recording in self.recordings]

        def make(start_batch: int) -> DataLoader[Any]:
            open_shards = options.open_shards or DEFAULT_OPEN_SHARDS
            stream = self._stream(
                sources, processor, start_batch=start_batch, lanes=lanes, open_shards=open_shards
            )
            return training_loader(stream, options.workers, pin_memory=process.device_type == "cuda")

        return make

    def evaluation(self, processor: Gr00tProcessor) -> Callable[[], Iterator[Batch]] | None:
        """Makes its batches to evaluate on, the same each time; None where no episode is held out.

        Raises:
            DatasetError: files of the held-out episodes are missing.
        """
        options = self.options
        if not options.eval_episodes:
            return None
        sources = [recording.evaluation for recording in self.recordings]
        stream = self._stream(sources, processor, train=False, lanes=1)

        def batches() -> Iterator[Batch]:
            return islice(iter(training_loader(stream)), options.eval_batches)

        return batches

    def _stream(
        self, sources: Sequence[DatasetSource], processor: Gr00tProcessor, **more: Any
    ) -> SampleStream:
        options, process = self.options, self.process
        return SampleStream(
            sources,
            processor,
            seed=options.seed,
            batch_size=options.micro_batch(process.count),
            rank=process.rank,
            world_size=process.count,
            **more,
        )


def _check_reports(names: Sequence[str]) -> None:
    for name in names:
        if name not in ("tensorboard", "wandb"):
            raise TrainingError(f"--report-to {name}: expected tensorboard, wandb or none")
        if find_spec(name) is None:
            raise TrainingError(
                f"--report-to {name}: the package is not installed; pip install {name}, or --report-to none"
            )


@contextmanager
def explained(options: Options) -> Iterator[None]:
    """Memory that is not enough, as a sentence with what to do."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise TrainingError(
            f"memory is not enough for {options.batch_size // options.accumulate} samples at a time; try "
            f"--accumulate {2 * options.accumulate}, then --gradient-checkpointing, --optimizer adamw_8bit "
            "or --lora (docs/how-to/out_of_memory.md; --plan counts what a choice takes)"
        ) from error


def _silent(_: str) -> None:
    """Of several processes one talks."""
