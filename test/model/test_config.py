# SPDX-License-Identifier: Apache-2.0
"""The configuration reads published files, keeps what it does not know, and refuses what cannot be built."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gr00t_model.config import Gr00tN1d6Config
from gr00t_model.errors import ConfigError
from support_network import FULL_FOLDER, needs_full_set, trimmed


def nested(config: Gr00tN1d6Config, section: str, **changes: Any) -> dict[str, Any]:
    """The eagle_config of `config` with some values of one section changed."""
    eagle = json.loads(json.dumps(config.eagle()))
    (eagle[section] if section else eagle).update(changes)
    return eagle


def test_released_sizes() -> None:
    config = Gr00tN1d6Config.released()
    assert (config.max_state_dim, config.max_action_dim, config.action_horizon) == (128, 128, 50)
    assert (config.language.hidden_size, config.select_layer, config.language.vocab_size) == (
        2048,
        16,
        151680,
    )
    assert (config.vision.hidden_size, config.vision.num_hidden_layers) == (1152, 27)
    assert (config.dit.width, config.dit.num_layers, config.dit.output_dim) == (1536, 32, 1024)
    assert (config.image_token_id, config.image_multiple) == (151669, 28)


def test_older_sizes() -> None:
    config = Gr00tN1d6Config.seed()
    assert (config.max_state_dim, config.max_action_dim, config.action_horizon) == (29, 29, 16)
    assert config.dit == Gr00tN1d6Config.released().dit


def test_presets_take_overrides_and_refuse_unknown_names() -> None:
    assert Gr00tN1d6Config.tiny(action_horizon=8).action_horizon == 8
    with pytest.raises(ConfigError, match="action_horizont is not a field"):
        Gr00tN1d6Config.tiny(action_horizont=8)


@needs_full_set
def test_released_eagle_sizes_are_the_published_ones() -> None:
    published = json.loads((FULL_FOLDER / "eagle_tokenizer" / "config.json").read_text())
    assert Gr00tN1d6Config(eagle_config=published).vision == Gr00tN1d6Config().vision
    assert Gr00tN1d6Config(eagle_config=published).language == Gr00tN1d6Config().language
    assert Gr00tN1d6Config(eagle_config=published).image_token_id == Gr00tN1d6Config().image_token_id


def test_reads_the_reference_fields() -> None:
    golden = trimmed()
    config = golden.config()
    for name, value in golden.meta["model_config"].items():
        if name != "model_type":
            assert getattr(config, name) == value


@pytest.mark.parametrize("preset", ["released", "seed", "tiny", "mini", "small"])
def test_file_content_comes_back(preset: str) -> None:
    config = getattr(Gr00tN1d6Config, preset)(tune_visual=True)
    content = json.loads(json.dumps(config.to_file()))
    assert content["model_type"] == "Gr00tN1d6"
    assert content["architectures"] == ["Gr00tN1d6"]
    assert ("eagle_config" in content) == (preset in ("tiny", "mini", "small"))
    back = Gr00tN1d6Config(**{name: value for name, value in content.items() if name != "model_type"})
    assert back.to_file() == config.to_file()
    assert (back.vision, back.language, back.dit) == (config.vision, config.language, config.dit)


def test_fields_of_others_are_kept() -> None:
    config = Gr00tN1d6Config(shortest_image_edge=256, color_jitter_params={"hue": 0.08})
    content = config.to_file()
    assert content["shortest_image_edge"] == 256
    assert content["color_jitter_params"] == {"hue": 0.08}


@pytest.mark.parametrize("name", ["to_file", "eagle", "to_diff_dict", "vision", "image_token_id"])
def test_fields_named_like_a_method_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"config field {name} is 5; expected no such field"):
        Gr00tN1d6Config(**{name: 5})


def test_a_released_switch_that_is_not_implemented_is_refused_where_it_is_on() -> None:
    assert Gr00tN1d6Config(reproject_vision=False).to_file()["reproject_vision"] is False
    with pytest.raises(ConfigError, match="reproject_vision is True; expected False: nothing else"):
        Gr00tN1d6Config(reproject_vision=True)


def test_callers_dictionaries_are_not_shared() -> None:
    mine = json.loads(json.dumps(Gr00tN1d6Config.tiny().eagle()))
    config = Gr00tN1d6Config.tiny(eagle_config=mine)
    mine["text_config"]["hidden_size"] = 1
    assert config.language.hidden_size == 32


TINY = Gr00tN1d6Config.tiny()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_state_dim": 0}, "max_state_dim is 0; expected a positive integer"),
        ({"max_action_dim": 2.5}, "max_action_dim is 2.5"),
        ({"action_horizon": None}, "action_horizon is None"),
        ({"action_horizon": 65}, "action_horizon is 65; expected at most max_seq_len 64"),
        ({"tune_llm": 1}, "tune_llm is 1; expected true or false"),
        ({"tune_top_llm_layers": 4}, "tune_top_llm_layers is 4; expected 0 to select_layer 3"),
        ({"state_dropout_prob": 1.5}, "state_dropout_prob is 1.5; expected a probability"),
        ({"state_additive_noise_scale": -1}, "state_additive_noise_scale is -1"),
        ({"noise_s": 1.5}, "noise_s is 1.5; expected at most 1"),
        ({"noise_beta_alpha": 0}, "noise_beta_alpha is 0"),
        (
            {"num_inference_timesteps": 1001},
            "num_inference_timesteps is 1001; expected at most num_timestep_buckets 1000",
        ),
        ({"select_layer": 9}, "select_layer is 9; expected at most the language model's 4 layers"),
        ({"backbone_embedding_dim": 64}, "backbone_embedding_dim is 64.*hidden_size 32"),
        ({"input_embedding_dim": 48}, "input_embedding_dim is 48.*= 32"),
        ({"hidden_size": 48}, "hidden_size is 48.*output_dim = 32"),
        ({"backbone_model_type": "paligemma"}, "backbone_model_type is 'paligemma'; expected 'eagle'"),
        ({"model_name": "org/other", "eagle_config": None}, "model_name is 'org/other'"),
        ({"eagle_config": nested(TINY, "", image_token_index=None)}, "image_token_index is None"),
        ({"eagle_config": nested(TINY, "", image_token_index=151680)}, "image_token_index is 151680"),
        (
            {"eagle_config": nested(TINY, "", use_pixel_shuffle=False)},
            "use_pixel_shuffle is False; expected True",
        ),
        ({"eagle_config": nested(TINY, "vision_config", use_rope=True)}, "vision_config.use_rope is True"),
        ({"eagle_config": nested(TINY, "vision_config", num_patches=200)}, "num_patches is 200; .*square"),
        ({"eagle_config": nested(TINY, "vision_config", num_attention_heads=3)}, "num_attention_heads is 3"),
        (
            {"eagle_config": nested(TINY, "vision_config", hidden_size="32")},
            "vision_config.hidden_size is '32'",
        ),
        ({"eagle_config": nested(TINY, "text_config", rope_scaling={"x": 1})}, "text_config.rope_scaling"),
        ({"eagle_config": nested(TINY, "text_config", head_dim=15)}, "text_config.head_dim is 15; .*even"),
        ({"eagle_config": nested(TINY, "text_config", rope_theta=0)}, "rope_theta is 0; expected a positive"),
        (
            {"eagle_config": {"image_token_index": 3}},
            "eagle_config.vision_config is None; expected an object",
        ),
        ({"diffusion_model_cfg": {**TINY.diffusion_model_cfg, "norm_type": "layer_norm"}}, "norm_type"),
        ({"diffusion_model_cfg": {**TINY.diffusion_model_cfg, "num_layers": None}}, "num_layers is None"),
        (
            {"diffusion_model_cfg": {**TINY.diffusion_model_cfg, "interleave_self_attention": False}},
            "interleave_self_attention is False; expected true when use_alternate_vl_dit is",
        ),
    ],
)
def test_impossible_values_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Gr00tN1d6Config.tiny(**changes)


_JUNK = (
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats()
    | st.text(max_size=3)
    | st.lists(st.integers())
)
_FIELDS = st.sampled_from(sorted(set(trimmed().meta["model_config"]) - {"model_type"}))


@settings(max_examples=200, deadline=None)
@given(field=_FIELDS, value=_JUNK)
def test_junk_in_any_field_is_accepted_or_a_config_error(field: str, value: Any) -> None:
    try:
        Gr00tN1d6Config.tiny(**{field: value})
    except ConfigError:
        return


def test_transformers_own_reader_gives_the_same(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(TINY.to_file()))
    assert Gr00tN1d6Config.from_pretrained(str(tmp_path)).to_file() == TINY.to_file()
