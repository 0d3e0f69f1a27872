# SPDX-License-Identifier: Apache-2.0
"""What a GR00T N1.6 network is made of: every size and switch of a checkpoint's config.json.

The network is built from this and from nothing else. What it cannot honour is refused here (`config_checks`),
by the field's name, before a single tensor is made.
"""

import copy
from collections.abc import Mapping
from typing import Any

from transformers import PretrainedConfig

from gr00t_model import presets
from gr00t_model.config_checks import check, check_names
from gr00t_model.errors import ConfigError
from gr00t_model.sizes import UNSHUFFLE, DitSizes, LanguageSizes, VisionSizes, read_sizes

MODEL_TYPE = "Gr00tN1d6"


class Gr00tN1d6Config(PretrainedConfig):
    """The configuration of one GR00T N1.6 network.

    Keywords are the fields of a published config.json; what is not given has the released checkpoint's
    value. Fields this class does not know (a checkpoint's image settings, say) are kept and written back.
    `eagle_config` describes vision and language; None means the released Eagle-Block2A-2B-v2 sizes.

    Raises:
        ConfigError: a value that is impossible, that contradicts another, or that this network does not
            implement.
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
        check_names(others, type(self))
        self.model_name = model_name
        self.backbone_model_type = backbone_model_type
        self.eagle_config = copy.deepcopy(eagle_config)
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
        dit = presets.RELEASED_DIT if diffusion_model_cfg is None else diffusion_model_cfg
        self.diffusion_model_cfg = copy.deepcopy(dit)
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
        check(self)

    # ---- presets ---------------------------------------------------------------------------------

    @classmethod
    def released(cls, **overrides: Any) -> "Gr00tN1d6Config":
        """The released GR00T-N1.6-3B: 128 state, 128 action dimensions, horizon 50; 3.29 G parameters."""
        return cls._preset({}, overrides)

    @classmethod
    def seed(cls, **overrides: Any) -> "Gr00tN1d6Config":
        """The released network at its code's older defaults: 29 state and action dimensions, horizon 16."""
        return cls._preset({"max_state_dim": 29, "max_action_dim": 29, "action_horizon": 16}, overrides)

    @classmethod
    def tiny(cls, **overrides: Any) -> "Gr00tN1d6Config":
        """For tests and the demo: all of the architecture, the real vocabulary, 21 MB in bfloat16."""
        return cls._preset(presets.TINY, overrides)

    @classmethod
    def mini(cls, **overrides: Any) -> "Gr00tN1d6Config":
        """For learning a simple task on a laptop: tiny, with an action head that can; 27 MB in bfloat16."""
        return cls._preset(presets.MINI, overrides)

    @classmethod
    def demo(cls, **overrides: Any) -> "Gr00tN1d6Config":
        """For the simulated arm: learns to see and to read; a vocabulary of its own, 8 MB in bfloat16."""
        return cls._preset(presets.DEMO, overrides)

    @classmethod
    def small(cls, **overrides: Any) -> "Gr00tN1d6Config":
        """About 100 M parameters in the released network's proportions, for quick measurements."""
        return cls._preset(presets.SMALL, overrides)

    @classmethod
    def _preset(cls, values: Mapping[str, Any], overrides: Mapping[str, Any]) -> "Gr00tN1d6Config":
        known = cls().__dict__
        for name in overrides:
            if name not in known or name.startswith("_"):
                raise ConfigError(f"{name} is not a field of Gr00tN1d6Config")
        return cls(**{**values, **overrides})

    # ---- typed views -----------------------------------------------------------------------------

    @property
    def vision(self) -> VisionSizes:
        """The SigLIP-2 tower's."""
        return read_sizes(VisionSizes, self.eagle().get("vision_config"), "eagle_config.vision_config")

    @property
    def language(self) -> LanguageSizes:
        """The Qwen3 stack's, before it is cut after `select_layer` layers."""
        return read_sizes(LanguageSizes, self.eagle().get("text_config"), "eagle_config.text_config")

    @property
    def dit(self) -> DitSizes:
        """The diffusion transformer's."""
        return read_sizes(DitSizes, self.diffusion_model_cfg, "diffusion_model_cfg")

    @property
    def image_token_id(self) -> int:
        """The token whose embeddings are replaced by image features."""
        return int(self.eagle()["image_token_index"])

    @property
    def image_multiple(self) -> int:
        """Image height and width are multiples of this many pixels; one such square becomes one token."""
        return UNSHUFFLE * self.vision.patch_size

    def eagle(self) -> Mapping[str, Any]:
        """The nested configuration of vision and language: the one given, or the released one."""
        return presets.RELEASED_EAGLE if self.eagle_config is None else self.eagle_config

    def to_file(self) -> dict[str, Any]:
        """The content of config.json."""
        content = self.to_diff_dict()
        if content.get("eagle_config") is None:
            content.pop("eagle_config", None)
        return {
            "architectures": [MODEL_TYPE],
            **{k: content[k] for k in sorted(content) if k != "architectures"},
        }
