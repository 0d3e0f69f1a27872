# SPDX-License-Identifier: Apache-2.0
"""Whether a configuration describes a network that can be built, field by field; `config.py` calls this."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gr00t_model.sizes import is_int, is_number, require

if TYPE_CHECKING:
    from gr00t_model.config import Gr00tN1d6Config

_COUNTS = (
    "backbone_embedding_dim",
    "select_layer",
    "max_state_dim",
    "max_action_dim",
    "action_horizon",
    "hidden_size",
    "input_embedding_dim",
    "max_seq_len",
    "attend_text_every_n_blocks",
    "num_inference_timesteps",
    "num_timestep_buckets",
    "max_num_embodiments",
)
_SWITCHES = (
    "add_pos_embed",
    "use_vlln",
    "use_alternate_vl_dit",
    "tune_llm",
    "tune_visual",
    "tune_projector",
    "tune_diffusion_model",
    "tune_vlln",
    "load_bf16",
    "backbone_trainable_params_fp32",
)
_POSITIVE = ("noise_beta_alpha", "noise_beta_beta", "noise_s")

# Switches that the network has in one position only.
_FIXED: dict[str, Any] = {
    "reproject_vision": False,
    "backbone_model_type": "eagle",
    "eagle_config.use_pixel_shuffle": True,
    "eagle_config.downsample_ratio": 0.5,
    "eagle_config.mlp_connector_layers": 2,
    "eagle_config.select_layer": -1,
    "eagle_config.dynamic_image_size": False,
    "eagle_config.vision_config.use_rope": False,
    "eagle_config.vision_config.use_windows_attn": False,
    "eagle_config.vision_config.hidden_act": "gelu_pytorch_tanh",
    "eagle_config.vision_config.attention_dropout": 0.0,
    "eagle_config.text_config.attention_bias": False,
    "eagle_config.text_config.attention_dropout": 0.0,
    "eagle_config.text_config.hidden_act": "silu",
    "eagle_config.text_config.rope_scaling": None,
    "eagle_config.text_config.use_sliding_window": False,
    "diffusion_model_cfg.positional_embeddings": None,
    "diffusion_model_cfg.norm_type": "ada_norm",
}
_ABSENT = object()


def check(config: "Gr00tN1d6Config") -> None:
    """Refuse what is impossible, contradictory or not implemented.

    Raises:
        ConfigError: names the field, the value found and what was expected.
    """
    _check_types(config)
    for name, only in _FIXED.items():
        found = _find(config, name)
        require(found is _ABSENT or found == only, name, found, f"{only!r}: nothing else is implemented")
    _check_agreement(config)


def check_names(others: Mapping[str, Any], kind: type) -> None:
    """Refuse fields that would replace a method or property of the configuration class `kind`.

    Raises:
        ConfigError: names the field.
    """
    for name, value in others.items():
        own = getattr(kind, name, None)
        fixed = callable(own) or (isinstance(own, property) and own.fset is None)
        require(not fixed, name, value, "no such field: the configuration computes what goes by this name")


def _find(config: "Gr00tN1d6Config", name: str) -> Any:
    """The value at a dotted name, or _ABSENT."""
    first, *rest = name.split(".")
    value = config.eagle() if first == "eagle_config" else getattr(config, first, _ABSENT)
    for part in rest:
        value = value.get(part, _ABSENT) if isinstance(value, Mapping) else _ABSENT
    return value


def _check_types(config: "Gr00tN1d6Config") -> None:
    for name in _COUNTS:
        found = getattr(config, name)
        require(is_int(found) and found > 0, name, found, "a positive integer")
    steps, buckets = config.num_inference_timesteps, config.num_timestep_buckets
    require(steps <= buckets, "num_inference_timesteps", steps, f"at most num_timestep_buckets {buckets}")
    for name in _SWITCHES:
        found = getattr(config, name)
        require(isinstance(found, bool), name, found, "true or false")
    for name in _POSITIVE:
        found = getattr(config, name)
        require(is_number(found) and found > 0, name, found, "a positive number")
    require(config.noise_s <= 1, "noise_s", config.noise_s, "at most 1")
    chance = config.state_dropout_prob
    require(is_number(chance) and 0 <= chance <= 1, "state_dropout_prob", chance, "a probability")
    scale = config.state_additive_noise_scale
    require(is_number(scale) and scale >= 0, "state_additive_noise_scale", scale, "zero or a positive number")
    for name, section in (
        ("eagle_config", config.eagle()),
        ("diffusion_model_cfg", config.diffusion_model_cfg),
    ):
        require(isinstance(section, Mapping), name, section, "an object")
    require(
        config.eagle_config is not None or "Eagle-Block2A-2B-v2" in str(config.model_name),
        "model_name",
        config.model_name,
        "an Eagle-Block2A-2B-v2, or an eagle_config that gives its sizes",
    )
    token = config.eagle().get("image_token_index")
    require(is_int(token), "eagle_config.image_token_index", token, "a token id")


def _check_agreement(config: "Gr00tN1d6Config") -> None:
    vision, language, dit = config.vision, config.language, config.dit

    def agree(condition: bool, name: str, expected: str) -> None:
        require(condition, name, _find(config, name), expected)

    name = "eagle_config.vision_config.num_patches"
    agree(int(vision.num_patches**0.5) ** 2 == vision.num_patches, name, "a square number")
    name = "eagle_config.vision_config.num_attention_heads"
    agree(vision.hidden_size % vision.num_attention_heads == 0, name, f"a divisor of {vision.hidden_size}")
    name = "eagle_config.text_config.num_key_value_heads"
    heads = language.num_attention_heads
    agree(heads % language.num_key_value_heads == 0, name, f"a divisor of num_attention_heads {heads}")
    agree(language.rope_theta > 0, "eagle_config.text_config.rope_theta", "a positive number")
    agree(language.head_dim % 2 == 0, "eagle_config.text_config.head_dim", "an even number")
    agree(
        0 <= config.image_token_id < language.vocab_size,
        "eagle_config.image_token_index",
        f"a token below vocab_size {language.vocab_size}",
    )
    agree(
        config.backbone_embedding_dim == language.hidden_size,
        "backbone_embedding_dim",
        f"the language model's hidden_size {language.hidden_size}",
    )
    layers = language.num_hidden_layers
    agree(config.select_layer <= layers, "select_layer", f"at most the language model's {layers} layers")
    agree(
        is_int(config.tune_top_llm_layers) and 0 <= config.tune_top_llm_layers <= config.select_layer,
        "tune_top_llm_layers",
        f"0 to select_layer {config.select_layer}",
    )
    agree(
        config.input_embedding_dim == dit.width and dit.width % 2 == 0,
        "input_embedding_dim",
        f"diffusion_model_cfg's num_attention_heads * attention_head_dim = {dit.width}, and even",
    )
    agree(
        config.hidden_size == dit.output_dim,
        "hidden_size",
        f"diffusion_model_cfg.output_dim = {dit.output_dim}, which the action decoder reads",
    )
    agree(
        dit.interleave_self_attention or not config.use_alternate_vl_dit,
        "diffusion_model_cfg.interleave_self_attention",
        "true when use_alternate_vl_dit is",
    )
    agree(
        config.action_horizon <= config.max_seq_len or not config.add_pos_embed,
        "action_horizon",
        f"at most max_seq_len {config.max_seq_len}",
    )
