# SPDX-License-Identifier: Apache-2.0
"""What a run does on its way: learns, reports, notices what is wrong, stops when asked."""

from __future__ import annotations

import io
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import TrainerControl, TrainerState

from gr00t_model import Gr00tPolicy, Gr00tProcessor
from gr00t_model.checkpoint import check_files, load_model
from gr00t_ros.errors import DatasetError
from gr00t_ros.robot import RobotConfig
from gr00t_ros.training import callbacks, running
from gr00t_ros.training.callbacks import ProgressLine
from gr00t_ros.training.options import LoraOptions, Options, TrainingError
from gr00t_ros.training.running import Run
from gr00t_ros.training.stream import SampleStream
from gr00t_ros.training.trainer import Finetuner, Interruption
from support_training import base, options, recording, run, trained

torch.set_num_threads(1)


def test_the_loss_falls(tmp_path: Path) -> None:
    """On so little data a tiny network learns it by heart, here with adapters and the transformer; what is
    deployed has the adapters' change in the network's own tensors."""
    chosen = options(
        tmp_path / "run",
        base=str(base(dropout=0.0)),
        steps=40,
        save_every=40,
        learning_rate=5e-3,
        lora=LoraOptions(parts=("backbone",), rank=4),
        eval_episodes=1,
        eval_every=20,
    )
    outcome = run(chosen)
    losses = list(outcome.losses.values())
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])
    assert list(outcome.eval_losses) == [20, 40]
    assert check_files(chosen.output) == []
    before, after = (load_model(path).state_dict() for path in (base(dropout=0.0), chosen.output))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert "backbone.model.language_model.model.layers.0.self_attn.q_proj.weight" in changed
    assert not any("vision_model" in name or "embed_tokens" in name for name in changed)


def test_a_loss_that_is_no_number_ends_the_run_and_is_never_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = options(tmp_path / "run", save_every=2, log_every=2)
    compute = Finetuner.compute_loss

    def broken(self: Finetuner, *given: Any, **more: Any) -> Any:
        loss = compute(self, *given, **more)
        return loss * float("nan") if self.state.global_step == 3 else loss

    monkeypatch.setattr(Finetuner, "compute_loss", broken)
    with pytest.raises(
        TrainingError, match=r"the loss is nan near step 4; begin a new run with a lower --learn"
    ):
        run(chosen)
    assert [path.name for path in chosen.output.glob("checkpoint-*")] == ["checkpoint-2"]


def test_weights_that_are_no_numbers_are_never_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was logged since, and the loss itself was finite: a gradient was not."""
    chosen = options(tmp_path / "run", save_every=2, log_every=6)
    step = Finetuner.training_step

    def broken(self: Finetuner, model: torch.nn.Module, *given: Any, **more: Any) -> Any:
        loss = step(self, model, *given, **more)
        if self.state.global_step == 3:
            next(p for p in model.parameters() if p.grad is not None).grad[:] = float("inf")
        return loss

    monkeypatch.setattr(Finetuner, "training_step", broken)
    with pytest.raises(TrainingError, match="a weight is no finite number near step 4; begin a new run"):
        run(chosen)
    assert [path.name for path in chosen.output.glob("checkpoint-*")] == ["checkpoint-2"]


def test_held_out_episodes_are_looked_at_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at the first evaluation, which comes before the first checkpoint is written."""
    folder = tmp_path / "set"
    shutil.copytree(recording(), folder)
    spoil(folder, episode=1)
    monkeypatch.setattr(running, "build_network", lambda *given, **more: pytest.fail("was built"))
    for changes in ({"eval_episodes": 1}, {"statistics": "base"}):
        with pytest.raises(
            DatasetError, match=r"episode 1, row 2: value 3 of action is nan.*skip-episodes 1"
        ):
            run(options(tmp_path / "run", datasets=(str(folder),), **changes))
    (folder / "videos/chunk-000/observation.images.wrist/episode_000001.mp4").unlink()
    with pytest.raises(DatasetError, match=r"episode_000001.mp4: missing; it should hold a part of"):
        run(options(tmp_path / "run", datasets=(str(folder),), eval_episodes=1))


def test_the_evaluation_s_stream_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    class Counted(SampleStream):
        def __init__(self, *given: Any, **more: Any) -> None:
            opened.append(more.get("train", True))
            super().__init__(*given, **more)

    monkeypatch.setattr(running, "SampleStream", Counted)
    outcome = run(options(tmp_path / "run", steps=3, save_every=1, eval_episodes=1))
    assert len(outcome.eval_losses) == 3
    assert sorted(opened) == [False, True]


def test_adapters_begin_as_the_seed_says(tmp_path: Path) -> None:
    """Whatever random numbers were taken before."""
    found = []
    for number in range(2):
        torch.manual_seed(number)
        lora = LoraOptions(parts=("dit",), rank=2)
        run(options(tmp_path / str(number), base=str(base(dropout=0.0)), steps=1, save_every=1, lora=lora))
        found.append(trained(tmp_path / str(number) / "checkpoint-1"))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def spoil(folder: Path, episode: int) -> None:
    """One action that is not a number."""
    path = folder / f"data/chunk-000/episode_{episode:06d}.parquet"
    table = pq.read_table(path)
    values = table["action"].to_pylist()
    values[2][3] = float("nan")
    column = pa.array(values, table["action"].type)
    pq.write_table(table.set_column(table.column_names.index("action"), "action", column), path)


def test_a_run_that_is_asked_to_stop_keeps_its_last_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = options(tmp_path / "run", steps=50, save_every=50)
    take = Finetuner.get_batch_samples

    def ask(self: Finetuner, *given: Any, **more: Any) -> Any:
        self._interruption.asked = self.state.global_step >= 4
        return take(self, *given, **more)

    with monkeypatch.context() as patched:
        patched.setattr(Finetuner, "get_batch_samples", ask)
        outcome = run(chosen)
    assert (outcome.step, outcome.finished) == (5, False)
    assert [path.name for path in chosen.output.glob("checkpoint-*")] == ["checkpoint-5"]
    assert not (chosen.output / "config.json").exists()
    # Each checkpoint is one that the policy loads.
    policy = Gr00tPolicy(chosen.output / "checkpoint-5", "new_embodiment", device="cpu")
    assert policy.horizon == 16


def test_reports_go_to_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    chosen = options(tmp_path / "run", steps=2, save_every=2, eval_episodes=1, report_to=("tensorboard",))
    outcome = run(chosen)
    (events,) = chosen.output.glob("runs/*")
    seen = EventAccumulator(str(events)).Reload()
    found = {event.step: event.value for event in seen.Scalars("train/loss")}
    assert found == pytest.approx(outcome.losses)
    assert {"train/learning_rate", "train/samples_per_second", "eval/loss"} <= set(seen.Tags()["scalars"])


@pytest.mark.parametrize("noise_samples", [1, 3])
def test_parts_of_a_batch_add_up_to_it(tmp_path: Path, noise_samples: int) -> None:
    """Accumulation changes memory and nothing else; the samples of a step are then others, so one step of the
    same samples is compared."""
    found = []
    for parts in (1, 4):
        chosen = options(
            tmp_path / f"{parts}",
            base=str(base(dropout=0.0)),
            steps=1,
            save_every=1,
            accumulate=parts,
            noise_samples=noise_samples,
            warmup=0.0,  # else the only step has a rate of zero
            # So short that AdamW's epsilon is more than an element: its step, else a gradient's sign, is then
            # in proportion to it.
            clip=1e-6,
            learning_rate=1.0,
        )
        run_of = _SameSamples.prepare(chosen)
        outcome = run_of.execute(tell=lambda _: None)
        found.append((outcome.losses[1], trained(chosen.output / "checkpoint-1")))
    (loss, weights), (other_loss, others) = found
    assert loss == pytest.approx(other_loss, rel=1e-5)
    start = load_model(base(dropout=0.0)).state_dict()
    steps, other_steps = (
        torch.cat([(values[name] - start[name]).flatten() for name in weights])
        for values in (weights, others)
    )
    assert float((steps - other_steps).norm()) < 1e-3 * float(steps.norm())


class _SameSamples(Run):
    """The first four samples, however many are taken at a time."""

    def loader(self, processor: Any, lanes: int) -> Any:
        whole = replace(self, options=replace(self.options, accumulate=1))
        batch = next(iter(Run.loader(whole, processor, 1)(0)))
        size = self.options.micro_batch(1)
        names = ("input_ids", "attention_mask", "state", "action", "action_mask", "embodiment_id")
        parts = [
            {
                **{name: batch[name][first : first + size] for name in names},
                "pixel_values": batch["pixel_values"][2 * first : 2 * (first + size)],
            }
            for first in range(0, 4, size)
        ]
        return lambda start: parts


def test_progress_in_a_log(tmp_path: Path) -> None:
    """Loss, learning rate, rate and time left, in one line; more than one only after a while."""
    stream = io.StringIO()
    line = ProgressLine(batch_size=64, stream=stream, interval=0.0)
    arguments = SimpleNamespace()
    control = TrainerControl()
    state = TrainerState(global_step=0, max_steps=100, is_world_process_zero=True)
    line.on_train_begin(arguments, state, control)
    line.on_log(arguments, state, control, logs={"loss": 0.51234, "learning_rate": 9.8e-5})
    state.global_step = 10
    line.on_step_end(arguments, state, control)
    pattern = r"step 10/100: loss 0\.5123, learning rate 9\.8e-05, \S+ samples/s, \d+:\d\d:\d\d left\n"
    assert re.fullmatch(pattern, stream.getvalue())
    quiet = io.StringIO()
    seldom = ProgressLine(batch_size=64, stream=quiet, interval=1e6)
    seldom.on_train_begin(arguments, state, control)
    for state.global_step in range(11, 101):
        seldom.on_step_end(arguments, state, control)
    assert quiet.getvalue().count("\n") == 1
    other = TrainerState(global_step=100, max_steps=100, is_world_process_zero=False)
    seldom.on_step_end(arguments, other, control)
    assert quiet.getvalue().count("\n") == 1


def test_progress_on_a_terminal() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    line = ProgressLine(batch_size=64, stream=stream)
    control, arguments = TrainerControl(), SimpleNamespace()
    state = TrainerState(global_step=0, max_steps=3, is_world_process_zero=True)
    line.on_train_begin(arguments, state, control)
    line.on_log(arguments, state, control, logs={"loss": 0.5, "eval_loss": 0.75})
    for state.global_step in (1, 2, 3):
        line.on_step_end(arguments, state, control)
    line.on_train_end(arguments, state, control)
    assert "step 0: loss on held-out episodes 0.75" in stream.getvalue()
    assert "3/3" in stream.getvalue()


def test_lengths_of_a_run() -> None:
    fine = Options(datasets=("d",), base="tiny", output=Path("o"))
    assert (fine.total_steps, fine.warmup_steps, fine.saving_interval) == (10_000, 500, 1000)
    anew = Options(datasets=("d",), base="tiny", output=Path("o"), from_scratch=True)
    assert (anew.total_steps, anew.warmup_steps) == (30_000, 1500)
    # Rounded up, as the library does with a share.
    assert [replace(fine, steps=steps).warmup_steps for steps in (1, 250)] == [1, 13]
    assert fine.micro_batch(4) == 16


def test_signals_at_once_are_one_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the terminal and of torchrun; a later one is from somebody who has lost patience."""
    now = [100.0]
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: now[0])
    interruption = Interruption()
    before = signal.getsignal(signal.SIGTERM)
    with callbacks.stoppable(interruption):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert interruption.asked
        now[0] += callbacks.ONE_WISH_S + 1.0
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before


def test_from_scratch_on_two_embodiments(tmp_path: Path) -> None:
    """Everything is trained, and each embodiment its own weights."""
    chosen = options(
        tmp_path / "run",
        datasets=(f"{recording()}:left_robot", f"{recording()}:right_robot:3"),
        from_scratch=True,
        steps=2,
        save_every=2,
        learning_rate=1e-2,
        state_dropout=0.2,
        state_noise=0.1,
    )
    run(chosen)
    processor = Gr00tProcessor.from_pretrained(chosen.output)
    numbers = {tag: processor.embodiment_id(tag) for tag in ("left_robot", "right_robot")}
    model = load_model(chosen.output)
    assert model.config.state_dropout_prob == 0.2
    biases = model.action_head.action_decoder.layer2.b
    assert all(bool(biases[number].any()) for number in numbers.values())
    assert not biases[5].any()
    assert sorted(path.name for path in chosen.output.glob("robot*.yaml")) == [
        "robot_left_robot.yaml",
        "robot_right_robot.yaml",
    ]
    for tag in numbers:
        assert RobotConfig.from_file(chosen.output / f"robot_{tag}.yaml").embodiment_tag == tag
    vision = "backbone.model.mlp1.1.weight"
    assert not torch.equal(model.state_dict()[vision], load_model(base()).state_dict()[vision])
