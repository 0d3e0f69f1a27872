# SPDX-License-Identifier: Apache-2.0
"""Modality configs and options: read, written, and refused where they make no sense."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gr00t_model.errors import ConfigError
from gr00t_model.processing import ActionConfig, ModalityConfig, ProcessorOptions
from gr00t_model.processing.augment import ColorJitter
from gr00t_model.processing.embodiments import EMBODIMENT_IDS, complete_ids
from gr00t_model.processing.modality import parse_modality_configs
from support_processor_goldens import FULL, golden_cases

REGISTERED = FULL / "registered_modality_configs.json"
NAN = float("nan")
VIDEO = {"delta_indices": [0], "modality_keys": ["front"]}
STATE = {"delta_indices": [0], "modality_keys": ["arm"]}
ACTION = {"delta_indices": [0, 1], "modality_keys": ["arm"]}
LANGUAGE = {"delta_indices": [0], "modality_keys": ["task"]}
ROBOT = {"video": VIDEO, "state": STATE, "action": ACTION, "language": LANGUAGE}


@pytest.mark.parametrize("case", golden_cases(), ids=str)
def test_stored_configs_survive_reading_and_writing(case: Any) -> None:
    for stored in case.modality.values():
        config = ModalityConfig.from_mapping(stored)
        assert ModalityConfig.from_mapping(json.loads(json.dumps(config.to_mapping()))) == config
        assert config.to_mapping() == {name: stored.get(name) for name in config.to_mapping()}


@pytest.mark.skipif(not REGISTERED.is_file(), reason="the registered configs are not part of the repository")
def test_every_registered_embodiment_is_readable() -> None:
    configs = parse_modality_configs(json.loads(REGISTERED.read_text(encoding="utf-8")))
    assert set(configs) <= set(EMBODIMENT_IDS)
    arm = configs["behavior_r1_pro"]["action"].action_config("left_arm")
    assert arm == ActionConfig("RELATIVE", state_key="arm_left_qpos")
    assert configs["unitree_g1"]["action"].horizon == 30


def test_names_may_be_written_in_lower_case_with_a_plus() -> None:
    entry = {"rep": "relative", "type": "eef", "format": "xyz+rot6d"}
    config = ModalityConfig.from_mapping({**ACTION, "action_configs": [entry]})
    assert config.action_configs == (ActionConfig("RELATIVE", "EEF", "XYZ_ROT6D"),)


@pytest.mark.parametrize(
    ("modality", "entry", "message"),
    [
        ("state", {"delta_indices": []}, "delta_indices is empty"),
        ("state", {"delta_indices": [0.5]}, "expected a list of integers"),
        ("state", {"delta_indices": [True]}, "expected a list of integers"),
        ("state", {"modality_keys": "arm"}, "modality_keys is 'arm', expected a list of names"),
        ("state", {"modality_keys": ["arm", "arm"]}, "appears twice"),
        ("state", {"sin_cos_embedding_keys": ["leg"]}, "sin_cos_embedding_keys names leg"),
        ("state", {"colour": 1}, "unknown entries"),
        ("action", {"mean_std_embedding_keys": ["leg"]}, "mean_std_embedding_keys names leg"),
        ("action", {"action_configs": [{}, {}]}, "2 action_configs for 1 keys"),
        ("action", {"action_configs": 5}, "action_configs is 5, expected a list of mappings"),
        ("action", {"action_configs": {"arm": {}}}, "expected a list of mappings"),
        ("action", {"action_configs": [{"state_key": 5}]}, "state_key is 5, expected a state key or null"),
        ("action", {"action_configs": ["RELATIVE"]}, "expected mappings, found str"),
        ("action", {"action_configs": [{"rep": "SIDEWAYS"}]}, "rep is 'SIDEWAYS', expected one of ABSOLUTE"),
        ("action", {"action_configs": [{"rap": "RELATIVE"}]}, "unknown entries"),
        ("action", {"action_configs": [{"rep": "RELATIVE", "type": "EEF"}]}, "needs format XYZ_ROT6D"),
        ("action", {"action_configs": [{"rep": "RELATIVE", "state_key": "leg"}]}, "RELATIVE to state 'leg'"),
    ],
)
def test_a_wrong_config_is_named(modality: str, entry: dict, message: str) -> None:
    robot = {**ROBOT, modality: {**ROBOT[modality], **entry}}
    with pytest.raises(ConfigError, match=rf"modality_configs\.robot\.{modality}.*{message}"):
        parse_modality_configs({"robot": robot})


@pytest.mark.parametrize(
    ("robot", "message"),
    [
        ({"video": VIDEO, "state": STATE}, "robot: missing action, language"),
        ([VIDEO], "robot: expected a mapping, found list"),
        ({**ROBOT, "video": [VIDEO]}, "robot.video: expected a mapping, found list"),
    ],
)
def test_an_incomplete_robot_is_named(robot: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_modality_configs({"robot": robot})


def test_absent_numbers_come_from_the_table() -> None:
    assert complete_ids({"gr1": 3, "mine": 31}) == {**EMBODIMENT_IDS, "gr1": 3, "mine": 31}


@pytest.mark.parametrize("number", [-1, "3", None, True, 1.0])
def test_a_wrong_number_is_refused(number: Any) -> None:
    with pytest.raises(ConfigError, match=r"gr1 is .*expected a non-negative integer"):
        complete_ids({"gr1": number})


@pytest.mark.parametrize("table", [[1], "ab", 3, None])
def test_a_table_of_numbers_must_be_one(table: Any) -> None:
    with pytest.raises(ConfigError, match=r"embodiment ids: .*expected a mapping of tags to numbers"):
        complete_ids(table)


def test_options_survive_writing_and_reading() -> None:
    for options in (
        ProcessorOptions(),
        ProcessorOptions(letterbox=False, color_jitter_params=None, use_percentiles=True),
        ProcessorOptions(
            use_albumentations=False,
            image_target_size=(256, 256),
            image_crop_size=(230, 230),
            color_jitter_params=ColorJitter(0.1, 0.2, 0.3, 0.0),
        ),
    ):
        assert ProcessorOptions.from_mapping(json.loads(json.dumps(options.to_mapping()))) == options


def test_the_letterbox_switch_is_written_only_where_it_is_off() -> None:
    assert "letter_box_transform" not in ProcessorOptions().to_mapping()
    assert ProcessorOptions(letterbox=False).to_mapping()["letter_box_transform"] is False
    assert ProcessorOptions.from_mapping({"letter_box_transform": False}).letterbox is False


def test_entries_about_the_backbone_files_are_passed_over() -> None:
    stored = {"model_name": "some/backbone", "model_type": "eagle", "transformers_loading_kwargs": {"a": 1}}
    assert ProcessorOptions.from_mapping(stored) == ProcessorOptions()


def test_an_unknown_option_is_refused_only_when_it_is_on() -> None:
    assert ProcessorOptions.from_mapping({"use_depth": False, "crop_mode": None}) == ProcessorOptions()
    with pytest.raises(ConfigError, match="option use_depth = True is not known"):
        ProcessorOptions.from_mapping({"use_depth": True})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_state_dim": 0}, "max_state_dim is 0, expected a positive integer"),
        ({"max_action_horizon": "50"}, "max_action_horizon is '50'"),
        ({"use_percentiles": "no"}, "use_percentiles is 'no', expected true or false"),
        ({"letterbox": 1}, "letterbox is 1, expected true or false"),
        ({"image_crop_size": [1, 2, 3]}, r"image_crop_size is \[1, 2, 3\], expected \[height, width\]"),
        ({"color_jitter_params": 0.3}, "color_jitter_params is 0.3, expected a mapping"),
        ({"max_state_dim": True}, "max_state_dim is True, expected a positive integer"),
        ({"max_action_dim": 10**9}, "max_action_dim is 1000000000, expected a positive integer up to 65536"),
        *[
            ({"shortest_image_edge": e}, "shortest_image_edge is")
            for e in ("256", 256.5, 0, True, 10**9, [1])
        ],
        *[({"crop_fraction": f}, "crop_fraction is") for f in ("0.95", 0, 0.001, 2, True, [1], 10**400)],
        *[({"random_rotation_angle": a}, "random_rotation_angle is") for a in ("x", [1], True, -5, 720, NAN)],
        *[({"color_jitter_params": {"hue": h}}, "hue is") for h in ("x", True, -1, NAN, 1e308, 10**400)],
        ({"color_jitter_params": {"glow": 1}}, "glow is 1, expected a number from 0 to 100 for brightness"),
        *[({"image_target_size": s}, "image_target_size is") for s in ([True, 1], True, [0, 1], 10**9, "ab")],
        ({"crop_fraction": None}, "needs shortest_image_edge and crop_fraction"),
    ],
)
def test_a_wrong_option_is_named(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ProcessorOptions.from_mapping(options)
