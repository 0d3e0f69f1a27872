# SPDX-License-Identifier: Apache-2.0
"""Sizes of ready-made networks, as plain data for `config.py`.

RELEASED_EAGLE are the published sizes of Eagle-Block2A-2B-v2, the vision-language half of GR00T N1.6. TINY,
MINI and SMALL keep its vocabulary and token ids, so that the real tokenizer fits them; DEMO has that of
`processing/small_tokenizer.py`.
"""

from typing import Any

# Vocabulary and the id of <IMG_CONTEXT>: facts of the tokenizers. The small one has 557 tokens.
VOCAB_SIZE = 151680
IMAGE_TOKEN_ID = 151669
SMALL_VOCAB_SIZE = 640
SMALL_IMAGE_TOKEN_ID = 26


def eagle(
    *, vision: dict[str, int], language: dict[str, int], image_token_id: int = IMAGE_TOKEN_ID
) -> dict[str, Any]:
    """A whole eagle_config from the sizes that differ between presets."""
    return {
        "model_type": "eagle_3_vl",
        "image_token_index": image_token_id,
        "use_pixel_shuffle": True,
        "downsample_ratio": 0.5,
        "mlp_connector_layers": 2,
        "select_layer": -1,
        "vision_config": {
            "model_type": "siglip2_vision_model",
            "hidden_act": "gelu_pytorch_tanh",
            "layer_norm_eps": 1e-6,
            "num_channels": 3,
            "num_patches": 256,
            "patch_size": 14,
            "attention_dropout": 0.0,
            "use_rope": False,
            "use_windows_attn": False,
            **vision,
        },
        "text_config": {
            "model_type": "qwen3",
            "attention_bias": False,
            "attention_dropout": 0.0,
            "hidden_act": "silu",
            "rms_norm_eps": 1e-6,
            "rope_scaling": None,
            "rope_theta": 1000000,
            "use_sliding_window": False,
            "vocab_size": VOCAB_SIZE,
            **language,
        },
    }


RELEASED_EAGLE: dict[str, Any] = eagle(
    vision={
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
    },
    language={
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
    },
)


def _dit(layers: int, heads: int, head_dim: int, output: int) -> dict[str, Any]:
    return {
        "positional_embeddings": None,
        "num_layers": layers,
        "num_attention_heads": heads,
        "attention_head_dim": head_dim,
        "norm_type": "ada_norm",
        "dropout": 0.2,
        "final_dropout": True,
        "output_dim": output,
        "interleave_self_attention": True,
    }


RELEASED_DIT: dict[str, Any] = _dit(layers=32, heads=32, head_dim=48, output=1024)

# The two vocabulary tables take 19.4 of the 21 MB; the rest is as narrow as keeps every kind of layer
# several deep.
TINY: dict[str, Any] = {
    "eagle_config": eagle(
        vision={"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
        language={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 16,
        },
    ),
    "backbone_embedding_dim": 32,
    "select_layer": 3,
    "tune_top_llm_layers": 1,
    "hidden_size": 32,
    "input_embedding_dim": 32,
    "max_seq_len": 64,
    "diffusion_model_cfg": _dit(layers=4, heads=2, head_dim=16, output=32),
}

# As tiny, with an action head three times as wide and no dropout, which only keeps a network of this size
# from learning: a laptop trains it on a simple task in minutes.
MINI: dict[str, Any] = {
    **TINY,
    "hidden_size": 96,
    "input_embedding_dim": 96,
    "diffusion_model_cfg": {**_dit(layers=4, heads=4, head_dim=24, output=96), "dropout": 0.0},
}

# For the simulated arm: as little of everything as learns to see, to read and to reach on one core.
# 11 embodiments, so that new_embodiment, number 10, is among them; all parts in 8 MB of bfloat16.
# 8 dimensions, for padding is noise to a network of this size; of three blocks that attend to the backbone
# two attend to pictures.
DEMO: dict[str, Any] = {
    "eagle_config": eagle(
        vision={
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
        },
        language={
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "head_dim": 32,
            "vocab_size": SMALL_VOCAB_SIZE,
        },
        image_token_id=SMALL_IMAGE_TOKEN_ID,
    ),
    "backbone_embedding_dim": 128,
    "select_layer": 2,
    "tune_top_llm_layers": 2,
    "hidden_size": 128,
    "input_embedding_dim": 128,
    "max_state_dim": 8,
    "max_action_dim": 8,
    "action_horizon": 16,
    "attend_text_every_n_blocks": 3,
    "max_seq_len": 64,
    "max_num_embodiments": 11,
    "diffusion_model_cfg": {**_dit(layers=6, heads=4, head_dim=32, output=128), "dropout": 0.0},
}

SMALL: dict[str, Any] = {
    "eagle_config": eagle(
        vision={
            "hidden_size": 288,
            "intermediate_size": 1076,
            "num_hidden_layers": 9,
            "num_attention_heads": 4,
        },
        language={
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_hidden_layers": 14,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
        },
    ),
    "backbone_embedding_dim": 128,
    "select_layer": 8,
    "tune_top_llm_layers": 2,
    "hidden_size": 256,
    "input_embedding_dim": 384,
    "diffusion_model_cfg": _dit(layers=16, heads=8, head_dim=48, output=256),
}
