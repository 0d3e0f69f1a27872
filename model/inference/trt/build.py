# SPDX-License-Identifier: Apache-2.0
"""From a checkpoint to a directory of TensorRT engines: load, lay out, quantise, export, build, describe.

Everything happens in a directory beside the output, which takes the output's name at the end. An interrupted
build leaves its ONNX files there, and the next one of the same checkpoint and options goes on from them.
"""

import contextlib
import ctypes
import gc
import json
import os
import resource
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from gr00t_model.checkpoint import NOT_FOR_ACTIONS, load_model, resolve
from gr00t_model.errors import BackendError
from gr00t_model.inference.deployed import deploy
from gr00t_model.inference.observations import ObservationSet
from gr00t_model.inference.trt import manifest as manifests
from gr00t_model.inference.trt.adapter import TensorRT, find_tensorrt
from gr00t_model.inference.trt.export import (
    ACTION,
    BACKBONE,
    MAX_TEXT_TOKENS,
    export,
    profiles,
)
from gr00t_model.inference.trt.planning import Plan, capability_name, make_plan
from gr00t_model.inference.trt.quantize import quantize
from gr00t_model.inference.trt.trust import OBSERVATIONS_FILE
from gr00t_model.inference.trt.verdict import driver_version

Progress = Callable[[str, float], None]
"""Called with what is being done, and the share of the whole build that is behind, 0 to 1."""

_DONE = "export.json"
# Of the time a build takes: where each part begins.
_LOADED, _CALIBRATED, _EXPORTED, _BACKBONE_BUILT = 0.05, 0.1, 0.35, 0.65


def build_engine(
    checkpoint: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    embodiment_tag: str,
    precision: str = "auto",
    target: str = "current",
    calibration: ObservationSet | None = None,
    num_steps: int | None = None,
    horizon: int | None = None,
    image_sizes: Sequence[tuple[int, int]] | None = None,
    text_tokens: int = MAX_TEXT_TOKENS,
    flavour: str = "auto",
    progress: Progress = lambda text, share: None,
    library: TensorRT | None = None,
) -> manifests.Manifest:
    """Build both engines and their manifest into the directory `output`; engines that are there are replaced.

    The weights are loaded in bfloat16 on the CPU (or on the GPU where one calibrates), and are gone before
    TensorRT starts; TensorRT reads the ONNX files.

    Args:
        checkpoint: in the published format, or a hub id.
        output: where the engines go.
        embodiment_tag: whose weights go in.
        precision: bf16, fp8, int8, nvfp4 (compute capability 10.0 and later), or auto: fp8 from compute
            capability 8.9, int8 below, where there are observations to calibrate on; else bf16.
        target: current, or the compute capability of another GPU, as sm89.
        calibration: recorded observations; also kept beside the engines for their verification.
        num_steps: denoising steps; None means the checkpoint's number.
        horizon: action steps of a chunk; None means the checkpoint's.
        image_sizes: height and width [px] of the images as the processor gives them, in the order of the
            cameras; None takes those of the calibration, or of square padded images.
        text_tokens: the most text tokens of a prompt, the template's own included.
        flavour: tensorrt, tensorrt_rtx or auto.
        progress: told what is done.
        library: a TensorRT that was found already.

    Raises:
        BackendError: TensorRT or an exporter is missing, the target cannot be built for or lacks the
            precision, or there is too little disk space.
        CheckpointError, EmbodimentError, ObservationError: as for the policy.
    """
    begun = time.monotonic()
    output = Path(output)
    found = find_tensorrt(flavour) if library is None else library
    _check_output(output)
    found.check_target(target, capability_name())
    progress("reading the checkpoint", 0.0)
    plan = make_plan(
        resolve(checkpoint), embodiment_tag, precision, target, calibration, num_steps, horizon, image_sizes,
        text_tokens,
    )  # fmt: skip
    partial = output.with_name(f"{output.name}.partial")
    _check_disk(plan, partial)
    onnx, notes = _exported(plan, partial / "onnx", progress)
    reports = {}
    for name, start, end in ((BACKBONE, _EXPORTED, _BACKBONE_BUILT), (ACTION, _BACKBONE_BUILT, 1.0)):
        reports[name] = found.build(
            onnx / f"{name}.onnx",
            partial / f"{name}.engine",
            _as_profiles(notes["profiles"][name]),
            target=plan.target,
            here=capability_name(),
            timing_cache=output.with_name(f".{output.name}.{name}.timing"),
            progress=_part(progress, name, start, end),
        )
    manifest = _describe(plan, found, partial, notes, reports, begun)
    if calibration is not None:
        calibration.save(partial / OBSERVATIONS_FILE)
    manifest.write(partial)
    shutil.rmtree(onnx)
    _take_place(partial, output)
    progress("done", 1.0)
    return manifest


def _part(progress: Progress, name: str, start: float, end: float) -> Callable[[float, str], None]:
    """The progress of one engine's build as a part of the whole."""
    return lambda share, phase: progress(f"{name}: {phase}", start + share * (end - start))


def _check_output(output: Path) -> None:
    if output.exists() and not output.is_dir():
        raise BackendError(f"{output} is a file; expected a directory to write engines into")
    if os.path.ismount(output):
        raise BackendError(
            f"{output} is a mount point, which cannot be replaced; choose a directory inside it"
        )
    if output.is_dir() and any(output.iterdir()) and not (output / manifests.MANIFEST_FILE).exists():
        raise BackendError(f"{output} is not empty and holds no engines; choose another directory")


def _check_disk(plan: Plan, partial: Path) -> None:
    """ONNX files and plans lie side by side for a while, each about as large as the weights."""
    weights = sum(path.stat().st_size for path in plan.checkpoint.glob("*.safetensors"))
    partial.parent.mkdir(parents=True, exist_ok=True)
    there = sum(path.stat().st_size for path in partial.rglob("*") if path.is_file())
    needed = int(2.2 * weights) + 200_000_000 - there
    free = shutil.disk_usage(partial.parent).free
    if free < needed:
        raise BackendError(
            f"{partial.parent} has {free / 1e9:.1f} GB free, the build needs about {needed / 1e9:.1f} GB; "
            "free some, or choose an output on another disk"
        )


# ---- export -----------------------------------------------------------------------------------------


def _exported(plan: Plan, folder: Path, progress: Progress) -> tuple[Path, dict[str, Any]]:
    """The folder of the ONNX files, and what is to be known about them; those of an interrupted build if they
    are the same."""
    done = folder / _DONE
    try:
        notes = json.loads(done.read_bytes())
        if notes["key"] == plan.key():
            progress("ONNX files of an interrupted build are used", _EXPORTED)
            return folder, notes
    except (OSError, ValueError, KeyError, TypeError):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    begun = time.monotonic()
    progress("loading the weights", 0.02)
    on_gpu = plan.calibration is not None and torch.cuda.is_available()
    network = load_model(
        plan.checkpoint,
        device="cuda" if on_gpu else "cpu",
        dtype=torch.bfloat16,
        without=NOT_FOR_ACTIONS,
    )
    form = deploy(network.eval(), plan.embodiment.id, plan.num_steps)
    del network
    loaded = time.monotonic()
    recipe = None
    if plan.calibration is not None:
        recipe = quantize(
            form,
            plan.precision,
            plan.calibration,
            valid=plan.valid,
            progress=lambda text: progress(text, _LOADED),
        )
        _free()
    calibrated = time.monotonic()
    with torch.inference_mode(False):
        export(form.cpu(), folder, plan.shapes, recipe=recipe, progress=lambda t: progress(t, _CALIBRATED))
    notes = {
        "key": plan.key(),
        "groups": {"all": "bf16"} if recipe is None else recipe.groups,
        "error": None if recipe is None else recipe.error,
        "errors": {} if recipe is None else recipe.errors,
        "profiles": profiles(form, plan.shapes),
        "load_seconds": loaded - begun,
        "calibration_seconds": calibrated - loaded,
        "export_seconds": time.monotonic() - calibrated,
        "onnx_bytes": sum(path.stat().st_size for path in folder.iterdir()),
        "weight_bytes": form.memory(),
    }
    # The weights must be gone before TensorRT makes its own copies. The exporter's caches still know the last
    # module's parameters, so they are emptied and not only dropped.
    for parameter in form.parameters():
        parameter.data = torch.empty(0)
    del form, recipe
    _free()
    done.write_text(json.dumps(notes, indent=2) + "\n")
    return folder, json.loads(done.read_bytes())


def _free() -> None:
    """Give memory that is no longer used back to the system; glibc keeps what lay in pieces below 32 MB."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _as_profiles(stored: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(tuple(end) for end in ends) for name, ends in stored.items()}


# ---- the result -------------------------------------------------------------------------------------


def _describe(
    plan: Plan,
    library: TensorRT,
    folder: Path,
    notes: Mapping[str, Any],
    reports: Mapping[str, Any],
    begun: float,
) -> manifests.Manifest:
    digits = plan.target.removeprefix("sm")
    capability, name = "", ""
    if plan.target == "current" and torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        digits = (capability_name() or "sm").removeprefix("sm")
    if digits.isdigit():
        capability = f"{digits[:-1]}.{digits[-1]}"
    text = notes["profiles"][BACKBONE]["text_embeddings"]
    calibration: dict[str, Any] = {}
    if plan.calibration is not None:
        calibration = {
            "source": plan.calibration.source,
            "sha256": plan.calibration.digest,
            "observations": len(plan.calibration),
            "method": "max",
            "one_minus_cosine": notes["error"],
            "one_minus_cosine_by_group": notes["errors"],
        }
    figures = {key: notes[key] for key in notes if key.endswith(("_seconds", "_bytes"))}
    figures |= {f"{engine}_build_seconds": round(report.seconds, 2) for engine, report in reports.items()}
    figures |= {f"{engine}_plan_bytes": report.nbytes for engine, report in reports.items()}
    return manifests.Manifest(
        checkpoint=manifests.CheckpointId(plan.checkpoint.name, plan.sha256),
        embodiment=plan.embodiment,
        num_steps=plan.num_steps,
        horizon=plan.shapes.horizon,
        precision=manifests.Precision(plan.requested, notes["groups"]),
        tensorrt=manifests.TensorRTId(library.flavour, library.version),
        driver=driver_version(),
        gpu=manifests.Gpu(name, capability, plan.target),
        shapes=manifests.Shapes(plan.shapes.groups, tuple(int(end[1]) for end in text)),  # type: ignore[arg-type]
        files=manifests.engine_files(folder),
        calibration=calibration,
        build={
            **figures,
            "precision_reason": plan.reason,
            "seconds": round(time.monotonic() - begun, 2),
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "torch": torch.__version__,
        },
    )


def _take_place(partial: Path, output: Path) -> None:
    """Put the finished directory where the old one was."""
    old = output.with_name(f"{output.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if output.exists():
        output.rename(old)
    partial.rename(output)
    shutil.rmtree(old, ignore_errors=True)
