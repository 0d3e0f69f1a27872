# SPDX-License-Identifier: Apache-2.0
"""Checks of what enters the network, so that a wrong input is named instead of failing, or passing, deep
inside.

`Gr00tN1d6` calls these first; they also move tensors to the model's device and type.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gr00t_model.config import Gr00tN1d6Config
from gr00t_model.errors import EmbodimentError, ObservationError
from gr00t_model.sizes import is_int

if TYPE_CHECKING:
    from gr00t_model.network.model import Gr00tN1d6

_ALWAYS = ("input_ids", "attention_mask", "pixel_values", "state", "embodiment_id")
_TRAINING = ("action", "action_mask")


class Checked(dict[str, Any]):
    """Inputs that :func:`check` has seen, and that are not looked at again.

    Looking at values that lie on a GPU makes the host wait until it has computed all that it was given. Who
    has them in main memory at first can look there, and pass on these.
    """


def check(
    inputs: Mapping[str, Any], config: Gr00tN1d6Config, *, training: bool = False, raw_pixels: bool = False
) -> Checked:
    """The inputs as they were given, ids and masks as int64, once all that can be wrong has been looked for.

    raw_pixels: images may be uint8, still to be scaled to [-1, 1].

    Raises:
        ObservationError: an input is missing or misshaped, or a sample has no image token.
        EmbodimentError: an embodiment id outside the checkpoint's.
    """
    missing = [name for name in (*_ALWAYS, *(_TRAINING if training else ())) if name not in inputs]
    if missing:
        raise ObservationError(f"the network's inputs lack {', '.join(missing)}")
    ids = _integers(inputs["input_ids"], "input_ids")
    batch, length = ids.shape
    mask = _integers(inputs["attention_mask"], "attention_mask")
    _shape(mask, (batch, length), "attention_mask")
    _check_tokens(ids, mask, config)
    state = inputs["state"]
    if (
        state.ndim != 3
        or state.shape[0] != batch
        or state.shape[2] != config.max_state_dim
        or state.shape[1] == 0
    ):
        raise ObservationError(
            f"state has shape {list(state.shape)}; expected [{batch}, T, {config.max_state_dim}]"
        )
    embodiment = _integers(inputs["embodiment_id"], "embodiment_id")
    _shape(embodiment, (batch,), "embodiment_id")
    _check_embodiment(embodiment, config.max_num_embodiments)
    images = inputs["pixel_values"]
    _check_images(images, int((ids == config.image_token_id).sum()), config, raw_pixels)
    checked = Checked(
        input_ids=ids,
        attention_mask=mask,
        pixel_values=images,
        state=state,
        embodiment_id=embodiment,
    )
    if training:
        action, action_mask = inputs["action"], inputs["action_mask"]
        if action.ndim != 3 or action.shape[0] != batch or action.shape[2] != config.max_action_dim:
            raise ObservationError(
                f"action has shape {list(action.shape)}; expected [{batch}, H, {config.max_action_dim}]"
            )
        check_horizon(action.shape[1], config)
        _shape(action_mask, tuple(action.shape), "action_mask")
        checked.update(action=action, action_mask=action_mask)
    return checked


def prepare(inputs: Mapping[str, Any], model: "Gr00tN1d6", *, training: bool) -> dict[str, Any]:
    """Inputs on the model's device, checked (`check`) unless they are `Checked`; images in the vision tower's
    type, state and action in the head's."""
    checked = inputs if isinstance(inputs, Checked) else check(inputs, model.config, training=training)
    vision_type = model.backbone.model.vision_model.vision_model.embeddings.patch_embedding.weight.dtype
    head_type = model.action_head.state_encoder.layer1.W.dtype
    types = dict.fromkeys(("state", "action", "action_mask"), head_type)
    return {
        name: [image.to(model.device, vision_type) for image in value]
        if name == "pixel_values"
        else value.to(model.device, types.get(name))
        for name, value in checked.items()
    }


def starting_noise(
    noise: Tensor | None, horizon: int | None, prepared: Mapping[str, Any], model: Any
) -> Tensor:
    """The Euler loop's starting point [B, horizon, max_action_dim], given or drawn; float32 (float64 in
    such a model)."""
    state = prepared["state"]
    wanted = model.config.action_horizon if horizon is None else horizon
    if horizon is None and noise is not None and noise.ndim == 3:
        wanted = noise.shape[1]
    check_horizon(wanted, model.config)
    shape = (len(state), wanted, model.config.max_action_dim)
    dtype = torch.promote_types(state.dtype, torch.float32)
    if noise is None:
        return torch.randn(shape, dtype=dtype, device=state.device)
    _shape(noise, shape, "noise")
    return noise.to(state.device, dtype)


def prepare_noise(noise: Tensor | None, prepared: Mapping[str, Any], model: Any) -> Tensor | None:
    """The training noise, checked, or None to have it drawn: one draw of the batch or several, one after the
    other."""
    if noise is not None:
        batch, *rest = prepared["action"].shape
        draws = max(1, len(noise) // batch) if noise.ndim else 1
        _shape(noise, (draws * batch, *rest), "noise")
    return noise


def prepare_time(time: Tensor | None, noise: Tensor | None, prepared: Mapping[str, Any]) -> Tensor | None:
    """The training time, as many as there are of the noise, checked; or None to have it drawn."""
    if time is not None:
        _shape(time, (len(prepared["state"] if noise is None else noise),), "time")
    return time


def check_horizon(horizon: int, config: Gr00tN1d6Config) -> None:
    """ObservationError unless 1 <= horizon <= the checkpoint's."""
    if not 1 <= horizon <= config.action_horizon:
        raise ObservationError(
            f"a horizon of {horizon} steps was asked for; this checkpoint has 1 to {config.action_horizon}"
        )


def step_count(num_steps: int | None, config: Gr00tN1d6Config) -> int:
    """The number of denoising steps: given, or the configuration's."""
    steps = config.num_inference_timesteps if num_steps is None else num_steps
    if not is_int(steps) or not 1 <= steps <= config.num_timestep_buckets:
        raise ObservationError(
            f"{steps!r} denoising steps were asked for; expected 1 to {config.num_timestep_buckets}"
        )
    return steps


def _integers(value: Tensor, name: str) -> Tensor:
    if value.is_floating_point():
        raise ObservationError(f"{name} has type {value.dtype}; expected an integer type")
    if value.ndim != (1 if name == "embodiment_id" else 2):
        raise ObservationError(
            f"{name} has shape {list(value.shape)}; expected one dimension for the batch"
            + ("" if name == "embodiment_id" else " and one for the tokens")
        )
    return value.long()


def _shape(value: Tensor, expected: tuple[int, ...], name: str) -> None:
    if tuple(value.shape) != expected:
        raise ObservationError(f"{name} has shape {list(value.shape)}; expected {list(expected)}")


def _check_tokens(ids: Tensor, mask: Tensor, config: Gr00tN1d6Config) -> None:
    vocabulary = config.language.vocab_size
    if bool(((ids < 0) | (ids >= vocabulary)).any()):
        raise ObservationError(f"input_ids hold a token outside 0..{vocabulary - 1}")
    # The image-attending blocks would have nothing to attend to, which is undefined (NaN).
    without = ~((ids == config.image_token_id) & (mask == 1)).any(dim=1)
    if bool(without.any()):
        raise ObservationError(
            f"sample {int(without.nonzero()[0])} of the batch has no image token "
            f"(id {config.image_token_id}); each sample needs at least one image"
        )


def _check_embodiment(embodiment: Tensor, count: int) -> None:
    outside = embodiment[(embodiment < 0) | (embodiment >= count)]
    if len(outside):
        raise EmbodimentError(f"embodiment id {int(outside[0])} is outside this checkpoint's 0..{count - 1}")


def _check_images(images: Sequence[Tensor], places: int, config: Gr00tN1d6Config, raw: bool) -> None:
    """Each image by itself, and all of them against the number of image tokens in the prompts."""
    multiple = config.image_multiple
    for index, image in enumerate(images):
        fits = image.ndim == 4 and tuple(image.shape[:2]) == (1, 3) and min(image.shape[2:]) > 0
        if not fits or image.shape[2] % multiple or image.shape[3] % multiple:
            raise ObservationError(
                f"pixel_values[{index}] has shape {list(image.shape)}; expected [1, 3, H, W] with H and W "
                f"multiples of {multiple}"
            )
        if not image.is_floating_point() and not (raw and image.dtype == torch.uint8):
            raise ObservationError(
                f"pixel_values[{index}] has type {image.dtype}; expected floats in [-1, 1]"
            )
    tokens = sum(image.shape[2] * image.shape[3] // multiple**2 for image in images)
    if tokens != places:
        raise ObservationError(
            f"input_ids hold {places} image tokens (id {config.image_token_id}), but the {len(images)} "
            f"images give {tokens}: one for each {multiple} x {multiple} pixels"
        )
