# SPDX-License-Identifier: Apache-2.0
"""``benchmark``: what a chunk takes on this machine, and whether the engine computes the right thing.

Opens the checkpoint as the policy node does, times chunks on synthetic camera images and prints one table.
``--verify`` compares the engine with the float32 network and exits with 1 where it does not pass; a TensorRT
engine's verdict is kept beside it, and the policy node goes by it. ``--report`` writes one JSON file to send.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gr00t_model.errors import BackendError
from gr00t_ros.cli.subjects import (
    INTERRUPTED,
    MISTAKES,
    Subject,
    add_subject,
    explain,
    recorded,
    subject_of,
)

if TYPE_CHECKING:
    from gr00t_model.inference.opening import Request
    from gr00t_ros.cli.measuring import MeasuredPolicy, Memory, Timings, Verification

DESCRIPTION = (__doc__ or "").partition("\n\n")[0]
REPORT_VERSION = 1
OBSERVATIONS = 16
REPEATS_ON_GPU, REPEATS_ON_CPU = 200, 20
# A common camera's.
IMAGE_SIZE = (480, 640)


@dataclass
class Results:
    """What is known so far."""

    verifications: list[Verification] = field(default_factory=list)
    policy: MeasuredPolicy | None = None
    refused: str = ""
    """why the TensorRT engine is not used"""
    timings: Timings | None = None
    before: Memory | None = None
    after: Memory | None = None
    error: str = ""


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0 when all that was asked for went well, 1 when not, 130 when it was interrupted."""
    options = _parser().parse_args(argv)
    results = Results()
    try:
        _check_report(options.report)
        subject = subject_of(options)
        try:
            run(options, subject, results)
        except MISTAKES as error:  # the report says it too: it is what somebody may be asked about
            results.error = explain("benchmark", error)
        print("\n".join(table(results)))
        if options.report is not None:
            write_report(options, subject, results)
    except KeyboardInterrupt:
        print("benchmark: interrupted", file=sys.stderr)
        return INTERRUPTED
    except MISTAKES as error:
        results.error = explain("benchmark", error)
    if results.error:
        print(results.error, file=sys.stderr)
    return 0 if succeeded(results, options.verify) else 1


def succeeded(results: Results, verify: bool) -> bool:
    """Whether chunks were timed, and every engine that was to be verified passed."""
    if results.error or results.timings is None:
        return False
    if not verify:
        return True
    checked = results.verifications
    return bool(checked) and not results.refused and all(one.passed for one in checked)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmark", description=DESCRIPTION)
    add_subject(parser)
    add = parser.add_argument
    add("--backend", default="auto", help="auto, tensorrt or pytorch (default: %(default)s)")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    add("--precision", default="auto", help="as the policy node's parameter (default: %(default)s)")
    add("--engine", type=Path, metavar="DIR", help="TensorRT engines (default: tensorrt in the checkpoint)")
    add("--compile", choices=("auto", "on", "off"), default="auto", help="as the policy node's parameter")
    add("--num-steps", type=int, metavar="N", help="denoising steps (default: the checkpoint's number)")
    add("--verify", action="store_true", help="compare with the float32 network; 1 where it does not pass")
    add(
        "--dataset",
        type=Path,
        metavar="DIR",
        help="LeRobot dataset, or a file of observations, to verify on (default: what lies beside the "
        "engine, else synthetic)",
    )
    add(
        "--observations",
        type=int,
        default=OBSERVATIONS,
        metavar="N",
        help="taken from the dataset, 1 to 32 (default: %(default)s)",
    )
    add(
        "--repeats",
        type=_positive,
        metavar="N",
        help=f"counted chunks (default: {REPEATS_ON_GPU} on a GPU, {REPEATS_ON_CPU} on a CPU)",
    )
    add(
        "--image-size",
        type=_size,
        default=IMAGE_SIZE,
        metavar="HxW",
        help="height and width of the synthetic camera images [px] (default: 480x640)",
    )
    add("--report", type=Path, metavar="FILE", help="write machine, versions and figures as JSON")
    return parser


def run(options: argparse.Namespace, subject: Subject, results: Results) -> None:
    """Verify and measure; what is known is put into ``results`` as it comes.

    Raises:
        Gr00tError, Gr00tRosError: what was asked for is not possible here.
    """
    from gr00t_ros.cli import measuring

    given = recorded(options.dataset, subject, options.observations)
    request = _request(options, subject)
    results.before = measuring.Memory.now(_device(request))
    if options.verify:
        found = measuring.verify_tensorrt(request, subject, given, tell)
        results.verifications += [found] if found else []
        if found is not None and not found.passed and request.backend == "tensorrt":
            results.refused = "; ".join(found.reasons)
            return
    results.policy = policy = _open(options, subject, request)
    results.refused = policy.choice.refused
    if options.verify and policy.choice.backend == "pytorch":
        tell("comparing with the float32 network, whose layers are read one by one")
        results.verifications.append(measuring.verify_pytorch(policy, subject, given))
    repeats = options.repeats or (REPEATS_ON_GPU if policy.choice.device.type == "cuda" else REPEATS_ON_CPU)
    tell(f"timing {repeats} chunks")
    results.timings = measuring.measure(policy, subject.instruction, options.image_size, repeats)
    results.after = measuring.Memory.now(policy.choice.device)


def tell(text: str) -> None:
    """A line about work that is long."""
    print(text, file=sys.stderr, flush=True)


def _request(options: argparse.Namespace, subject: Subject) -> Request:
    """What the policy opens, as far as a verification before that needs it."""
    from gr00t_model.checkpoint import read_config
    from gr00t_model.inference.backend import check_names
    from gr00t_model.inference.opening import Request

    check_names(options.backend, options.precision)
    steps = options.num_steps or read_config(subject.directory).num_inference_timesteps
    return Request(
        subject.directory,
        subject.processor,
        subject.tag,
        steps,
        options.backend,
        options.device,
        options.precision,
        options.engine,
    )


def _device(request: Request) -> Any:
    from gr00t_model.inference.backend import find_device

    return find_device(request.device)[0]


def _open(options: argparse.Namespace, subject: Subject, request: Request) -> MeasuredPolicy:
    """The policy, opened and warmed up as the node does it."""
    from gr00t_ros.cli.measuring import MeasuredPolicy

    tell(f"loading {subject.directory}")
    accuracy = subject.accuracy
    policy = MeasuredPolicy(
        subject.directory,
        subject.tag,
        request.backend,
        request.device,
        request.precision,
        options.num_steps,
        processor=subject.processor,
        engine=request.engine,
        compile=options.compile,
        engine_limits=accuracy["limits"],
        joint_names=accuracy["names"],
        tell=tell,
    )
    policy.warm_up(subject.instruction)
    return policy


# ---- results -------------------------------------------------------------------------------------


def table(results: Results) -> Iterator[str]:
    """Lines for people."""
    for verification in results.verifications:
        yield from verification.table()
    if results.refused:
        yield f"the TensorRT engine is not used: {results.refused}"
    policy, timings = results.policy, results.timings
    if policy is None or timings is None:
        return
    choice = policy.choice
    images = ", ".join(f"{height} x {width}" for height, width in timings.images)
    yield f"{choice.backend} on {choice.device} in {choice.precision} ({choice.reason})"
    yield f"images {images}, {timings.text_tokens} text tokens, {policy.num_steps} denoising steps"
    yield from (f"note: {note}" for note in policy.notes)
    yield f"  {f'{timings.repeats} chunks':<24}{'median ms':>12}{'p99 ms':>12}"
    for name, spread in timings.parts.items():
        yield f"  {name:<24}{spread.median_ms:>12.2f}{spread.p99_ms:>12.2f}"
    for name, milliseconds in timings.stages.items():
        yield f"  {f'stage {name}':<24}{milliseconds:>12.2f}"
    if timings.floor_share is not None:
        yield (
            f"memory traffic alone takes {timings.floor_ms:.2f} ms on {timings.floor_device} (calculated): "
            f"inference is at {timings.floor_share:.0%} of that floor's speed"
        )
    yield from _memory_lines(results)


def _memory_lines(results: Results) -> Iterator[str]:
    before, after = results.before, results.after
    if before is None or after is None:
        return
    if after.process is not None and after.process_peak is not None:
        yield f"memory: process {after.process / 1e9:.2f} GB, at most {after.process_peak / 1e9:.2f} GB"
    if before.device is not None and after.device is not None:
        yield f"memory: device {(after.device - before.device) / 1e9:.2f} GB more than before"


def write_report(options: argparse.Namespace, subject: Subject, results: Results) -> None:
    """One file that says all that is needed to make sense of the figures, and nothing of the user.

    Raises:
        OSError: it cannot be written.
    """
    from gr00t_model.inference.report import without_paths

    path: Path = options.report
    known = [subject.directory, Path(options.checkpoint).absolute(), Path.home(), Path.cwd()]
    known += [given.absolute() for given in (options.engine, options.dataset) if given is not None]
    content = without_paths(report(options, subject, results), [str(one) for one in known])
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)
    tell(f"wrote {path}: look through it before you send it")


def report(options: argparse.Namespace, subject: Subject, results: Results) -> dict[str, Any]:
    """The content of the report."""
    from gr00t_model.checkpoint import read_config
    from gr00t_model.inference import report as facts
    from gr00t_model.inference.trt.engine import FINGERPRINTS
    from gr00t_model.inference.trt.manifest import Manifest

    policy, timings = results.policy, results.timings
    request = _request(options, subject)
    directory = request.engine_directory
    engine = None
    if directory is not None:
        try:
            engine = facts.engine(Manifest.read(directory))
        except BackendError as error:
            engine = {"unreadable": str(error)}
    verifications = [one.to_mapping() for one in results.verifications]
    for one in verifications:
        one["source"] = facts.kind_of(one["source"])
    return {
        "format_version": REPORT_VERSION,
        "machine": facts.machine(_reported_device(options)),
        "versions": facts.versions(),
        "checkpoint": facts.checkpoint(
            subject.directory,
            read_config(subject.directory),
            None if directory is None else directory / FINGERPRINTS,
        ),
        "asked_for": {
            "backend": options.backend,
            "device": options.device,
            "precision": options.precision,
            "compile": options.compile,
            "num_steps": options.num_steps,
            "image_size": options.image_size,
            "robot_limits": subject.robot is not None,
        },
        "choice": None
        if policy is None
        else {
            "backend": policy.choice.backend,
            "device": str(policy.choice.device),
            "precision": policy.choice.precision,
            "reason": policy.choice.reason,
            "num_steps": policy.num_steps,
            "untrained": policy.untrained,
            "notes": policy.notes,
        },
        "refused": results.refused,
        "error": results.error,
        "timings": None if timings is None else {**asdict(timings), "floor_share": timings.floor_share},
        "memory_bytes": {
            "before": results.before and asdict(results.before),
            "after": results.after and asdict(results.after),
        },
        "verifications": verifications,
        "engine": engine,
    }


def _reported_device(options: argparse.Namespace) -> Any:
    """The device that was asked for, or the one that ``auto`` takes where that is not here."""
    from gr00t_model.inference.backend import find_device

    try:
        return find_device(options.device)[0]
    except BackendError:
        return find_device("auto")[0]


def _check_report(path: Path | None) -> None:
    """Before minutes of work: the folder is there."""
    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise BackendError(f"report {path} cannot be written: expected a file in a folder that exists")


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    return _positive(height), _positive(width)


if __name__ == "__main__":
    sys.exit(main())
