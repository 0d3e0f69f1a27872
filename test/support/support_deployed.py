# SPDX-License-Identifier: Apache-2.0
"""For tests of what is made from the deployed form: small forms, observations, and their engines' inputs."""

import atexit
import functools
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gr00t_model.config import Gr00tN1d6Config
from gr00t_model.inference.deployed import Deployed, deploy
from gr00t_model.inference.layout import lay_out
from gr00t_model.inference.observations import EncodedObservation
from gr00t_model.inference.trt.export import ActionModule, BackboneModule, Shapes, export, shapes_of
from gr00t_model.inference.trt.prompt import group_images, prompt_for
from gr00t_model.network import Gr00tN1d6
from gr00t_model.pixels import pixels_to_float
from support_engines import EMBODIMENT, ragged_inputs, randomise
from support_network import small_config


def small_form(dtype: torch.dtype = torch.float32, **changes: Any) -> Deployed:
    """A small random network's deployed form with two denoising steps; time modulations, biases and positions
    matter.

    It has one layer of each kind, because an export takes seconds a layer: a vision layer, a language layer,
    and the DiT's blocks for text, image and self-attention.
    """
    torch.manual_seed(0)
    eagle = json.loads(json.dumps(small_config().eagle()))
    eagle["vision_config"]["num_hidden_layers"] = 1
    config = small_config(**{"eagle_config": eagle, "select_layer": 1, **changes})
    return deploy(randomise(Gr00tN1d6(config)).to(dtype), EMBODIMENT, num_steps=2)


@functools.cache
def bfloat16_export() -> tuple[Deployed, Shapes, Path]:
    """The small form in bfloat16 and its ONNX files for one image of 56 x 56, made once a run; not to be
    changed."""
    folder = Path(tempfile.mkdtemp(prefix="gr00t_ros_onnx_"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    form = small_form(torch.bfloat16)
    shapes = shapes_of(form.config, [(56, 56)])
    export(form, folder, shapes)
    return form, shapes, folder


def observation(config: Gr00tN1d6Config, text: int, sizes: Sequence[tuple[int, int]]) -> EncodedObservation:
    """An observation with this many text tokens and images of these sizes."""
    inputs = ragged_inputs(config, [text], [list(sizes)])
    generator = np.random.default_rng(text)
    inputs["pixel_values"] = [
        torch.from_numpy(generator.integers(0, 256, (1, 3, *size), dtype=np.uint8)) for size in sizes
    ]
    noise = generator.standard_normal((1, config.action_horizon, config.max_action_dim), dtype=np.float32)
    state = generator.standard_normal((1, 1, 3), dtype=np.float32)
    return EncodedObservation(inputs, {"joints": state}, noise)


def form_actions(form: Deployed, given: EncodedObservation, guidance: Any = None) -> Tensor:
    """What the deployed form does with it, batch 1, not padded to a bucket."""
    inputs = given.inputs
    images = [pixels_to_float(image).to(form.dtype) for image in inputs["pixel_values"]]
    layout = lay_out(inputs["input_ids"], inputs["attention_mask"], form.config.image_token_id)
    pair = () if guidance is None else (torch.from_numpy(guidance.prefix), torch.from_numpy(guidance.weight))
    with torch.inference_mode():
        return form(images, layout, inputs["state"].to(form.dtype), torch.from_numpy(given.noise), *pair)


def engine_inputs(
    form: Deployed, shapes: Shapes, given: EncodedObservation, text_tokens: int, guidance: Any = None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The backbone's inputs, and the action engine's but for what the backbone gives; by name."""
    inputs, config = given.inputs, form.config
    sizes = [tuple(image.shape[-2:]) for image in inputs["pixel_values"]]
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    prompt = prompt_for(
        ids, mask, config.image_token_id, sizes, shapes.groups, config.image_multiple, text_tokens
    )
    first = {
        f"pixels_{k}": torch.cat([pixels_to_float(inputs["pixel_values"][i]) for i in own]).to(form.dtype)
        for k, own in enumerate(group_images(sizes, shapes.groups))
    }
    first["text_embeddings"] = form.embed_tokens[prompt.text_ids]
    first |= {"order": prompt.order, "text_index": prompt.text_index, "image_index": prompt.image_index}
    noise = torch.from_numpy(given.noise)
    weight = torch.ones(form.num_steps, noise.shape[1])
    second = {"text_mask": prompt.text_mask, "state": inputs["state"], "noise": noise}
    second["prefix"] = torch.zeros_like(noise) if guidance is None else torch.from_numpy(guidance.prefix)
    second["weight"] = weight if guidance is None else torch.from_numpy(guidance.weight)
    return first, second


def module_functions(form: Deployed, shapes: Shapes) -> dict[str, Any]:
    """The engines as functions of tensors by name, for a TensorRT that is not there."""
    backbone, action = BackboneModule(form, shapes), ActionModule(form)

    def run_backbone(**given: Tensor) -> dict[str, Tensor]:
        pixels = [given.pop(name) for name in sorted(given) if name.startswith("pixels_")]
        with torch.inference_mode():
            text, image = backbone(pixels, **given)
        return {"text_features": text, "image_features": image}

    def run_action(**given: Tensor) -> dict[str, Tensor]:
        with torch.inference_mode():
            return {"actions": action(**given)}

    return {"backbone": run_backbone, "action": run_action}


def onnx_actions(folder: Path, first: dict[str, Tensor], second: dict[str, Tensor]) -> Tensor:
    """Both ONNX files run by onnxruntime on the CPU, one after the other."""
    import onnxruntime

    def run(name: str, given: dict[str, Tensor]) -> dict[str, Tensor]:
        options = onnxruntime.SessionOptions()
        # As the file says: fused 8-bit products saturate on some CPUs.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 3
        path = str(folder / f"{name}.onnx")
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        found = session.run(names, {key: value.numpy() for key, value in given.items()})
        return {key: torch.from_numpy(value) for key, value in zip(names, found, strict=True)}

    return run("action", run("backbone", first) | second)["actions"]
