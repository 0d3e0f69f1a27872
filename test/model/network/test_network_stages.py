# SPDX-License-Identifier: Apache-2.0
"""Each kind of layer gives the reference's recorded output for the reference's recorded input."""

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

from gr00t_model.network import Gr00tN1d6
from gr00t_model.network.connector import unshuffle
from gr00t_model.network.eagle import Features
from gr00t_model.network.language import causal_mask, rotation
from gr00t_model.network.vision import patches
from support_network import SOURCES, TOLERANCE, Golden, worst

torch.set_num_threads(1)
VISION = "backbone.model.vision_model.vision_model"


@pytest.fixture(scope="module", params=SOURCES)
def golden(request: pytest.FixtureRequest) -> Golden:
    source: Callable[[], Golden] = request.param
    return source()


@pytest.fixture(scope="module")
def model(golden: Golden) -> Gr00tN1d6:
    return golden.model().requires_grad_(False)


def grids(golden: Golden) -> list[tuple[int, int]]:
    return [(height // 14, width // 14) for height, width in golden.meta["image_sizes_hw"]]


def starts(golden: Golden) -> list[int]:
    """Where each image's patches begin in the recorded tensors, which hold all images end to end."""
    counts = [rows * columns for rows, columns in grids(golden)]
    return [sum(counts[:index]) for index in range(len(counts) + 1)]


def features(golden: Golden, values: torch.Tensor) -> Features:
    outputs = golden.outputs
    return Features(values, outputs["image_mask"], outputs["backbone_attention_mask"])


def test_patches_are_raster_and_channel_fastest(golden: Golden, model: Gr00tN1d6) -> None:
    at = starts(golden)
    stored = golden.rows(f"{VISION}.embeddings.patch_embedding.weight")
    projection = model.backbone.model.vision_model.vision_model.embeddings.patch_embedding
    seen = 0
    for index, image in enumerate(golden.inputs["pixel_values"]):
        if image is None:
            continue
        seen += 1
        found = projection(patches(image, 14))[0][:, stored]
        assert (
            worst(found, golden.outputs["vision.patch_embed"][at[index] : at[index + 1]][:, stored])
            < TOLERANCE
        )
    assert seen >= 2


def test_vision_layer_after_resized_positions(golden: Golden, model: Gr00tN1d6) -> None:
    """Covers a grid that grows, one that shrinks (antialias) and attention inside each image only."""
    tower = model.backbone.model.vision_model.vision_model
    at = starts(golden)
    for index, (rows, columns) in enumerate(grids(golden)):
        part = slice(at[index], at[index + 1])
        embedded = golden.outputs["vision.patch_embed"][part] + tower.embeddings.positions(rows, columns)
        found = tower.encoder.layers[0](embedded[None], None)[0]
        assert worst(found, golden.outputs["vision.layer0.window_order"][0, part]) < TOLERANCE


def test_unshuffle_is_channel_major(golden: Golden) -> None:
    at = starts(golden)
    hidden = golden.outputs["vision.last_hidden_state"][0]
    found = [unshuffle(hidden[at[i] : at[i + 1]].unflatten(0, grid)) for i, grid in enumerate(grids(golden))]
    assert torch.equal(torch.cat(found), golden.outputs["vision.pixel_unshuffled"][0])


def test_projector(golden: Golden, model: Gr00tN1d6) -> None:
    found = model.backbone.model.mlp1(golden.outputs["vision.pixel_unshuffled"])
    assert worst(found, golden.outputs["vision.mlp1_out"]) < TOLERANCE


def test_image_tokens_replace_embeddings_in_order(golden: Golden, model: Gr00tN1d6) -> None:
    eagle = model.backbone.model
    ids = golden.inputs["input_ids"]
    text = ids != eagle.image_token_id
    found = eagle.fuse(ids, golden.outputs["vision.mlp1_out"][0])
    assert (
        worst(eagle.language_model.model.embed_tokens(ids)[text], golden.outputs["llm.token_embeds"][text])
        == 0
    )
    assert worst(found, golden.outputs["llm.fused_inputs_embeds"]) == 0


def test_language_layer_at_all_positions(golden: Golden, model: Gr00tN1d6) -> None:
    """Also at padded positions, where flash attention gives zero."""
    stack = model.backbone.model.language_model.model
    mask = golden.inputs["attention_mask"]
    assert (mask == 0).any()
    hidden = golden.outputs["llm.fused_inputs_embeds"]
    rotary = rotation(hidden.shape[1], stack.head_dim, stack.rope_theta, hidden)
    found = stack.layers[0](hidden, causal_mask(mask), mask[:, :, None], rotary)
    assert worst(found, golden.outputs["llm.layer0"]) < TOLERANCE


def test_feature_is_the_normed_hidden_state(golden: Golden, model: Gr00tN1d6) -> None:
    found = model.backbone.model.language_model.model.norm(golden.outputs["llm.layer3"])
    assert worst(found, golden.outputs["backbone_features"]) < TOLERANCE


def test_feature_norm(golden: Golden, model: Gr00tN1d6) -> None:
    found = model.action_head.context(features(golden, golden.outputs["backbone_features"])).values
    assert worst(found, golden.outputs["train.head.vlln_out"]) < TOLERANCE


def test_state_encoder(golden: Golden, model: Gr00tN1d6) -> None:
    inputs = golden.inputs
    found = model.action_head.encode_state(inputs["state"], inputs["embodiment_id"])
    assert worst(found, golden.outputs["train.head.state_features"]) < TOLERANCE
    assert worst(found, golden.outputs["infer.head.state_features"]) < TOLERANCE


def test_action_encoder_and_positions(golden: Golden, model: Gr00tN1d6) -> None:
    head, outputs = model.action_head, golden.outputs
    tokens = head.action_encoder(
        outputs["train.noisy_trajectory"], outputs["train.t_discretized"], golden.inputs["embodiment_id"]
    )
    assert worst(tokens, outputs["train.head.action_features_pre_pos"]) < TOLERANCE
    horizon = tokens.shape[1]
    placed = torch.cat(
        (outputs["train.head.state_features"], tokens + head.position_embedding.weight[:horizon]), 1
    )
    assert worst(placed, outputs["train.dit.sa_embs"]) < TOLERANCE


def test_time_embedding(golden: Golden, model: Gr00tN1d6) -> None:
    encoder, outputs = model.action_head.model.timestep_encoder, golden.outputs
    assert (
        worst(encoder.time_proj(outputs["train.t_discretized"]), outputs["train.dit.time_proj"]) < TOLERANCE
    )
    assert worst(encoder(outputs["train.t_discretized"]), outputs["train.dit.temb"]) < TOLERANCE
    assert (
        worst(encoder(outputs["infer.step3.t_discretized"]), outputs["infer.laststep.dit.temb"]) < TOLERANCE
    )


@pytest.mark.parametrize("index", [1, 2], ids=["self-attention", "image-attention"])
def test_transformer_block(golden: Golden, model: Gr00tN1d6, index: int) -> None:
    dit, outputs = model.action_head.model, golden.outputs
    block = dit.transformer_blocks[index]
    before, time = outputs[f"train.dit.block{index - 1}.out"], outputs["train.dit.temb"]
    context = features(golden, outputs["train.head.vlln_out"])
    own = dit.self_attention[index]
    seen, mask = (None, None) if own else (context.values, dit.context_mask(index, context))

    normed = block.norm1(before, time)
    attended = block.attn1(normed, encoder_hidden_states=seen, attention_mask=mask)
    assert worst(normed, outputs[f"train.dit.block{index}.norm1"]) < TOLERANCE
    assert worst(attended, outputs[f"train.dit.block{index}.attn"]) < TOLERANCE
    assert worst(block(before, time, seen, mask), outputs[f"train.dit.block{index}.out"]) < TOLERANCE


def test_transformer_output(golden: Golden, model: Gr00tN1d6) -> None:
    dit, outputs = model.action_head.model, golden.outputs
    plain = dit.norm_out(outputs["train.dit.block7.out"])
    assert worst(plain, outputs["train.dit.norm_out_plain"]) < TOLERANCE
    shift, scale = dit.proj_out_1(F.silu(outputs["train.dit.temb"])).chunk(2, dim=1)
    found = dit.proj_out_2(plain * (1 + scale[:, None]) + shift[:, None])
    assert worst(found, outputs["train.dit.model_output"]) < TOLERANCE


def test_decoder_and_its_gradients(golden: Golden) -> None:
    """From the transformer's recorded output to the loss, and back into the decoder's weights."""
    head = golden.model().requires_grad_(True).action_head
    inputs, outputs = golden.inputs, golden.outputs
    decoded = head.action_decoder(outputs["train.dit.model_output"], inputs["embodiment_id"])
    assert worst(decoded, outputs["train.head.decoder_out"]) < TOLERANCE
    predicted = decoded[:, -inputs["action"].shape[1] :]
    assert worst(predicted, outputs["train.pred_velocity"]) < TOLERANCE
    wanted = inputs["action"] - outputs["train.noise"]
    assert worst(wanted, outputs["train.target_velocity"]) == 0
    loss = ((predicted - wanted) ** 2 * inputs["action_mask"]).sum() / (inputs["action_mask"].sum() + 1e-6)
    assert worst(loss[None], outputs["train.loss"]) < TOLERANCE
    loss.backward()
    for name, parameter in head.action_decoder.named_parameters():
        full_name = f"action_head.action_decoder.{name}"
        expected = golden.gradients[full_name]
        assert worst(parameter.grad[golden.rows(full_name)], expected) < 1e-3 * float(expected.abs().max())


def test_euler_steps_from_recorded_velocities(
    golden: Golden, model: Gr00tN1d6, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop visits the recorded points and time buckets, and ends at the recorded actions."""
    head, outputs = model.action_head, golden.outputs
    steps = iter(range(4))

    def recorded(noisy: torch.Tensor, bucket: torch.Tensor, *_: object) -> torch.Tensor:
        step = next(steps)
        assert worst(noisy, outputs[f"infer.step{step}.x_in"]) < TOLERANCE
        assert torch.equal(bucket, outputs[f"infer.step{step}.t_discretized"])
        return outputs[f"infer.step{step}.velocity"]

    monkeypatch.setattr(head, "velocity", recorded)
    inputs = golden.inputs
    found = head.denoise(
        features(golden, outputs["backbone_features"]),
        inputs["state"],
        inputs["embodiment_id"],
        outputs["infer.initial_noise"],
        4,
    )
    assert worst(found, outputs["infer.action_pred"]) < TOLERANCE
