# SPDX-License-Identifier: Apache-2.0
"""``build_engine``: TensorRT engines from a checkpoint.

Writes backbone.engine, action.engine and manifest.json into one directory, all or nothing. The engines are
for one embodiment, one number of denoising steps and one kind of GPU, and are used only after they have been
compared with the float32 network on the machine that runs them.
"""

from __future__ import annotations

import argparse
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

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
    from gr00t_model.inference.trt.manifest import Manifest

DESCRIPTION = __doc__
PRECISIONS = ("auto", "bf16", "int8", "fp8", "nvfp4")
OBSERVATIONS = 16
# Seconds between two states of the progress bar: a log file should not fill up with them.
_ON_TERMINAL, _IN_LOG = 0.5, 15.0


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0 when the engines were built, 1 for a mistake, 130 when it was interrupted."""
    options = _parser().parse_args(argv)
    output: Path | None = None
    try:
        subject = subject_of(options)
        output = _output(options, subject)
        with Bar() as bar, _interruptible(bar):
            manifest = _build(options, subject, output, bar)
    except KeyboardInterrupt:
        kept = _left_behind(output) or _unfinished(output)
        print(f"build_engine: interrupted; {kept}", file=sys.stderr)
        return INTERRUPTED
    except MISTAKES as error:
        kept = _left_behind(output)
        print(explain("build_engine", error) + (f" ({kept})" if kept else ""), file=sys.stderr)
        return 1
    print("\n".join(summary(manifest, output, subject, options)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="build_engine", description=DESCRIPTION)
    add_subject(parser)
    add = parser.add_argument
    add(
        "--output",
        type=Path,
        metavar="DIR",
        help="default: the folder tensorrt in the checkpoint, where backend auto looks for engines",
    )
    add("--force", action="store_true", help="replace engines that are there")
    add(
        "--precision",
        choices=PRECISIONS,
        default="auto",
        help="auto: fp8 where the target has it, else int8, and bf16 without --calibration; nvfp4 only for "
        "Blackwell and Thor, compute capability 10.0 and later (default: %(default)s)",
    )
    add(
        "--target",
        type=_target,
        default="current",
        help="current (the GPU here), or the compute capability of another, as sm89, which only TensorRT-RTX "
        "builds for (default: %(default)s)",
    )
    add(
        "--calibration",
        type=Path,
        metavar="DATASET",
        help="LeRobot dataset, or observations.safetensors of other engines; int8, fp8 and nvfp4 need "
        "it, and the engines are verified on it",
    )
    add(
        "--observations",
        type=int,
        default=OBSERVATIONS,
        metavar="N",
        help="taken from the dataset, 1 to 32 (default: %(default)s)",
    )
    add("--num-steps", type=int, metavar="N", help="denoising steps (default: the checkpoint's number)")
    add(
        "--image-sizes",
        type=_size,
        nargs="+",
        metavar="HxW",
        help="of the images as the processor gives them, in the cameras' order (default: as in "
        "--calibration, else of square padded images)",
    )
    add(
        "--text-tokens",
        type=int,
        metavar="N",
        help="longest prompt that the engines take, the template's own tokens included (default: 256)",
    )
    add(
        "--flavour",
        choices=("auto", "tensorrt", "tensorrt_rtx"),
        default="auto",
        help="which TensorRT, where several are installed (default: %(default)s)",
    )
    return parser


def _build(options: argparse.Namespace, subject: Subject, output: Path, bar: Bar) -> Manifest:
    # torch takes seconds to import; --help and a misspelt option need not wait for it.
    from gr00t_model.inference.trt.build import build_engine

    bar("reading the recording" if options.calibration else "reading the checkpoint", 0.0)
    calibration = recorded(options.calibration, subject, options.observations)
    chosen: dict[str, Any] = {"num_steps": options.num_steps, "image_sizes": options.image_sizes}
    if options.text_tokens is not None:
        chosen["text_tokens"] = options.text_tokens
    return build_engine(
        subject.directory,
        output,
        embodiment_tag=subject.tag,
        precision=options.precision,
        target=options.target,
        calibration=calibration,
        flavour=options.flavour,
        progress=bar,
        **chosen,
    )


def _output(options: argparse.Namespace, subject: Subject) -> Path:
    """Where the engines go; BackendError where some are already and --force is not given."""
    from gr00t_model.inference.opening import ENGINE_FOLDER
    from gr00t_model.inference.trt.manifest import MANIFEST_FILE

    output: Path = options.output or subject.directory / ENGINE_FOLDER
    if (output / MANIFEST_FILE).exists() and not options.force:
        raise BackendError(
            f"{output} holds engines already; --force replaces them once the new ones are complete"
        )
    return output


def _left_behind(output: Path | None) -> str:
    """What the next build can go on from, in words; empty where there is nothing."""
    if output is not None:
        partial = output.with_name(f"{output.name}.partial")
        if (partial / "onnx" / "export.json").exists():
            return f"the exported network is kept in {partial}, and the same command goes on from there"
    return ""


def _unfinished(output: Path | None) -> str:
    """What remains of a build that nothing can go on from, in words."""
    if output is not None:
        partial = output.with_name(f"{output.name}.partial")
        if partial.exists():
            return f"the export was not finished; the same command replaces {partial} and begins anew"
    return "nothing is kept; the same command begins anew"


# ---- while it runs -------------------------------------------------------------------------------


class Bar:
    """A progress bar on stderr. ``interrupted`` makes the next step of the build stop it."""

    # A share that is there at the first step was done by an earlier build, and says nothing about the speed.
    RESUMED = 0.2

    def __init__(self) -> None:
        self.interrupted = False
        self._bar = tqdm(
            total=100.0,
            smoothing=0.0,
            miniters=0,
            mininterval=_ON_TERMINAL if sys.stderr.isatty() else _IN_LOG,
            bar_format="{percentage:3.0f}%|{bar:20}| {elapsed} gone, {remaining} left, {desc}",
        )

    def __call__(self, text: str, share: float) -> None:
        """``share`` of the build, 0 to 1, is behind, and ``text`` is being done."""
        if self.interrupted:
            raise KeyboardInterrupt
        if self._bar.n == 0.0 and share >= self.RESUMED:
            self._bar.initial = 100.0 * share
            self._bar.start_t = self._bar.last_print_t = time.time()
        self._bar.set_description_str(text, refresh=False)
        self._bar.update(max(0.0, 100.0 * share - self._bar.n))

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()


@contextmanager
def _interruptible(bar: Bar) -> Iterator[None]:
    """SIGINT and SIGTERM raise KeyboardInterrupt, and again at the next step where a library swallowed it."""

    def stop(*_: Any) -> None:
        bar.interrupted = True
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# ---- afterwards ----------------------------------------------------------------------------------


def summary(manifest: Manifest, output: Path, subject: Subject, options: argparse.Namespace) -> Iterator[str]:
    """Lines about what was built and what to do with it."""
    figures = manifest.build
    yield f"{output}: embodiment {manifest.embodiment}, {manifest.num_steps} denoising steps"
    for name, file in manifest.files.items():
        yield f"  {name:<18}{file.bytes / 1e6:>10.1f} MB"
    yield f"built by {manifest.tensorrt} for {manifest.gpu.name or manifest.gpu.target}"
    images = ", ".join(f"{count} of {height} x {width}" for count, height, width in manifest.shapes.images)
    yield f"images {images} pixels (height x width), up to {manifest.shapes.text[2]} text tokens"
    yield f"precision {manifest.precision.requested} ({figures.get('precision_reason', '')}), by layer group:"
    for group, kind in manifest.precision.groups.items():
        yield f"  {group:<26}{kind}"
    error = manifest.calibration.get("one_minus_cosine")
    if error is not None:
        yield f"1 - cosine of (action - noise) against bf16, as imitated by modelopt: {error:.2e}"
    yield f"{figures['seconds']:.0f} s, at most {figures['peak_memory_bytes'] / 1e9:.1f} GB of memory"
    yield from _next(output, subject, options)


def _next(output: Path, subject: Subject, options: argparse.Namespace) -> Iterator[str]:
    from gr00t_model.inference.opening import ENGINE_FOLDER

    about = f"--robot {options.robot}" if options.robot else f"--embodiment-tag {subject.tag}"
    where = "here" if options.target == "current" else f"on the machine with the {options.target} GPU"
    yield f"Next, {where}, compare it with the float32 network:"
    yield f"  benchmark --verify --checkpoint {options.checkpoint} {about} --engine {output}"
    if output != subject.directory / ENGINE_FOLDER:
        yield f"and give the policy node the parameter engine:={output}"
    if options.num_steps is not None:
        yield f"and num_steps:={options.num_steps}"


def _target(text: str) -> str:
    if text != "current" and not re.fullmatch(r"sm\d{2,3}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not current or a compute capability such as sm89")
    return text


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a height and width such as 252x336")
    return int(found.group(1)), int(found.group(2))


if __name__ == "__main__":
    sys.exit(main())
