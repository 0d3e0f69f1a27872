# SPDX-License-Identifier: Apache-2.0
"""``finetune``: a policy for a robot, learned from its recorded episodes.

Takes LeRobot datasets and a base checkpoint, and leaves a checkpoint that the policy node loads as it is:
weights, processor, statistics, robot description and where all of it comes from. Ctrl-C keeps a checkpoint,
and --resume goes on from it. Several GPUs: torchrun --nproc-per-node N -m gr00t_ros.cli.finetune ...
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from gr00t_ros.cli.subjects import INTERRUPTED, MISTAKES, explain, terminable

if TYPE_CHECKING:
    from gr00t_ros.training.options import Options
    from gr00t_ros.training.running import Outcome, Run


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0 when the run is finished, 1 for a mistake, 130 when it was interrupted."""
    given = _parser().parse_args(argv)
    command = ["finetune", *(sys.argv[1:] if argv is None else argv)]
    try:
        with terminable():
            run = _prepare(given)
            if given.plan:
                _print(run.plan())
                return 0
            outcome = run.execute(resume=given.resume, command=command, tell=_tell)
    except KeyboardInterrupt:
        _print([f"finetune: interrupted; {_kept(given.output)}"], sys.stderr)
        return INTERRUPTED
    except MISTAKES as error:
        # Of several processes each may have a mistake of its own: another disk, another GPU.
        number = os.environ.get("RANK", "0")
        print(
            explain("finetune" if number == "0" else f"finetune (process {number})", error), file=sys.stderr
        )
        return 1
    finally:
        _leave()
    if not outcome.finished:
        _print([f"finetune: interrupted at step {outcome.step}; {_kept(given.output)}"], sys.stderr)
        return INTERRUPTED
    _print(_summary(run, outcome))
    return 0


def _prepare(given: argparse.Namespace) -> Run:
    # torch and transformers take seconds to import; --help and a misspelt option need not wait for them.
    from gr00t_ros.training.running import Run

    _log_once()
    return Run.prepare(_options(given))


def _leave() -> None:
    """Out of the group of processes, where there is one."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def _print(lines: Sequence[str], file: TextIO | None = None) -> None:
    """Of several processes the first one talks."""
    if os.environ.get("RANK", "0") == "0":
        print("\n".join(lines), file=file or sys.stdout)


def _tell(line: str) -> None:
    """On the way, beside the progress; stdout is left for the result."""
    print(line, file=sys.stderr, flush=True)


def _log_once() -> None:
    """What is logged is shown once: a dataset is opened for its statistics, for samples, for evaluation."""
    seen: set[str] = set()
    handler = logging.StreamHandler()

    def unseen(entry: logging.LogRecord) -> bool:
        text = entry.getMessage()
        new = text not in seen
        seen.add(text)
        return new

    handler.addFilter(unseen)
    logging.getLogger("gr00t_ros").addHandler(handler)


def _summary(run: Run, outcome: Outcome) -> list[str]:
    options, recording = run.options, run.recordings[0]
    episodes = ",".join(map(str, recording.held_out))
    held_out = f" --episodes {episodes}" if episodes else ""
    text = [f"wrote {options.output}: {outcome.step} steps, loss {_course(outcome.losses)}"]
    if outcome.eval_losses:
        text.append(f"loss on held-out episodes: {_course(outcome.eval_losses)}")
    return [
        *text,
        "The folders checkpoint-* in it are for --resume and can go when they are no longer needed. Next:",
        f"  evaluate --checkpoint {options.output} --dataset {recording.path}{held_out}",
    ]


def _course(losses: Mapping[int, float]) -> str:
    values = list(losses.values())
    return f"{values[0]:.4g} at first, {values[-1]:.4g} at last" if values else "not logged"


def _kept(output: Path) -> str:
    """What there is to go on from, in words."""
    from gr00t_ros.training.saving import newest_whole

    checkpoint = newest_whole(output)
    if checkpoint is None:
        return "no checkpoint was written yet; the same command begins anew"
    return f"{checkpoint} is kept, and the same command with --resume goes on from there"


def _options(given: argparse.Namespace) -> Options:
    from gr00t_ros.training.options import LoraOptions, Options

    values = vars(given).copy()
    for name in ("resume", "plan"):
        values.pop(name)
    tune = {name: values.pop(name) for name in _TUNE}
    lora = {name: values.pop(f"lora_{name}") for name in ("parts", "rank", "alpha", "dropout")}
    names = {"dataset": "datasets", "report_to": "report_to"}
    chosen: dict[str, Any] = {
        names.get(name, name): tuple(value) if isinstance(value, list) else value
        for name, value in values.items()
        if value is not None
    }
    if chosen.get("report_to") == ("none",):
        chosen["report_to"] = ()
    return Options(
        **chosen,
        tune={name: value for name, value in tune.items() if value is not None},
        lora=LoraOptions(**{**lora, "parts": tuple(lora["parts"])}),
    )


_TUNE = (
    "tune_visual",
    "tune_llm",
    "tune_top_llm_layers",
    "tune_projector",
    "tune_diffusion_model",
    "tune_vlln",
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="finetune", description=__doc__)
    _add_data(parser.add_argument_group("what is learned from what"))
    _add_course(parser.add_argument_group("course of the training"))
    _add_trained(parser.add_argument_group("what is trained, and in which memory"))
    _add_regularisers(parser.add_argument_group("regularisers (default: as the base checkpoint has them)"))
    _add_files(parser.add_argument_group("files and reports"))
    return parser


def _add_data(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--dataset",
        nargs="+",
        action="extend",
        required=True,
        metavar="DIR[:TAG[:WEIGHT]]",
        help="LeRobot datasets; WEIGHT is a dataset's share of the samples, whatever its size",
    )
    add(
        "--base",
        required=True,
        metavar="CHECKPOINT",
        help="directory or hub id to start from; for random weights tiny, mini, demo, small or released",
    )
    add("--output", required=True, type=Path, metavar="DIR", help="folder of the run; must not hold one yet")
    add("--robot", metavar="NAME|YAML", help="default: meta/robot.yaml of each dataset, where there is one")
    add("--embodiment-tag", metavar="TAG", help="default: the robot's, else new_embodiment")
    add("--horizon", type=int, metavar="STEPS", help="actions of a chunk, for a new embodiment (default: 16)")
    add("--relative", nargs="+", metavar="KEY", help="actions relative to the state; all for every key")
    add("--absolute", nargs="+", metavar="KEY", help="the contrary (default: joints and poses are relative)")
    add(
        "--mean-std",
        nargs="+",
        metavar="KEY",
        help="actions scaled by mean and standard deviation, not by their range; outliers are not cut then",
    )
    add(
        "--skip-episodes",
        nargs="+",
        metavar="[DIR:]3-5,8",
        help="leave these out; with several datasets say of which, each as DIR:NUMBERS",
    )
    add(
        "--modality",
        choices=("auto", "base", "new"),
        help="keys and representations of the embodiment: the base's, or new ones (default: the base's "
        "where it has them)",
    )
    add(
        "--statistics",
        choices=("data", "base"),
        help="ranges for scaling: measured in the datasets, or the base's (default: data)",
    )


def _add_course(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--steps", type=int, help="optimizer steps (default: 10000, from scratch 30000)")
    add("--batch-size", type=int, metavar="N", help="samples a step, over all GPUs (default: 64)")
    add(
        "--noise-samples",
        type=int,
        metavar="N",
        help="noises that a sample is trained with at once (default: 1); more train the action head "
        "further where the backbone takes most of the time",
    )
    add("--learning-rate", type=float, metavar="LR", help="at its highest (default: 1e-4)")
    add("--warmup", type=float, metavar="SHARE", help="share of the steps that it rises (default: 0.05)")
    add("--weight-decay", type=float, metavar="W", help="default: 1e-5")
    add("--clip", type=float, metavar="NORM", help="longest gradient, 0 for no limit (default: 1.0)")
    add("--seed", type=int, help="of weights, samples, noise and dropout (default: 0)")
    add("--from-scratch", action="store_true", help="train everything; of a checkpoint the action head anew")
    add("--device", choices=("auto", "cpu", "cuda"), help="default: a GPU where there is one")
    add(
        "--precision",
        choices=("auto", "bf16", "fp32"),
        help="bf16: frozen weights bfloat16, trained ones float32, bfloat16 autocast (default: bf16 on a "
        "GPU)",
    )
    add("--workers", type=int, metavar="N", help="processes that load data, for each GPU (default: 2)")
    add(
        "--open-shards",
        type=int,
        metavar="N",
        help="pieces of episodes that samples are drawn from at a time (default: 8); more where episodes are "
        "short and nothing is pretrained",
    )


def _add_trained(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    flag = argparse.BooleanOptionalAction
    add("--tune-visual", action=flag, help="vision tower and projector")
    add("--tune-llm", action=flag, help="the whole language model")
    add("--tune-top-llm-layers", type=int, metavar="N", help="its last layers")
    add("--tune-projector", action=flag, help="state and action encoders and decoders")
    add("--tune-diffusion-model", action=flag, help="the diffusion transformer")
    add("--tune-vlln", action=flag, help="the norm in front of it")
    add(
        "--lora",
        dest="lora_parts",
        nargs="+",
        choices=("backbone", "dit"),
        default=[],
        help="low-rank adapters on the language model, the diffusion transformer, instead of their weights",
    )
    add("--lora-rank", type=int, default=16, metavar="R", help="default: %(default)s")
    add("--lora-alpha", type=float, default=32.0, metavar="A", help="default: %(default)s")
    add("--lora-dropout", type=float, default=0.0, metavar="P", help="default: %(default)s")
    add("--gradient-checkpointing", action="store_true", help="compute activations twice, keep few of them")
    add("--accumulate", type=int, metavar="N", help="work off a batch in so many parts (default: 1)")
    add("--optimizer", choices=("adamw", "adamw_8bit"), help="adamw_8bit needs bitsandbytes and a GPU")
    add(
        "--deepspeed",
        nargs="?",
        const="zero2",
        metavar="JSON",
        help="share out gradients and optimizer states among the GPUs (ZeRO-2); or a DeepSpeed configuration",
    )
    add("--plan", action="store_true", help="only say how much memory and disk the run will take")


def _add_regularisers(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--state-dropout", type=float, metavar="P", help="how often the state is hidden")
    add("--state-noise", type=float, metavar="S", help="standard deviation added to the encoded state")
    add(
        "--color-jitter",
        nargs=4,
        type=float,
        metavar=("BRIGHTNESS", "CONTRAST", "SATURATION", "HUE"),
        help="0 0 0 0 switches it off",
    )
    add("--random-rotation", type=float, metavar="DEGREES", help="of images, either way")
    add(
        "--pointing",
        metavar="STATE[:CAMERA]",
        help="also learn which image token the named thing is on: STATE holds its (u, v) in the camera's "
        "picture, from 0 to 1, and is no input of the network",
    )
    add("--pointing-weight", type=float, metavar="W", help="of that loss beside the actions' (default: 1)")
    add("--dropout", type=float, metavar="P", help="in the diffusion transformer")
    add("--image-edge", type=int, metavar="PIXELS", help="shortest side of the pictures, later as well")
    add("--crop-fraction", type=float, metavar="F", help="share of each side that is seen, later as well")


def _add_files(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--save-every", type=int, metavar="STEPS", help="default: ten times a run")
    add("--keep", type=int, metavar="N", help="checkpoints to go on from (default: 2)")
    add(
        "--resume",
        nargs="?",
        const="",
        metavar="CHECKPOINT",
        help="go on with the run in --output, from its newest checkpoint or from this one",
    )
    add("--log-every", type=int, metavar="STEPS", help="default: 10")
    add(
        "--report-to",
        nargs="+",
        choices=("tensorboard", "wandb", "none"),
        help="default: tensorboard, in the folder runs of --output",
    )
    add("--eval-episodes", type=int, metavar="N", help="of each dataset, held out to measure the loss on")
    add("--eval-every", type=int, metavar="STEPS", help="default: with each checkpoint")
    add("--eval-batches", type=int, metavar="N", help="batches of each evaluation (default: 8)")
    add(
        "--deployed-dtype",
        choices=("bfloat16", "float32"),
        help="type of the weights in the finished checkpoint (default: bfloat16)",
    )


if __name__ == "__main__":
    sys.exit(main())
