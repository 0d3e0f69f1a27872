# SPDX-License-Identifier: Apache-2.0
"""transformers' Trainer with this network's batches, loss, evaluation and checkpoints.

The loop, the optimizer, the schedule and the distribution over GPUs are the library's. What is replaced is
small: where batches come from (they resume by number), how the loss of a batch is put together from its parts
(exactly), and how a checkpoint appears (whole or not at all).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback, TrainerCallback, TrainerControl

from gr00t_model import Gr00tN1d6
from gr00t_model.errors import CheckpointError
from gr00t_model.network.action_head import MASK_EPS
from gr00t_model.network.inputs import Checked, check
from gr00t_model.tensor_files import Spec, write_tensors
from gr00t_ros.training import saving
from gr00t_ros.training.collate import to_device
from gr00t_ros.training.deploying import Deployment
from gr00t_ros.training.loader import workers_explained
from gr00t_ros.training.noise import EVALUATION, noise_and_time, sample_numbers
from gr00t_ros.training.options import TrainingError
from gr00t_ros.training.pointing import HEAD, NOWHERE, Pointed, PointingCount, figures, pointed

Batch = dict[str, Any]
# Batches of the run from a number on, and those of the evaluation.
TrainLoader = Callable[[int], "DataLoader[Any]"]
EvalLoader = Callable[[], "Iterator[Batch]"]


@dataclass
class Interruption:
    """Whether somebody asked the run to stop: ``asked`` of this process, by a signal; ``agreed`` among all,
    who must stop at the same step."""

    asked: bool = False
    agreed: bool = False


class Finetuner(Trainer):
    """A run.

    Args:
        loader: makes the loader of training batches, from the batch with this number on.
        evaluation: makes the batches to evaluate on, the same ones each time; None for none.
        deployment: writes what a policy loads into each checkpoint.
        start_step: the step that the run is gone on from.
        interruption: looked at once a step.
        pointing_weight: of the pointing loss, where the network has that head.
        noise_samples: draws of noise and time for each sample of a batch.
    """

    control: TrainerControl

    def __init__(
        self,
        model: Gr00tN1d6,
        arguments: TrainingArguments,
        *,
        loader: TrainLoader,
        evaluation: EvalLoader | None,
        deployment: Deployment,
        keep: int,
        start_step: int = 0,
        interruption: Interruption | None = None,
        callbacks: list[TrainerCallback] | None = None,
        pointing_weight: float = 1.0,
        noise_samples: int = 1,
    ) -> None:
        self._loader = loader
        self._evaluation = evaluation
        self._deployment = deployment
        self._keep = keep
        self._start_step = start_step
        self._interruption = interruption or Interruption()
        self._last_log = (time.monotonic(), start_step)
        self._points: torch.nn.Module | None = getattr(model, HEAD, None)
        self._pointing_weight = pointing_weight
        self._noise_samples = noise_samples
        self._pointing_count = PointingCount()
        self._pointed_samples = 0.0  # of the step's batch, over all parts and processes
        # The library wants to see something to evaluate on, and leaves it to `evaluate` below.
        super().__init__(model, arguments, eval_dataset=evaluation, callbacks=callbacks)
        self.remove_callback(PrinterCallback)
        # The loss that compute_loss returns is that of the whole batch already, all parts and processes.
        self.model_accepts_loss_kwargs = True
        # Dropout and state noise are to differ between processes; the library gives all the same seed.
        set_seed(arguments.seed + arguments.process_index)

    @property
    def output(self) -> Path:
        """The run's folder."""
        return Path(str(self.args.output_dir))

    # ---- batches ---------------------------------------------------------------------------------

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches from where the run goes on. Each process makes its own: nothing is left to be shared."""
        return self._loader(self._start_step * self.args.gradient_accumulation_steps)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Batch], num_batches: int, *others: Any, **more: Any
    ) -> tuple[list[Batch], Tensor]:
        """The parts of one step's batch with their noise and times, and how many numbers the loss of the
        whole batch is the mean of."""
        args = self.args
        batches = [next(epoch_iterator) for _ in range(num_batches)]
        first = self.state.global_step * args.gradient_accumulation_steps
        for part, batch in enumerate(batches):
            size = len(batch["state"])
            numbers = sample_numbers(first + part, args.process_index, args.world_size, size)
            batch.update(self._drawn(batch, numbers))
        real = sum(batch["action_mask"].sum(dtype=torch.float64) for batch in batches)
        counted = float(real) * self._noise_samples
        labelled = float(sum((batch[HEAD][:, 0] != NOWHERE).sum() for batch in batches if HEAD in batch))
        total, stopping, self._pointed_samples = self._sum_over_processes(
            counted, float(self._interruption.asked), labelled
        )
        self._interruption.agreed = stopping > 0
        return batches, torch.tensor(total, dtype=torch.float32, device=args.device)

    def _drawn(self, batch: Batch, numbers: range) -> Batch:
        horizon = batch["action"].shape[1]
        noise, times = noise_and_time(
            self._deployment.config, self.args.seed, numbers, horizon, self._noise_samples
        )
        return {"noise": noise, "time": times}

    def _sum_over_processes(self, *values: float) -> list[float]:
        """Of all processes, the same on each; the only exchange of a step besides the gradients."""
        if self.args.world_size == 1:
            return list(values)
        summed = torch.tensor(values, dtype=torch.float64, device=self.args.device)
        torch.distributed.all_reduce(summed)
        return summed.tolist()

    def _prepare_inputs(self, inputs: Batch) -> Batch:
        # Here, while they are in main memory: on a GPU the host would wait for it to see their values.
        seen = check(inputs, self.model.config, training=True, raw_pixels=True)
        return to_device({**inputs, **seen}, self.args.device)

    # ---- loss ------------------------------------------------------------------------------------

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """A part's share of the network's loss for the whole batch.

        The network's loss is a sum over real actions, divided by their number. Divided by the number in all
        parts and processes instead, the shares add up to the loss of the batch as if it were computed in one
        go, however unevenly real actions are spread over them.
        """
        given = Checked({name: value for name, value in inputs.items() if name not in ("noise", "time")})
        results = model(given, inputs["noise"], inputs["time"])
        if num_items_in_batch is None:
            loss = results["loss"]
        else:
            # Gradients are averaged over the processes, so each counts its share so many times.
            share = results["action_loss"].sum() * self.args.world_size
            loss = share / (num_items_in_batch + MASK_EPS)
        if self._points is not None:
            result = self._pointed(inputs, results)
            share = result.loss * self.args.world_size / max(self._pointed_samples, 1.0)
            loss = loss + self._pointing_weight * share
        return (loss, results) if return_outputs else loss

    def _pointed(self, inputs: Batch, results: Mapping[str, Tensor]) -> Pointed:
        is_image = inputs["input_ids"] == self._deployment.config.image_token_id
        assert self._points is not None
        result = pointed(self._points, results["backbone_features"], is_image, inputs[HEAD])
        self._pointing_count.add(result)
        return result

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: the library's estimate is that of a language model."""
        return 0

    # ---- evaluation ------------------------------------------------------------------------------

    def evaluate(self, *others: Any, **more: Any) -> dict[str, float]:
        """The loss on the held-out episodes: the same samples, noise and times at every evaluation."""
        if self._evaluation is None:
            return {}
        args, model = self.args, self.model_wrapped
        model.eval()
        summed = counted = 0.0
        in_training, self._pointing_count = self._pointing_count, PointingCount()
        devices = [args.device] if args.device.type == "cuda" else []
        # Dropout of the state belongs to the loss, and must not disturb the training's random numbers.
        with torch.no_grad(), torch.random.fork_rng(devices):
            set_seed(args.seed + args.process_index)
            for number, batch in enumerate(self._evaluation()):
                size = len(batch["state"])
                numbers = sample_numbers(number, args.process_index, args.world_size, size)
                drawn = self._drawn(batch, range(EVALUATION + numbers.start, EVALUATION + numbers.stop))
                inputs = self._prepare_inputs({**batch, **drawn})
                _, results = self.compute_loss(model, inputs, return_outputs=True)
                summed += float(results["action_loss"].sum(dtype=torch.float64))
                counted += float(results["action_mask"].sum(dtype=torch.float64))
        model.train()
        total, count, *pointing = self._sum_over_processes(summed, counted, *self._pointing_count.take())
        self._pointing_count = in_training
        metrics = {"eval_loss": total / (count + MASK_EPS), **figures(pointing, "eval_")}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    # ---- logs ------------------------------------------------------------------------------------

    def log(self, logs: dict[str, float], *others: Any, **more: Any) -> None:
        """As the library, with samples a second; a loss that is no number ends the run.

        Raises:
            TrainingError: the loss is not finite.
        """
        loss = logs.get("loss")
        if loss is not None:
            self._check_finite(loss)
            before, step = self._last_log
            self._last_log = (time.monotonic(), self.state.global_step)
            samples = (self.state.global_step - step) * self.batch_size
            pointing = self._sum_over_processes(*self._pointing_count.take())
            speed = samples / max(self._last_log[0] - before, 1e-9)
            logs = {**logs, **figures(pointing), "samples_per_second": speed}
        super().log(logs, *others, **more)

    @property
    def batch_size(self) -> int:
        """Samples of a step, over all processes."""
        args = self.args
        return args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size

    def _check_finite(self, loss: float) -> None:
        if loss != loss or loss in (float("inf"), float("-inf")):
            raise self._diverged(f"the loss is {loss}")

    def _check_weights(self, model: torch.nn.Module) -> None:
        """They tell what no log need have shown: a loss or a gradient that was not finite at any step before.
        All processes have the same, and come to the same answer."""
        trained = [value for value in model.parameters() if value.requires_grad]
        finite = torch.stack([value.detach().isfinite().all() for value in trained])
        if not bool(finite.all()):
            raise self._diverged("a weight is no finite number")

    def _diverged(self, what: str) -> TrainingError:
        return TrainingError(
            f"{what} near step {self.state.global_step}; begin a new run with a lower --learning-rate, from "
            "--base set to the last checkpoint in this one's folder"
        )

    # ---- checkpoints -----------------------------------------------------------------------------

    def _get_output_dir(self, trial: Any = None) -> str:
        """Where the library writes: beside the checkpoints, until one is whole."""
        return str(self.output / saving.PARTIAL)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any = None) -> None:
        step = self.state.global_step
        self._check_weights(model)
        partial = self.output / saving.PARTIAL
        if self.args.should_save:
            shutil.rmtree(partial, ignore_errors=True)
        self._meet()
        try:
            with workers_explained():  # one that is killed meanwhile is not the disk's fault
                super()._save_checkpoint(model, trial)
                self._meet()
                if self.args.should_save:
                    saving.publish(saving.folder(partial, step), saving.folder(self.output, step))
        except (
            OSError,
            RuntimeError,
            CheckpointError,
        ) as error:  # torch has no type of its own for a full disk
            shutil.rmtree(partial, ignore_errors=True)
            raise TrainingError(
                f"the checkpoint of step {step} cannot be written to {self.output}: {error}; those before it "
                "are kept, and --resume goes on from the newest"
            ) from error
        if self.args.should_save:
            shutil.rmtree(partial, ignore_errors=True)
            saving.prune(self.output, self._keep, step)
        self._meet()

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """What is trained, as it is, to go on from; and the whole network as it is deployed."""
        if not self.args.should_save:
            return
        directory = Path(output_dir or self.output)
        self._deployment.write(self.model, directory, self.state.global_step)
        save_trained(self.model, directory / saving.TRAINED_FILE)

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: torch.nn.Module | None = None
    ) -> None:
        load_trained(self.model, Path(resume_from_checkpoint) / saving.TRAINED_FILE)

    def _meet(self) -> None:
        """Wait for all processes."""
        self.args.distributed_state.wait_for_everyone()


def save_trained(model: torch.nn.Module, path: Path) -> None:
    """Everything that is trained, in its own type, one tensor after the other."""
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    specs = [Spec(name, parameter.dtype, tuple(parameter.shape)) for name, parameter in trained.items()]
    write_tensors(path, specs, lambda spec: trained[spec.name])


def load_trained(model: torch.nn.Module, path: Path) -> None:
    """Put saved values back.

    Raises:
        TrainingError: the file holds other parameters than this run trains.
    """
    stored: Mapping[str, Tensor] = load_file(path)
    wanted = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if stored.keys() != wanted.keys():
        other = sorted(stored.keys() ^ wanted.keys())
        raise TrainingError(
            f"{path} holds other parameters than this run trains ({other[0]} and {len(other) - 1} more); "
            "repeat the options of the run"
        )
    with torch.no_grad():
        for name, parameter in wanted.items():
            parameter.copy_(stored[name])
