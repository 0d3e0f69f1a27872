# SPDX-License-Identifier: Apache-2.0
"""What a GR00T N1.6 network is made of: every size and switch, read from a checkpoint's config.json and checked.

The network is built from this and from nothing else. Four presets cover the published sizes and three others; anything
the network cannot honour is refused here, with the field's name, before a single tensor is made.
"""

import copy
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, TypeVar

from transformers import PretrainedConfig

from gr00t_model import presets
from gr00t_model.errors import ConfigError

MODEL_TYPE = "Gr00tN1d6"

# The released DiT: 32 blocks, 32 heads of 48.
RELEASED_DIT: dict[str, Any] = {
    "positional_embeddings": None,
    "num_layers": 32,
    "num_attention_heads": 32,
    "attention_head_dim": 48,
    "norm_type": "ada_norm",
    "dropout": 0.2,
    "final_dropout": True,
    "output_dim": 1024,
    "interleave_self_attention": True,
}

# Two image patches on a side make one token: the unshuffle factor, and with the patch size what images are multiples of.
UNSHUFFLE = 2


@dataclass(frozen=True)
class VisionSizes:
    """The SigLIP-2 tower (`eagle_config.vision_config`)."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_patches: int
    patch_size: int
    layer_norm_eps: float = 1e-6
    num_channels: int = 3


@dataclass(frozen=True)
class LanguageSizes:
    """The Qwen3 stack before it is cut (`eagle_config.text_config`)."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    rope_theta: float
    rms_norm_eps: float = 1e-6


@dataclass(frozen=True)
class DitSizes:
    """The diffusion transformer (`diffusion_model_cfg`). Its width is num_attention_heads * attention_head_dim."""

    num_layers: int
    num_attention_heads: int
    attention_head_dim: int
    output_dim: int
    dropout: float = 0.0
    final_dropout: bool = True
    interleave_self_attention: bool = True

    @property
    def width(self) -> int:
        return self.num_attention_heads * self.attention_head_dim


# Switches of the two nested configurations that the network has in one position only, and what it has them in.
_FIXED: dict[str, dict[str, tuple[Any, ...]]] = {
    "eagle_config": {"use_pixel_shuffle": (True,), "downsample_ratio": (0.5,), "mlp_connector_layers": (2,),
                     "select_layer": (-1,), "dynamic_image_size": (False,)},
    "eagle_config.vision_config": {"use_rope": (False,), "use_windows_attn": (False,),
                                   "hidden_act": ("gelu_pytorch_tanh",), "attention_dropout": (0.0,)},
    "eagle_config.text_config": {"attention_bias": (False,), "attention_dropout": (0.0,), "hidden_act": ("silu",),
                                 "rope_scaling": (None,), "use_sliding_window": (False,)},
    "diffusion_model_cfg": {"positional_embeddings": (None,), "norm_type": ("ada_norm",)},
}  # fmt: skip

_COUNTS = ("backbone_embedding_dim", "select_layer", "max_state_dim", "max_action_dim", "action_horizon", "hidden_size",
           "input_embedding_dim", "max_seq_len", "attend_text_every_n_blocks", "num_inference_timesteps",
           "num_timestep_buckets", "max_num_embodiments")  # fmt: skip
_SWITCHES = ("add_pos_embed", "use_vlln", "use_alternate_vl_dit", "tune_llm", "tune_visual", "tune_projector",
             "tune_diffusion_model", "tune_vlln", "load_bf16", "backbone_trainable_params_fp32")  # fmt: skip
_POSITIVE = ("noise_beta_alpha", "noise_beta_beta", "noise_s")


class Gr00tN1d6Config(PretrainedConfig):
    """The configuration of one GR00T N1.6 network.

    Keywords are the fields of a published config.json; what is not given has the released checkpoint's value. Fields
    this class does not know (a checkpoint's image settings, say) are kept and written back. `eagle_config` describes
    vision and language; None means the released Eagle-Block2A-2B-v2 sizes.

    Raises:
        ConfigError: a value that is impossible, that contradicts another, or that this network does not implement.
    """

    model_type = MODEL_TYPE

    def __init__(
        self,
        *,
        model_name: str = "nvidia/Eagle-Block2A-2B-v2",
        backbone_model_type: str = "eagle",
        eagle_config: Mapping[str, Any] | None = None,
        backbone_embedding_dim: int = 2048,
        select_layer: int = 16,
        max_state_dim: int = 128,
        max_action_dim: int = 128,
        action_horizon: int = 50,
        hidden_size: int = 1024,
        input_embedding_dim: int = 1536,
        add_pos_embed: bool = True,
        use_vlln: bool = True,
        max_seq_len: int = 1024,
        use_alternate_vl_dit: bool = True,
        attend_text_every_n_blocks: int = 2,
        diffusion_model_cfg: Mapping[str, Any] | None = None,
        num_inference_timesteps: int = 4,
        noise_beta_alpha: float = 1.5,
        noise_beta_beta: float = 1.0,
        noise_s: float = 0.999,
        num_timestep_buckets: int = 1000,
        state_dropout_prob: float = 0.0,
        state_additive_noise_scale: float = 0.0,
        max_num_embodiments: int = 32,
        tune_top_llm_layers: int = 4,
        tune_llm: bool = False,
        tune_visual: bool = False,
        tune_projector: bool = True,
        tune_diffusion_model: bool = True,
        tune_vlln: bool = True,
        load_bf16: bool = True,
        backbone_trainable_params_fp32: bool = True,
        **others: Any,
    ) -> None:
        self.model_name = model_name
        self.backbone_model_type = backbone_model_type
        self.eagle_config = None if eagle_config is None else copy.deepcopy(dict(eagle_config))
        self.backbone_embedding_dim = backbone_embedding_dim
        self.select_layer = select_layer
        self.max_state_dim = max_state_dim
        self.max_action_dim = max_action_dim
        self.action_horizon = action_horizon
        self.hidden_size = hidden_size
        self.input_embedding_dim = input_embedding_dim
        self.add_pos_embed = add_pos_embed
        self.use_vlln = use_vlln
        self.max_seq_len = max_seq_len
        self.use_alternate_vl_dit = use_alternate_vl_dit
        self.attend_text_every_n_blocks = attend_text_every_n_blocks
        self.diffusion_model_cfg = copy.deepcopy(dict(diffusion_model_cfg or RELEASED_DIT))
        self.num_inference_timesteps = num_inference_timesteps
        self.noise_beta_alpha = noise_beta_alpha
        self.noise_beta_beta = noise_beta_beta
        self.noise_s = noise_s
        self.num_timestep_buckets = num_timestep_buckets
        self.state_dropout_prob = state_dropout_prob
        self.state_additive_noise_scale = state_additive_noise_scale
        self.max_num_embodiments = max_num_embodiments
        self.tune_top_llm_layers = tune_top_llm_layers
        self.tune_llm = tune_llm
        self.tune_visual = tune_visual
        self.tune_projector = tune_projector
        self.tune_diffusion_model = tune_diffusion_model
        self.tune_vlln = tune_vlln
        self.load_bf16 = load_bf16
        self.backbone_trainable_params_fp32 = backbone_trainable_params_fp32
        # lm_head and the embedding are two tensors in the published file; tying would merge them.
        super().__init__(**{"tie_word_embeddings": False, **others})
        self._check()

    # ---- presets -----------------------------------------------------------------------------------------------------

    @classmethod
    def released(cls, **overrides: Any) -> "Gr00tN1d6Config":
        """The released GR00T-N1.6-3B: 128 state, 128 action dimensions, horizon 50; 3.29 G parameters."""
        return cls._preset({}, overrides)

    @classmethod
    def seed(cls, **overrides: Any) -> "Gr00tN1d6Config":
        """The released network at the reference code's older defaults: 29 state, 29 action dimensions, horizon 16."""
        return cls._preset({"max_state_dim": 29, "max_action_dim": 29, "action_horizon": 16}, overrides)

    @classmethod
    def tiny(cls, **overrides: Any) -> "Gr00tN1d6Config":
        """For tests and the demo: the whole architecture with the real vocabulary, about 21 MB in bfloat16."""
        return cls._preset(presets.TINY, overrides)

    @classmethod
    def small(cls, **overrides: Any) -> "Gr00tN1d6Config":
        """About 100 M parameters in the released network's proportions, for measurements that should not take long."""
        return cls._preset(presets.SMALL, overrides)

    @classmethod
    def _preset(cls, values: Mapping[str, Any], overrides: Mapping[str, Any]) -> "Gr00tN1d6Config":
        known = cls().__dict__
        for name in overrides:
            if name not in known or name.startswith("_"):
                raise ConfigError(f"{name} is not a field of Gr00tN1d6Config")
        return cls(**{**values, **overrides})

    # ---- typed views -------------------------------------------------------------------------------------------------

    @property
    def vision(self) -> VisionSizes:
        return _sizes(VisionSizes, self._eagle().get("vision_config"), "eagle_config.vision_config")

    @property
    def language(self) -> LanguageSizes:
        return _sizes(LanguageSizes, self._eagle().get("text_config"), "eagle_config.text_config")

    @property
    def dit(self) -> DitSizes:
        return _sizes(DitSizes, self.diffusion_model_cfg, "diffusion_model_cfg")

    @property
    def image_token_id(self) -> int:
        """The token whose embeddings are replaced by image features."""
        return int(self._eagle()["image_token_index"])

    @property
    def image_multiple(self) -> int:
        """Image height and width are multiples of this many pixels; one such square becomes one token."""
        return UNSHUFFLE * self.vision.patch_size

    def _eagle(self) -> Mapping[str, Any]:
        return presets.RELEASED_EAGLE if self.eagle_config is None else self.eagle_config

    def to_file(self) -> dict[str, Any]:
        """The content of config.json."""
        content = self.to_diff_dict()
        if content.get("eagle_config") is None:
            content.pop("eagle_config", None)
        return {"architectures": [MODEL_TYPE], **{k: content[k] for k in sorted(content) if k != "architectures"}}

    # ---- checks ------------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        for name in _COUNTS:
            _require(_is_int(getattr(self, name)) and getattr(self, name) > 0, name, getattr(self, name),
                     "a positive integer")  # fmt: skip
        for name in _SWITCHES:
            _require(isinstance(getattr(self, name), bool), name, getattr(self, name), "true or false")
        for name in _POSITIVE:
            _require(_is_number(getattr(self, name)) and getattr(self, name) > 0, name, getattr(self, name),
                     "a positive number")  # fmt: skip
        _require(_is_number(self.state_dropout_prob) and 0 <= self.state_dropout_prob <= 1, "state_dropout_prob",
                 self.state_dropout_prob, "a probability")  # fmt: skip
        _require(_is_number(self.state_additive_noise_scale) and self.state_additive_noise_scale >= 0,
                 "state_additive_noise_scale", self.state_additive_noise_scale, "zero or a positive number")  # fmt: skip
        _require(self.noise_s <= 1, "noise_s", self.noise_s, "at most 1")
        _require(self.backbone_model_type == "eagle", "backbone_model_type", self.backbone_model_type, "'eagle'")
        _require(self.eagle_config is not None or "Eagle-Block2A-2B-v2" in self.model_name, "model_name",
                 self.model_name, "an Eagle-Block2A-2B-v2, or an eagle_config that gives its sizes")  # fmt: skip
        _require(_is_int(self._eagle().get("image_token_index")), "eagle_config.image_token_index",
                 self._eagle().get("image_token_index"), "a token id")  # fmt: skip
        self._check_nested()
        self._check_agreement()

    def _check_nested(self) -> None:
        eagle = self._eagle()
        sections = {"eagle_config": eagle, "eagle_config.vision_config": eagle.get("vision_config") or {},
                    "eagle_config.text_config": eagle.get("text_config") or {},
                    "diffusion_model_cfg": self.diffusion_model_cfg}  # fmt: skip
        for section, switches in _FIXED.items():
            for name, allowed in switches.items():
                value = sections[section].get(name, allowed[0])
                _require(value in allowed, f"{section}.{name}", value,
                         " or ".join(map(repr, allowed)) + ", which is all this network implements")  # fmt: skip

    def _check_agreement(self) -> None:
        vision, language, dit = self.vision, self.language, self.dit
        _require(int(vision.num_patches**0.5) ** 2 == vision.num_patches, "eagle_config.vision_config.num_patches",
                 vision.num_patches, "a square number")  # fmt: skip
        _divides(vision.num_attention_heads, vision.hidden_size, "eagle_config.vision_config.num_attention_heads")
        _divides(language.num_key_value_heads, language.num_attention_heads,
                 "eagle_config.text_config.num_key_value_heads")  # fmt: skip
        _require(language.head_dim % 2 == 0, "eagle_config.text_config.head_dim", language.head_dim, "an even number")
        _require(self.backbone_embedding_dim == language.hidden_size, "backbone_embedding_dim",
                 self.backbone_embedding_dim, f"the language model's hidden_size {language.hidden_size}")  # fmt: skip
        _require(self.select_layer <= language.num_hidden_layers, "select_layer", self.select_layer,
                 f"at most the language model's {language.num_hidden_layers} layers")  # fmt: skip
        _require(0 <= self.image_token_id < language.vocab_size, "eagle_config.image_token_index", self.image_token_id,
                 f"below vocab_size {language.vocab_size}")  # fmt: skip
        _require(dit.width == self.input_embedding_dim, "input_embedding_dim", self.input_embedding_dim,
                 f"diffusion_model_cfg's num_attention_heads * attention_head_dim = {dit.width}")  # fmt: skip
        _require(self.input_embedding_dim % 2 == 0, "input_embedding_dim", self.input_embedding_dim, "an even number")
        _require(dit.output_dim == self.hidden_size, "hidden_size", self.hidden_size,
                 f"diffusion_model_cfg.output_dim = {dit.output_dim}, which the action decoder reads")  # fmt: skip
        _require(not self.use_alternate_vl_dit or dit.interleave_self_attention,
                 "diffusion_model_cfg.interleave_self_attention", False, "true when use_alternate_vl_dit is")  # fmt: skip
        _require(not self.add_pos_embed or self.action_horizon <= self.max_seq_len, "action_horizon",
                 self.action_horizon, f"at most max_seq_len {self.max_seq_len}")  # fmt: skip
        _require(_is_int(self.tune_top_llm_layers) and 0 <= self.tune_top_llm_layers <= self.select_layer,
                 "tune_top_llm_layers", self.tune_top_llm_layers, f"0 to select_layer {self.select_layer}")  # fmt: skip


_Sizes = TypeVar("_Sizes", VisionSizes, LanguageSizes, DitSizes)


def _sizes(kind: type[_Sizes], section: Any, where: str) -> _Sizes:
    """The section's fields that `kind` has, as `kind`; each is present, of the right type and positive."""
    _require(isinstance(section, Mapping), where, section, "an object")
    values: dict[str, Any] = {}
    for field in fields(kind):
        required = field.default is MISSING
        if not required and field.name not in section:
            continue
        value = section.get(field.name)
        at = f"{where}.{field.name}"
        if field.type is bool:
            _require(isinstance(value, bool), at, value, "true or false")
        elif field.type is int:
            _require(_is_int(value) and value > 0, at, value, "a positive integer")
        else:
            _require(_is_number(value) and value >= 0, at, value, "a number")
        values[field.name] = value
    return kind(**values)


def _divides(part: int, whole: int, name: str) -> None:
    _require(whole % part == 0, name, part, f"a divisor of {whole}")


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _require(condition: bool, name: str, found: Any, expected: str) -> None:
    if not condition:
        raise ConfigError(f"config field {name} is {found!r}; expected {expected}")
