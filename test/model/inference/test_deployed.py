# SPDX-License-Identifier: Apache-2.0
"""The deployed form gives the readable network's numbers: on golden data and on networks of every variant."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import support_network as support
from gr00t_model.errors import EmbodimentError, ObservationError
from gr00t_model.inference.deployed import Deployed, deploy
from gr00t_model.inference.layout import TEXT_BUCKETS, lay_out, text_bucket
from gr00t_model.network import Gr00tN1d6
from support_engines import EMBODIMENT, NETWORKS, ragged_inputs, randomise

TOLERANCE = support.TOLERANCE


@torch.inference_mode()
def run(
    form: Deployed, inputs: dict[str, Any], noise: Tensor, *rtc: Tensor, text_tokens: int | None = None
) -> Tensor:
    layout = lay_out(inputs["input_ids"], inputs["attention_mask"], form.config.image_token_id, text_tokens)
    images = [image.to(form.dtype) for image in inputs["pixel_values"]]
    return form(images, layout, inputs["state"].to(form.dtype), noise, *rtc)


@pytest.mark.parametrize("source", support.SOURCES)
@pytest.mark.parametrize("alternate", [True, False], ids=["alternate", "plain"])
def test_golden(source: Any, alternate: bool) -> None:
    golden = source()
    if None in golden.inputs["pixel_values"]:
        pytest.skip("the trimmed golden data has no images")
    inputs, noise = golden.inputs, golden.outputs["infer.initial_noise"]
    network = golden.model(use_alternate_vl_dit=alternate)
    expected = network.get_action(inputs, noise)["action_pred"]
    if alternate:
        assert support.worst(expected, golden.outputs["infer.action_pred"]) < TOLERANCE
    for row, embodiment in enumerate(inputs["embodiment_id"].tolist()):
        found = run(deploy(network, embodiment), inputs, noise)
        assert support.worst(found[row], expected[row]) < TOLERANCE


VARIANTS: list[dict[str, Any]] = [
    {},
    {"use_alternate_vl_dit": False},
    {"attend_text_every_n_blocks": 1},
    {"use_vlln": False},
    {"add_pos_embed": False},
    {"num_inference_timesteps": 7, "num_timestep_buckets": 100},
]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: ",".join(v) or "released")
@pytest.mark.parametrize("padded", [False, True], ids=["exact", "bucket"])
def test_every_variant(variant: dict[str, Any], padded: bool) -> None:
    config = support.small_config(**variant)
    network = randomise(Gr00tN1d6(config))
    inputs = ragged_inputs(config, [9, 5, 12], [[(56, 56), (28, 84)], [(84, 28)], [(28, 28)] * 3])
    noise = torch.randn(3, config.action_horizon, config.max_action_dim)
    expected = network.get_action(inputs, noise)["action_pred"]
    assert float((expected - noise).abs().max()) > 0.1, "the network does nothing, so nothing is compared"
    found = run(deploy(network, EMBODIMENT), inputs, noise, text_tokens=32 if padded else None)
    assert support.worst(found, expected) < TOLERANCE


@settings(max_examples=25, deadline=None)
@given(
    texts=st.lists(st.integers(2, 20), min_size=1, max_size=4),
    cameras=st.lists(st.sampled_from([(28, 28), (56, 28), (28, 84), (56, 56)]), min_size=1, max_size=3),
    horizon=st.integers(1, 6),
    alternate=st.booleans(),
    bucket=st.sampled_from([None, 32, 48]),
    guided=st.booleans(),
)
def test_any_batch(
    texts: list[int],
    cameras: list[tuple[int, int]],
    horizon: int,
    alternate: bool,
    bucket: int | None,
    guided: bool,
) -> None:
    network = NETWORKS[alternate]
    config = network.config
    inputs = ragged_inputs(config, texts, [cameras] * len(texts))
    noise = torch.randn(len(texts), horizon, config.max_action_dim)
    rtc: tuple[Tensor, ...] = ()
    if guided:  # a weight of one leaves the network alone
        rtc = torch.full_like(noise, 5.0), torch.ones(config.num_inference_timesteps, horizon)
    expected = network.get_action(inputs, noise)["action_pred"]
    found = run(deploy(network, EMBODIMENT), inputs, noise, *rtc, text_tokens=bucket)
    assert support.worst(found, expected) < TOLERANCE


def test_guidance_is_the_formula() -> None:
    """Against the Euler loop written out with the readable network's velocity."""
    network, config = NETWORKS[True], NETWORKS[True].config
    inputs = ragged_inputs(config, [7], [[(56, 56)]])
    generator = torch.Generator().manual_seed(1)
    shape = (1, config.action_horizon, config.max_action_dim)
    noise, prefix = (torch.randn(shape, generator=generator) for _ in range(2))
    steps = config.num_inference_timesteps
    weight = torch.rand(steps, config.action_horizon, generator=generator)

    head, ids = network.action_head, inputs["embodiment_id"]
    with torch.no_grad():
        features = network.backbone(inputs["input_ids"], inputs["attention_mask"], inputs["pixel_values"])
        context, state = head.context(features), head.encode_state(inputs["state"], ids)
        x = noise
        for step in range(steps):
            bucket = torch.tensor([int(step / steps * config.num_timestep_buckets)])
            x = x + head.velocity(x, bucket, state, context, ids) / steps
            t, w = (step + 1) / steps, weight[step][:, None]
            x = w * x + (1 - w) * ((1 - t) * noise + t * prefix)
    found = run(deploy(network, EMBODIMENT), inputs, noise, prefix, weight)
    assert support.worst(found, x) < TOLERANCE
    alone = run(deploy(network, EMBODIMENT), inputs, noise)
    assert support.worst(found, alone) > 0.1, "the guidance changed nothing"
    pulled = run(deploy(network, EMBODIMENT), inputs, noise, prefix, torch.zeros_like(weight))
    assert support.worst(pulled, prefix) < 1e-6


@pytest.mark.parametrize("alternate", [True, False], ids=["alternate", "plain"])
def test_bfloat16_is_no_worse_than_the_network(alternate: bool) -> None:
    """Summed over networks and chunks: each falls either way by a third, their sum by less."""
    config = support.small_config(use_alternate_vl_dit=alternate)
    ours = theirs = 0.0
    for weights in range(8):
        torch.manual_seed(weights)
        network = randomise(Gr00tN1d6(config), weights)
        rounded = copy.deepcopy(network).to(torch.bfloat16)
        form = deploy(rounded, EMBODIMENT)
        for chunk in range(3):
            inputs = ragged_inputs(config, [6 + chunk], [[(56, 56), (28, 28)]])
            generator = torch.Generator().manual_seed(chunk)
            noise = torch.randn(1, config.action_horizon, config.max_action_dim, generator=generator)
            exact = network.get_action(inputs, noise)["action_pred"]
            theirs += float((rounded.get_action(inputs, noise)["action_pred"] - exact).square().sum())
            ours += float((run(form, inputs, noise) - exact).square().sum())
    assert 0 < ours < 1.2 * theirs


def test_both_forms_share_their_weights() -> None:
    network = randomise(Gr00tN1d6(support.small_config()))
    config = network.config
    inputs = ragged_inputs(config, [7], [[(56, 56)]])
    noise = torch.randn(1, config.action_horizon, config.max_action_dim)
    before = network.get_action(inputs, noise)["action_pred"]
    form = deploy(network, EMBODIMENT)
    assert torch.equal(network.get_action(inputs, noise)["action_pred"], before)
    mine = {t.untyped_storage().data_ptr() for t in network.parameters()}
    own = sum(t.nbytes for t in form.parameters() if t.untyped_storage().data_ptr() not in mine)
    # Of its own: one embodiment's weights, the time tables and the merged ends of the action head.
    assert own < 0.15 * form.memory()
    # The network's, dropped with it: vocabulary head, pooling head, modulations, other embodiments.
    assert form.memory() < 0.8 * sum(t.nbytes for t in network.parameters())
    assert not any(parameter.requires_grad for parameter in form.parameters())


def test_wrong_embodiment() -> None:
    with pytest.raises(EmbodimentError, match=r"99 is outside this checkpoint's 0..5"):
        deploy(NETWORKS[True], 99)


def test_layout_refuses() -> None:
    ids = torch.tensor([[1, 2, 999, 3]])
    for mask, words in (([1, 0, 1, 1], "gap"), ([1, 1, 1, 0], "left"), ([0, 0, 0, 1], "padding")):
        with pytest.raises(ObservationError, match=words):
            lay_out(ids, torch.tensor([mask]), 999)
    with pytest.raises(ObservationError, match="3 text tokens, more than the 2"):
        lay_out(ids, torch.ones_like(ids), 999, text_tokens=2)


def test_buckets() -> None:
    assert [text_bucket(n) for n in (1, 32, 33, 256)] == [32, 32, 48, 256]
    assert text_bucket(257) is None
    assert list(TEXT_BUCKETS) == sorted(TEXT_BUCKETS)
