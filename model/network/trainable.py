# SPDX-License-Identifier: Apache-2.0
"""Which parts of the network are trained, and in which number types.

The flags are the published configuration's. By default the action head and the top language layers are
trained; the vision tower, the projector, the embeddings and the lower language layers are frozen.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from gr00t_model.errors import ConfigError

if TYPE_CHECKING:
    from gr00t_model.network.model import Gr00tN1d6

FLAGS = (
    "tune_visual",
    "tune_llm",
    "tune_top_llm_layers",
    "tune_projector",
    "tune_diffusion_model",
    "tune_vlln",
)


def set_trainable(model: "Gr00tN1d6", **flags: Any) -> None:
    """Set requires_grad throughout, from the flags given and, for the others, from the configuration.

    tune_visual: vision tower and mlp1. tune_llm: the whole language model. tune_top_llm_layers: that many
    of its last layers, whatever tune_llm says. tune_projector: state and action encoders, decoder, position
    table, mask token. tune_diffusion_model: the diffusion transformer. tune_vlln: the norm in front of it.

    Raises:
        ConfigError: an unknown flag, or more top layers than there are.
    """
    config = model.config
    for name, value in flags.items():
        if name not in FLAGS:
            raise ConfigError(f"{name} does not say what to train; known are {', '.join(FLAGS)}")
        if name == "tune_top_llm_layers" and not 0 <= value <= config.select_layer:
            raise ConfigError(f"{name} is {value!r}; expected 0 to select_layer {config.select_layer}")
        setattr(config, name, value)

    eagle, head = model.backbone.model, model.action_head
    eagle.vision_model.requires_grad_(config.tune_visual)
    eagle.mlp1.requires_grad_(config.tune_visual)
    eagle.language_model.requires_grad_(config.tune_llm)
    layers = eagle.language_model.model.layers
    for layer in layers[len(layers) - config.tune_top_llm_layers :]:
        layer.requires_grad_(True)

    head.requires_grad_(config.tune_projector)
    head.model.requires_grad_(config.tune_diffusion_model)
    head.vlln.requires_grad_(config.tune_vlln)


def keep_frozen_in_eval(module: nn.Module) -> None:
    """Put every part whose parameters are all frozen into eval mode, so that its dropout stays off."""
    parameters = list(module.parameters())
    if parameters and not any(parameter.requires_grad for parameter in parameters):
        module.eval()
        # Gradients pass through frozen layers to what is trained in front of them, and transformers
        # checkpoints a layer only in training mode. These have no dropout of their own, it is in modules
        # below them.
        for layer in module.modules():
            if isinstance(layer, GradientCheckpointingLayer):
                layer.training = layer.gradient_checkpointing
        return
    for child in module.children():
        keep_frozen_in_eval(child)


def cast_for_training(model: "Gr00tN1d6") -> None:
    """The types of mixed-precision training (under bfloat16 autocast): the action head in float32, the
    backbone in bfloat16 where `load_bf16` says so, its trained parameters in float32 where
    `backbone_trainable_params_fp32` does."""
    config = model.config
    model.action_head.to(torch.float32)
    model.backbone.to(torch.bfloat16 if config.load_bf16 else torch.float32)
    if config.backbone_trainable_params_fp32:
        for parameter in model.backbone.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.to(torch.float32)
