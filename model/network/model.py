# SPDX-License-Identifier: Apache-2.0
"""GR00T N1.6 as one model: what training, checking and the inference engines all start from.

Built for reading and for parity with the published checkpoint, name for name; `inference/` lays the same
weights out for speed. Takes prepared tensors only: `processing/` makes them from images, words and joint
values.
"""

import os
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from gr00t_model.config import Gr00tN1d6Config
from gr00t_model.network import inputs as checks
from gr00t_model.network.action_head import ActionHead
from gr00t_model.network.eagle import Backbone, Features
from gr00t_model.network.initial import initialise
from gr00t_model.network.trainable import cast_for_training, keep_frozen_in_eval, set_trainable


class Gr00tN1d6(PreTrainedModel):
    """The network. `state_dict()` has the published checkpoint's names and shapes.

    Inputs of `forward` and `get_action` are a mapping of
      input_ids       int64 [B, L], left-padded
      attention_mask  int64 [B, L], 1 on real tokens
      pixel_values    list of float [1, 3, H, W] in [-1, 1], ordered by sample, time, view;
                      H and W multiples of 28
      state           float [B, T, max_state_dim], normalised and zero-padded
      embodiment_id   int64 [B]
      action          float [B, H, max_action_dim], normalised (training only)
      action_mask     like action, 1 on real steps and dimensions (training only)
    Tensors may lie on any device and have any float type; they are moved to the model's.
    """

    config_class = Gr00tN1d6Config
    base_model_prefix = "gr00t"
    main_input_name = "inputs"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["LanguageLayer", "Siglip2EncoderLayer", "DitBlock"]  # noqa: RUF012 - as transformers has it

    def __init__(self, config: Gr00tN1d6Config) -> None:
        super().__init__(config)
        self.backbone = Backbone(config)
        self.action_head = ActionHead(config)
        initialise(self)
        self.post_init()
        self.set_trainable()

    @classmethod
    def on_meta(cls, config: Gr00tN1d6Config) -> "Gr00tN1d6":
        """The network without memory for its weights: names, shapes and structure only."""
        with torch.device("meta"):
            return cls(config)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor of a checkpoint of this network."""
        return {name: tuple(tensor.shape) for name, tensor in self.state_dict().items()}

    def _init_weights(self, module: torch.nn.Module) -> None:
        """Nothing: `initialise` has given every parameter its value, from one table by name."""

    # ---- use -------------------------------------------------------------------------------------

    def forward(
        self, inputs: Mapping[str, Any], noise: Tensor | None = None, time: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The training loss; with noise [B, H, max_action_dim] and time [B] given (and dropout off) it is
        deterministic. N draws of them for the whole batch, [N * B, ...], share one pass of the backbone.

        Returns: "loss" (scalar), "action_loss" and "action_mask" [N * B, H, max_action_dim],
        "backbone_features" [B, L, W].

        Raises:
            ObservationError, EmbodimentError: an input is missing, misshaped or out of range.
        """
        prepared = checks.prepare(inputs, self, training=True)
        features = self._features(prepared)
        head = self.action_head
        results = head.loss(
            features,
            prepared["state"],
            prepared["embodiment_id"],
            prepared["action"],
            prepared["action_mask"],
            checks.prepare_noise(noise, prepared, self),
            checks.prepare_time(time, noise, prepared),
        )
        return {**results, "backbone_features": features.values}

    @torch.no_grad()
    def get_action(
        self,
        inputs: Mapping[str, Any],
        noise: Tensor | None = None,
        *,
        num_steps: int | None = None,
        horizon: int | None = None,
    ) -> dict[str, Tensor]:
        """A chunk of normalised actions.

        noise is the starting point [B, horizon, max_action_dim], standard normal when None. num_steps and
        horizon default to the configuration's; a horizon may be shorter than it. Layers compute in the
        model's type, as in the reference; noise and the running sum of the Euler steps stay float32 in any
        model, which the reference rounds to bfloat16 as well.

        Returns: "action_pred" float32 [B, horizon, max_action_dim], "backbone_features" [B, L, W].

        Raises:
            ObservationError, EmbodimentError: an input is missing, misshaped or out of range.
        """
        prepared = checks.prepare(inputs, self, training=False)
        steps = checks.step_count(num_steps, self.config)
        start = checks.starting_noise(noise, horizon, prepared, self)
        features = self._features(prepared)
        actions = self.action_head.denoise(
            features, prepared["state"], prepared["embodiment_id"], start, steps
        )
        return {"action_pred": actions.float(), "backbone_features": features.values}

    def _features(self, prepared: Mapping[str, Any]) -> Features:
        return self.backbone(prepared["input_ids"], prepared["attention_mask"], prepared["pixel_values"])

    # ---- training --------------------------------------------------------------------------------

    def set_trainable(self, **flags: Any) -> None:
        """Choose what is trained: tune_visual, tune_llm, tune_top_llm_layers, tune_projector,
        tune_diffusion_model, tune_vlln; what is not given comes from the configuration, which keeps what is
        given."""
        set_trainable(self, **flags)

    def cast_for_training(self) -> None:
        """Put parameters into the reference's training types: frozen backbone bfloat16, the rest float32."""
        cast_for_training(self)

    def train(self, mode: bool = True) -> "Gr00tN1d6":
        """As for any module, except that frozen parts stay in eval mode."""
        super().train(mode)
        if mode:
            keep_frozen_in_eval(self)
        return self

    def gradient_checkpointing_enable(
        self, gradient_checkpointing_kwargs: Mapping[str, Any] | None = None, **others: Any
    ) -> None:
        """As transformers has it, but never re-entrant, whatever is asked for and whatever the default.

        Re-entrant checkpointing gives gradients only where an input of the layer requires one. The layers
        below the trained ones are frozen here, so it would train nothing in the language model, in silence;
        and it is the default of transformers 4.
        """
        kwargs = {**(gradient_checkpointing_kwargs or {}), "use_reentrant": False}
        with warnings.catch_warnings():
            # Transformers 5 comes through here from the switch's new name too, and would warn of the old one.
            warnings.simplefilter("ignore", FutureWarning)
            super().gradient_checkpointing_enable(kwargs, **others)

    # ---- files -----------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        directory: str | os.PathLike[str],
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
    ) -> "Gr00tN1d6":
        """See `gr00t_model.checkpoint.load_model`: strict, streaming, running no code of the checkpoint."""
        from gr00t_model.checkpoint import load_model

        return load_model(directory, device=device, dtype=dtype)

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:  # type: ignore[override]
        """See `gr00t_model.checkpoint.save_model`."""
        from gr00t_model.checkpoint import save_model

        save_model(self, directory)
