# SPDX-License-Identifier: Apache-2.0
"""What is going to be built: everything that can be decided, or refused, before weights are loaded."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from gr00t_model.checkpoint import read_config
from gr00t_model.config import Gr00tN1d6Config
from gr00t_model.errors import BackendError
from gr00t_model.inference.observations import ObservationSet, synthetic
from gr00t_model.inference.trt import manifest as manifests
from gr00t_model.inference.trt.export import Shapes, shapes_of
from gr00t_model.inference.trt.fingerprint import checkpoint_sha256
from gr00t_model.inference.trt.quantize import CALIBRATED, PRECISIONS, check_target
from gr00t_model.processing import Gr00tProcessor

# Changes whenever other ONNX files come out of the same checkpoint and options.
EXPORT_VERSION = 1


@dataclass(frozen=True)
class Plan:
    """What is going to be built."""

    checkpoint: Path
    sha256: str
    embodiment: manifests.EmbodimentId
    config: Gr00tN1d6Config
    num_steps: int
    shapes: Shapes
    requested: str
    precision: str
    reason: str
    """why this precision, where it was chosen here"""
    target: str
    valid: tuple[int, int]
    """real steps and dimensions of a chunk"""
    calibration: ObservationSet | None

    def key(self) -> str:
        """Identifies the ONNX files: they do not depend on the target, nor on TensorRT."""
        content = {
            "version": EXPORT_VERSION,
            "checkpoint": self.sha256,
            "embodiment": asdict(self.embodiment),
            "num_steps": self.num_steps,
            "shapes": asdict(self.shapes),
            "precision": self.precision,
            "calibration": None if self.calibration is None else self.calibration.digest,
            "torch": torch.__version__,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def choose_precision(requested: str, capability: int | None, calibrated: bool) -> tuple[str, str]:
    """The precision to build in, and why.

    capability: of the target, 89 for 8.9; None where it is not known.

    Raises:
        BackendError: no such precision, or the target does not compute in it.
    """
    if requested != "auto":
        check_target(requested, capability)
        if requested in CALIBRATED and not calibrated:
            raise BackendError(
                f"precision {requested} needs recorded observations to calibrate on; give --calibration, or "
                "use bf16"
            )
        return requested, "asked for"
    if not calibrated:
        return "bf16", "nothing was given to calibrate a smaller type on"
    if capability is None:
        return "bf16", "the target's compute capability is not known"
    name = f"compute capability {capability // 10}.{capability % 10}"
    if capability >= 89:
        return "fp8", f"{name} computes in FP8"
    return "int8", f"{name} has INT8 and no FP8"


def make_plan(
    checkpoint: Path,
    tag: str,
    precision: str,
    target: str,
    calibration: ObservationSet | None,
    num_steps: int | None,
    horizon: int | None,
    image_sizes: Sequence[tuple[int, int]] | None,
    text_tokens: int,
) -> Plan:
    """What `build_engine` describes, checked and with everything left open decided.

    Raises:
        BackendError, CheckpointError, EmbodimentError, ObservationError: as `build_engine`.
    """
    if precision != "auto" and precision not in PRECISIONS:
        raise BackendError(f"precision {precision!r} is not one of auto, {', '.join(PRECISIONS)}")
    chosen, reason = choose_precision(precision, capability_of(target), bool(calibration))
    config = read_config(checkpoint)
    processor = Gr00tProcessor.from_pretrained(checkpoint)
    if calibration is not None:
        calibration.check_fit(processor, tag, config)
    # What the processor gives: sizes of images, steps of state.
    sample = (calibration or synthetic(processor, tag, config, 1))[0].inputs
    found = [(int(image.shape[-2]), int(image.shape[-1])) for image in sample["pixel_values"]]
    if image_sizes is None and calibration is None and not processor.options.letterbox:
        raise BackendError(
            "the images' sizes are not known: this checkpoint does not pad them to a square, so they depend "
            "on the cameras. Give image_sizes, or a calibration recording"
        )
    sizes = [(int(h), int(w)) for h, w in (found if image_sizes is None else image_sizes)]
    if len(sizes) != len(found):
        raise BackendError(f"{len(sizes)} image sizes were given, embodiment {tag} has {len(found)} images")
    shapes = shapes_of(config, sizes, horizon, text_tokens, state_steps=int(sample["state"].shape[1]))
    steps = config.num_inference_timesteps if num_steps is None else num_steps
    if steps < 1:
        raise BackendError(f"num_steps is {steps}, expected 1 or more")
    modality = processor.modality(tag)
    return Plan(
        checkpoint,
        checkpoint_sha256(checkpoint),
        manifests.EmbodimentId(tag, processor.embodiment_id(tag)),
        config,
        steps,
        shapes,
        precision,
        chosen,
        reason,
        target,
        (len(modality["action"].delta_indices), sum(processor.action_widths(tag).values())),
        calibration if chosen in CALIBRATED else None,
    )


def capability_of(target: str) -> int | None:
    """Of a target, 89 for sm89; None where it is not known."""
    if target == "current":
        name = capability_name()
        return None if name is None else int(name[2:])
    digits = target.removeprefix("sm")
    return int(digits) if target.startswith("sm") and digits.isdigit() else None


def capability_name() -> str | None:
    """Of the GPU here, as sm89; None without one."""
    if not torch.cuda.is_available():
        return None
    major, minor = torch.cuda.get_device_capability()
    return f"sm{major}{minor}"
