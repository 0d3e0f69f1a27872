# SPDX-License-Identifier: Apache-2.0
"""The whole network, from images and token ids, gives the reference's numbers.

Every recorded tensor, all gradients, actions; and in bfloat16 nothing worse than the reference's rounding.
"""

import json

import pytest
import torch
from torch import Tensor

from gr00t_model.network import Gr00tN1d6
from support_network import TOLERANCE, Golden, Recorder, full, needs_full_set, worst

torch.set_num_threads(1)
pytestmark = needs_full_set


@pytest.fixture(scope="module")
def golden() -> Golden:
    return full()


@pytest.fixture(scope="module")
def model(golden: Golden) -> Gr00tN1d6:
    return golden.model()


def record(model: Gr00tN1d6) -> Recorder:
    recorder = Recorder()
    eagle, head = model.backbone.model, model.action_head
    tower, stack, dit = eagle.vision_model.vision_model, eagle.language_model.model, head.model
    watched = {
        "patch_embed": tower.embeddings.patch_embedding,
        "post_layernorm": tower.post_layernorm,
        "mlp1": eagle.mlp1,
        "embed": stack.embed_tokens,
        "language": eagle.language_model,
        "norm": stack.norm,
        "backbone": model.backbone,
        "vlln": head.vlln,
        "state": head.state_encoder,
        "action": head.action_encoder,
        "decoder": head.action_decoder,
        "dit": dit,
        "temb": dit.timestep_encoder,
        "time_proj": dit.timestep_encoder.time_proj,
        "norm_out": dit.norm_out,
    }
    for name, module in watched.items():
        recorder.watch(module, name)
    for index, layer in enumerate(tower.encoder.layers):
        recorder.watch(layer, f"vision{index}")
    for index, layer in enumerate(stack.layers):
        recorder.watch(layer, f"llm{index}")
    for index, block in enumerate(dit.transformer_blocks):
        recorder.watch(block, f"block{index}.out")
        recorder.watch(block.norm1, f"block{index}.norm1")
        recorder.watch(block.attn1, f"block{index}.attn")
        recorder.watch(block.ff, f"block{index}.ff")
    return recorder


def backbone_stages(seen: Recorder, golden: Golden) -> dict[str, Tensor]:
    def images(name: str) -> Tensor:
        """All images' patches end to end: here each image has a size, and so a call, of its own."""
        return torch.cat([tensor.flatten(0, 1) for tensor in seen.given[name]])

    features = seen.given["backbone"][0]
    return {
        "vision.patch_embed": images("patch_embed"),
        **{f"vision.layer{i}.window_order": images(f"vision{i}")[None] for i in range(3)},
        "vision.last_hidden_state": images("post_layernorm")[None],
        "vision.pixel_unshuffled": seen.taken["mlp1"][0][0],
        "vision.mlp1_out": seen.given["mlp1"][0],
        "llm.token_embeds": seen.given["embed"][0],
        "llm.fused_inputs_embeds": seen.taken["language"][0][0],
        **{f"llm.layer{i}": seen.given[f"llm{i}"][0] for i in range(4)},
        "llm.final_norm": seen.given["norm"][0],
        "backbone_features": features.values,
        "image_mask": features.image_mask,
        "backbone_attention_mask": features.attention_mask,
    }


def training_stages(seen: Recorder, golden: Golden, results: dict[str, Tensor]) -> dict[str, Tensor]:
    inputs, given = golden.inputs, {name: calls[0] for name, calls in seen.given.items()}
    noisy, bucket, _ = seen.taken["action"][0]
    tokens = seen.taken["dit"][0][0]
    blocks = [name for name in given if name.startswith("block")]
    horizon = inputs["action"].shape[1]
    return {
        "train.loss": results["loss"][None],
        "train.action_loss_masked_elementwise": results["action_loss"],
        "train.noisy_trajectory": noisy,
        "train.t_discretized": bucket,
        "train.target_velocity": inputs["action"] - golden.outputs["train.noise"],
        "train.head.vlln_out": given["vlln"],
        "train.head.state_features": given["state"],
        "train.state_features_after_dropout": tokens[:, :1],
        "train.head.action_features_pre_pos": given["action"],
        "train.head.decoder_out": given["decoder"],
        "train.pred_velocity": given["decoder"][:, -horizon:],
        "train.dit.sa_embs": tokens,
        "train.dit.time_proj": given["time_proj"],
        "train.dit.temb": given["temb"],
        **{f"train.dit.{name}": given[name] for name in blocks},
        "train.dit.norm_out_plain": given["norm_out"],
        "train.dit.model_output": given["dit"],
        "train.noise": golden.outputs["train.noise"],
        "train.t": golden.outputs["train.t"],
    }


def inference_stages(seen: Recorder, golden: Golden, results: dict[str, Tensor]) -> dict[str, Tensor]:
    stages = {
        "infer.action_pred": results["action_pred"],
        "infer.embodiment_id": golden.inputs["embodiment_id"],
        "infer.initial_noise": seen.taken["action"][0][0],
        "infer.head.state_features": seen.given["state"][0],
        "infer.laststep.dit.temb": seen.given["temb"][-1],
        "infer.laststep.dit.model_output": seen.given["dit"][-1],
        **{f"infer.laststep.dit.block{i}.out": seen.given[f"block{i}.out"][-1] for i in range(8)},
    }
    for step in range(4):
        noisy, bucket, _ = seen.taken["action"][step]
        decoded = seen.given["decoder"][step]
        stages |= {
            f"infer.step{step}.x_in": noisy,
            f"infer.step{step}.t_discretized": bucket,
            f"infer.step{step}.decoder_out": decoded,
            f"infer.step{step}.velocity": decoded[:, -noisy.shape[1] :],
        }
    return stages


def test_every_recorded_tensor(golden: Golden) -> None:
    model = golden.model()
    seen = record(model)
    outputs = golden.outputs
    with torch.no_grad():
        results = model(golden.inputs, noise=outputs["train.noise"], time=outputs["train.t"])
        stages = backbone_stages(seen, golden) | training_stages(seen, golden, results)
        seen.clear()
        results = model.get_action(golden.inputs, noise=outputs["infer.initial_noise"])
        stages |= inference_stages(seen, golden, results)
    assert set(stages) == set(outputs) - {"infer_bf16.action_pred_as_float32"}
    far = {name: worst(found, outputs[name]) for name, found in stages.items()}
    assert {name: distance for name, distance in far.items() if distance >= TOLERANCE} == {}


def test_loss_gradients(golden: Golden) -> None:
    model = golden.model()
    model.requires_grad_(True)
    results = model(golden.inputs, noise=golden.outputs["train.noise"], time=golden.outputs["train.t"])
    results["loss"].backward()
    expected = json.loads((golden.folder / "gradients.json").read_text())

    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert without == set(expected["params_without_gradient"])
    total = (
        torch.stack([p.grad.square().sum() for p in model.parameters() if p.grad is not None]).sum().sqrt()
    )
    assert float(total) == pytest.approx(expected["global_grad_norm"], rel=1e-3)
    far = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is None:
            continue
        norm = expected["param_grad_norm"][name]
        # A key's bias has no gradient (softmax does not see it): 1e-8 of rounding is left. All others have
        # 0.018 and more.
        scale = max(norm, 0.01)
        far[name] = abs(float(parameter.grad.norm()) - norm) / scale
        if name in golden.gradients:
            far[name] = max(far[name], float((parameter.grad - golden.gradients[name]).norm()) / scale)
    assert {name: distance for name, distance in far.items() if distance >= 1e-3} == {}
    assert len(golden.gradients) > 200


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_actions_and_loss_on_cuda(golden: Golden) -> None:
    """Inputs may stay on the CPU; float32 without TF32, which is torch's default."""
    outputs = golden.outputs
    model = golden.model().to("cuda")
    found = model.get_action(golden.inputs, noise=outputs["infer.initial_noise"])["action_pred"]
    assert worst(found.cpu(), outputs["infer.action_pred"]) < TOLERANCE
    loss = model(golden.inputs, noise=outputs["train.noise"], time=outputs["train.t"])["loss"]
    assert worst(loss.cpu()[None], outputs["train.loss"]) < TOLERANCE


def test_actions(golden: Golden, model: Gr00tN1d6) -> None:
    found = model.get_action(golden.inputs, noise=golden.outputs["infer.initial_noise"])["action_pred"]
    assert found.dtype == torch.float32
    assert worst(found, golden.outputs["infer.action_pred"]) < TOLERANCE


def test_bfloat16_is_no_further_off_than_the_reference_in_bfloat16(golden: Golden) -> None:
    outputs = golden.outputs
    exact, theirs = outputs["infer.action_pred"], outputs["infer_bf16.action_pred_as_float32"]
    model = golden.model().to(torch.bfloat16)
    ours = model.get_action(golden.inputs, noise=outputs["infer.initial_noise"])["action_pred"]
    assert ours.dtype == torch.float32
    assert worst(ours, exact) <= worst(theirs, exact)
    assert float((ours - exact).norm()) <= float((theirs - exact).norm())


def test_batch_and_padding_do_not_change_actions(golden: Golden, model: Gr00tN1d6) -> None:
    """Each sample alone, its padding cut off, gives what it gave in the padded batch."""
    inputs, noise = golden.inputs, golden.outputs["infer.initial_noise"]
    for sample in range(2):
        length = int(inputs["attention_mask"][sample].sum())
        alone = {name: inputs[name][sample : sample + 1] for name in ("state", "embodiment_id")}
        alone["input_ids"] = inputs["input_ids"][sample : sample + 1, -length:]
        alone["attention_mask"] = inputs["attention_mask"][sample : sample + 1, -length:]
        alone["pixel_values"] = inputs["pixel_values"][2 * sample : 2 * sample + 2]
        found = model.get_action(alone, noise=noise[sample : sample + 1])["action_pred"]
        assert worst(found, golden.outputs["infer.action_pred"][sample : sample + 1]) < TOLERANCE
