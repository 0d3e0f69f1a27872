# SPDX-License-Identifier: Apache-2.0
"""The reference's own numbers: images and token ids exactly, values to 1e-5."""

from __future__ import annotations

import numpy as np
import pytest

from gr00t_model.processing import Gr00tProcessor, KeyStatistics
from gr00t_model.processing.images import to_patch_multiple
from support_processor_goldens import GoldenCase, golden_cases

TOLERANCE = 1e-5
EVERY_VARIANT = [(case, variant) for case in golden_cases() for variant in case.variants]
WITH_VALUES = [case for case in golden_cases() if case.statistics]


def name(value: object) -> str:
    return str(value)


def processor_for(case: GoldenCase, variant: str = "letterbox") -> Gr00tProcessor:
    statistics = case.statistics
    if statistics is None:  # a case about images and text only
        limits = {"arm": KeyStatistics.from_limits([-1.0], [1.0])}
        statistics = {case.tag: {"state": limits, "action": limits}}
    return Gr00tProcessor(
        {case.tag: case.modality}, statistics, letterbox=variant == "letterbox", **case.kwargs
    )


def observation_of(case: GoldenCase) -> dict:
    state = case.group("state") if case.statistics else {"arm": np.zeros((case.batch, 1, 1), np.float32)}
    return {"video": case.video, "state": state, "language": case.language}


@pytest.mark.parametrize(("case", "variant"), EVERY_VARIANT, ids=name)
def test_every_stage_of_an_image_has_the_reference_bits(case: GoldenCase, variant: str) -> None:
    chain = processor_for(case, variant).options.chain()
    checked = 0
    for sample in range(case.batch):
        for index, view in enumerate(case.video):
            transformed = chain(case.image(sample, view))
            resized = to_patch_multiple(transformed)
            for stage, found in (("transformed", transformed), ("resized", resized)):
                key = f"{variant}.{sample}.{stage}.{index}"
                if not case.knows_bits(key):  # equal to the letterbox one, stored once
                    key = key.replace("no_letterbox", "letterbox")
                assert case.has_bits(key, found), f"{case} {key}: pixels differ from the reference"
                checked += 1
    assert checked == 2 * case.batch * len(case.video)


@pytest.mark.parametrize(("case", "variant"), EVERY_VARIANT, ids=name)
def test_encode_gives_the_reference_batch(case: GoldenCase, variant: str) -> None:
    inputs = processor_for(case, variant).encode(observation_of(case), case.tag)
    np.testing.assert_array_equal(inputs["input_ids"], case.arrays[f"{variant}.input_ids"])
    np.testing.assert_array_equal(inputs["attention_mask"], case.arrays[f"{variant}.attention_mask"])
    sizes = [list(image.shape[2:]) for image in inputs["pixel_values"]]
    np.testing.assert_array_equal(sizes, case.arrays[f"{variant}.image_sizes"])
    key = f"{variant}.pixel_values.0"
    if case.knows_bits(key):
        assert case.has_bits(key, inputs["pixel_values"][0].numpy()), "float pixels differ from the reference"
    stored = case.meta["letterbox_variants"][variant]
    expected_sums = stored.get("image_sums") or [image["sum"] for image in stored["images"]]
    sums = [image.double().sum().item() for image in inputs["pixel_values"]]
    np.testing.assert_allclose(sums, expected_sums, rtol=1e-12)


@pytest.mark.parametrize("case", WITH_VALUES, ids=name)
def test_state_and_embodiment_are_the_reference_ones(case: GoldenCase) -> None:
    inputs = processor_for(case).encode(observation_of(case), case.tag)
    assert inputs["state"].numpy().dtype == np.float32
    np.testing.assert_allclose(inputs["state"], case.arrays["out.state"], atol=TOLERANCE, rtol=0)
    np.testing.assert_array_equal(inputs["embodiment_id"], case.arrays["out.embodiment_id"])


@pytest.mark.parametrize("case", WITH_VALUES, ids=name)
def test_actions_are_encoded_as_by_the_reference(case: GoldenCase) -> None:
    values, mask = processor_for(case).encode_action(case.group("action"), case.group("state"), case.tag)
    np.testing.assert_allclose(values, case.padded("out.action", values.shape), atol=TOLERANCE, rtol=0)
    np.testing.assert_array_equal(mask, case.padded("out.action_mask", mask.shape))


@pytest.mark.parametrize("case", WITH_VALUES, ids=name)
def test_actions_are_decoded_as_by_the_reference(case: GoldenCase) -> None:
    processor = processor_for(case)
    decoded = processor.decode(case.arrays["decode.normalized_action"], case.group("state"), case.tag)
    assert list(decoded) == case.modality["action"]["modality_keys"]
    for key, found in decoded.items():
        assert found.dtype == np.float32
        expected = case.arrays[f"decode.out.{key}"]
        np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=0, err_msg=f"action {key}")


def test_a_golden_set_is_there() -> None:
    assert {case.path.stem for case in golden_cases()} >= {
        "two_views_256x256",
        "mixed_modes_480x640",
        "percentiles_noclip_360x640",
        "torchvision_path_240x320",
    }
