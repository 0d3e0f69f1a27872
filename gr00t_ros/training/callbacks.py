# SPDX-License-Identifier: Apache-2.0
"""What is shown while a run trains, and how it is asked to stop."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TextIO

from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from gr00t_ros.training.trainer import Interruption

# Seconds between two lines where stderr is no terminal: a log file should not fill up with them.
LOG_INTERVAL = 15.0
# Signals within this many seconds are one wish: Ctrl-C reaches the processes of torchrun from the terminal,
# and then a second time from torchrun.
ONE_WISH_S = 2.0


class ProgressLine(TrainerCallback):
    """Loss, learning rate, samples a second and time left: a bar on a terminal, a line now and then in a log.

    The rate is that since the last line, and the time left follows from the mean since the start.
    """

    def __init__(self, batch_size: int, stream: TextIO | None = None, interval: float = LOG_INTERVAL) -> None:
        self._batch = batch_size
        self._stream = stream or sys.stderr
        self._interval = interval
        self._bar: tqdm[Any] | None = None
        self._start = self._shown = (0.0, 0)
        self._latest: dict[str, float] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any
    ) -> None:
        """Starts the clock."""
        self._start = self._shown = (time.monotonic(), state.global_step)
        if state.is_world_process_zero and self._stream.isatty():
            done, total = state.global_step, state.max_steps
            self._bar = tqdm(total=total, initial=done, file=self._stream, unit="step", desc="training")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **more: Any,
    ) -> None:
        """Keeps the figures for the next line."""
        self._latest.update(logs or {})
        if "eval_loss" in (logs or {}) and state.is_world_process_zero:
            self._write(
                f"step {state.global_step}: loss on held-out episodes {self._latest['eval_loss']:.4g}"
            )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any
    ) -> None:
        """Shows them."""
        if not state.is_world_process_zero:
            return
        now = time.monotonic()
        if self._bar is not None:
            self._bar.set_postfix_str(self._figures(now, state, left=False), refresh=False)
            self._bar.update(state.global_step - self._bar.n)
        elif now - self._shown[0] >= self._interval or state.global_step == state.max_steps:
            self._write(f"step {state.global_step}/{state.max_steps}: {self._figures(now, state, left=True)}")
        else:
            return
        self._shown = (now, state.global_step)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any
    ) -> None:
        """Closes the bar."""
        if self._bar is not None:
            self._bar.close()

    def _figures(self, now: float, state: TrainerState, *, left: bool) -> str:
        parts = []
        if "loss" in self._latest:
            parts.append(f"loss {self._latest['loss']:.4g}")
        if "pointing_accuracy" in self._latest:
            parts.append(f"pointing {self._latest['pointing_accuracy']:.0%}")
        if "learning_rate" in self._latest:
            parts.append(f"learning rate {self._latest['learning_rate']:.3g}")
        since, step = self._shown
        parts.append(f"{(state.global_step - step) * self._batch / max(now - since, 1e-9):.3g} samples/s")
        began, first = self._start
        if left and state.global_step > first:
            seconds = (now - began) / (state.global_step - first) * (state.max_steps - state.global_step)
            parts.append(f"{timedelta(seconds=round(seconds))} left")
        return ", ".join(parts)

    def _write(self, line: str) -> None:
        if self._bar is not None:
            self._bar.write(line, file=self._stream)
        else:
            print(line, file=self._stream, flush=True)


class OwnIntervals(TrainerCallback):
    """Saves, evaluates and logs as often as this start says, not as often as the one that a run was begun
    with: the library takes those from the checkpoint."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any
    ) -> None:
        """When the checkpoint has been read."""
        state.compute_steps(args, state.max_steps)


class StopWhenAsked(TrainerCallback):
    """Ends the run after the step under way, with a checkpoint, once all processes know that it is to end."""

    def __init__(self, interruption: Interruption) -> None:
        self._interruption = interruption

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any
    ) -> None:
        """Here and not before: the library resets the wish to save when a step begins."""
        if self._interruption.agreed:
            control.should_save = control.should_training_stop = True


@contextmanager
def stoppable(interruption: Interruption) -> Iterator[None]:
    """SIGINT and SIGTERM ask the run to stop after its step; another one, later, ends it at once."""
    first = 0.0

    def ask(*_: Any) -> None:
        nonlocal first
        now = time.monotonic()
        if not interruption.asked:
            interruption.asked, first = True, now
        elif now - first > ONE_WISH_S:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
