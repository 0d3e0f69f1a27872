# SPDX-License-Identifier: Apache-2.0
"""Counted bytes, operations and floors: against published counts, against the network's own tensors, and by
hand; and the page that shows them."""

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import pytest

from gr00t_model.config import Gr00tN1d6Config
from gr00t_model.errors import ConfigError
from gr00t_model.inference import budget
from gr00t_model.inference.budget import Stage, Workload
from gr00t_model.inference.devices import DEVICES, GIGA, recognise
from gr00t_model.network import Gr00tN1d6

ROOT = Path(__file__).resolve().parents[3]
RELEASED = Gr00tN1d6Config.released()
PRESETS = ["released", "seed", "small", "tiny"]


def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("roofline", ROOT / "bench" / "roofline.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def by_name(config: Gr00tN1d6Config, work: Workload, form: str) -> dict[str, Stage]:
    return {stage.name: stage for stage in budget.stages(config, work, form)}


# ---- published counts of the released network (4 steps, horizon 50, 252 px) ----------------------------


@pytest.mark.parametrize(
    ("cameras", "tokens", "vision", "projector", "language", "head", "cached"),
    [(1, 115, 279.9, 2.2, 186.1, 440.1, 370.7), (2, 203, 559.7, 4.4, 329.7, 512.7, 390.1)],
)
def test_operations_are_the_published_ones(
    cameras: int, tokens: int, vision: float, projector: float, language: float, head: float, cached: float
) -> None:
    work = Workload.typical(RELEASED, cameras)
    assert work.text_tokens + 81 * cameras == tokens
    found = {name: value / 1e9 for name, value in budget.flops(RELEASED, work, "network").items()}
    assert found["vision"] == pytest.approx(vision, abs=0.06)
    assert found["projector"] == pytest.approx(projector, abs=0.06)
    assert found["language"] == pytest.approx(language, abs=0.06)
    whole = sum(found[name] for name in ("cross_kv", "state", "dit", "actions"))
    assert whole == pytest.approx(head, abs=0.06)
    # Keys and values once rather than four times, everything else as written.
    assert whole - 0.75 * found["cross_kv"] == pytest.approx(cached, abs=0.1)


def test_weight_bytes_are_the_published_ones() -> None:
    work = Workload.typical(RELEASED, 2)
    found = budget.weight_bytes(RELEASED, work, form="network")
    assert found["vision"] == 824_884_704
    assert found["projector"] == 27_289_600
    assert found["language"] == 1_610_756_096
    assert (found["dit"] + found["cross_kv"]) / 4 == 2_183_444_480
    # One embodiment's encoders and decoder; beside them the used rows of the position table and the norm.
    rows, norm = 50 * 1536 * 2, 2 * 2048 * 2
    assert found["actions"] / 4 - rows + found["state"] - norm == 20_332_800


# ---- the network's own tensors -------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS)
def test_as_written_every_used_parameter_is_counted_once(preset: str) -> None:
    config = getattr(Gr00tN1d6Config, preset)()
    found = by_name(config, Workload.typical(config, 1), "network")
    shapes = Gr00tN1d6.on_meta(config).shapes()

    def parameters(*parts: str, without: str = "\0") -> int:
        return sum(
            math.prod(shape)
            for name, shape in shapes.items()
            if any(part in name for part in parts) and without not in name
        )

    def counted(*names: str) -> int:
        return sum(found[name].matrices + found[name].vectors for name in names)

    assert counted("vision") == parameters("vision_model.", without="vision_model.head.")
    assert counted("projector") == parameters("mlp1.")
    assert counted("language") == parameters(".layers.", "language_model.model.norm", without="vision_model")
    assert counted("dit", "cross_kv") == parameters("action_head.model.")
    robots = config.max_num_embodiments
    shared = parameters("state_encoder", "action_encoder", "action_decoder")
    assert shared % robots == 0
    rows = config.action_horizon * config.input_embedding_dim
    assert counted("state", "actions") == shared // robots + rows + parameters("vlln")


@pytest.mark.parametrize("preset", PRESETS)
def test_the_deployed_form_reads_and_computes_less(preset: str) -> None:
    config = getattr(Gr00tN1d6Config, preset)()
    work = Workload.typical(config, 2)
    for count in (budget.weight_bytes, budget.flops):
        network, deployed = count(config, work, form="network"), count(config, work, form="deployed")
        assert deployed.keys() == network.keys()
        for name in ("cross_kv", "dit", "actions"):
            assert deployed[name] < network[name], name
        assert sum(deployed.values()) < sum(network.values())


def test_what_the_deployed_form_no_longer_reads_is_what_was_moved_out() -> None:
    work = Workload.typical(RELEASED, 2)
    network, deployed = by_name(RELEASED, work, "network"), by_name(RELEASED, work, "deployed")
    # 32 AdaLN layers, the time encoder, proj_out_1 and proj_out_2.
    gone = 32 * 1536 * 3072 + 256 * 1536 + 1536**2 + 1536 * 3072 + 1536 * 1024
    assert network["dit"].matrices - deployed["dit"].matrices == gone
    # W1 and half of W2 become one matrix; so do proj_out_2 and the decoder's first layer.
    merged = 128 * 1536 + 1536 * 1536 + 1536 * 1024 + 1024 * 128
    assert deployed["actions"].matrices == merged
    # Text for 8 of the 16 blocks, images for the other 8, once.
    assert deployed["cross_kv"].passes == 1
    assert deployed["cross_kv"].linear_flops == 8 * 203 * 4 * 2048 * 1536


def test_a_plain_dit_sees_every_token_in_every_block() -> None:
    config = Gr00tN1d6Config.released(use_alternate_vl_dit=False)
    work = Workload.typical(config, 2)
    assert by_name(config, work, "deployed")["cross_kv"].linear_flops == 16 * 203 * 4 * 2048 * 1536


def test_weights_are_read_once_for_all_images_of_one_size() -> None:
    def vision(*sizes: tuple[int, int]) -> tuple[int, float]:
        found = by_name(RELEASED, Workload(sizes, 41, 50, 4), "deployed")["vision"]
        return found.matrices, found.linear_flops

    one, same, other = vision((252, 252)), vision((252, 252), (252, 252)), vision((252, 252), (252, 336))
    assert same[0] == one[0]
    assert other[0] == 2 * one[0]
    assert same[1] == 2 * one[1]
    assert other[1] == pytest.approx((1 + 4 / 3) * one[1])


# ---- precisions and floors -----------------------------------------------------------------------------


def test_quantised_precisions_shrink_the_matrices_of_the_quantised_stages_only() -> None:
    work = Workload.typical(RELEASED, 2)
    found = by_name(RELEASED, work, "deployed")
    for precision, per_element in (("fp8", 1.0), ("int8", 1.0), ("nvfp4", 0.5625)):
        each = budget.weight_bytes(RELEASED, work, precision)
        for name, stage in found.items():
            width = per_element if name in budget.QUANTISED else 2.0
            assert each[name] == stage.passes * (stage.matrices * width + stage.vectors * 2)
    only = budget.weight_bytes(RELEASED, work, "fp8", quantised=frozenset({"dit"}))
    assert only["language"] == budget.weight_bytes(RELEASED, work)["language"]
    assert only["dit"] < budget.weight_bytes(RELEASED, work)["dit"]


def test_the_floor_is_the_larger_of_traffic_and_arithmetic_by_stage() -> None:
    work = Workload.typical(RELEASED, 2)
    traffic = sum(budget.weight_bytes(RELEASED, work).values())
    arithmetic = sum(budget.flops(RELEASED, work).values())
    assert budget.floor_ms(RELEASED, work, 1e12) == pytest.approx(traffic / 1e9)
    endless = 1e30
    assert budget.floor_ms(RELEASED, work, endless, {"bfloat16": 1e15}) == pytest.approx(arithmetic / 1e12)
    stage = budget.stage_ms(RELEASED, work, 204.8e9, {"bfloat16": 42.6e12})
    assert stage["vision"] == pytest.approx(559.75e9 / 42.6e12 * 1000, rel=1e-3), "arithmetic"
    dit = budget.weight_bytes(RELEASED, work)["dit"]
    assert stage["dit"] == pytest.approx(dit / 204.8e9 * 1000), "traffic"


def test_attention_keeps_the_peak_of_bfloat16() -> None:
    work = Workload.typical(RELEASED, 2)
    vision = by_name(RELEASED, work, "deployed")["vision"]
    found = budget.stage_ms(RELEASED, work, 1e30, {"bfloat16": 1e14, "int8": 1e18}, "int8")
    assert found["vision"] == pytest.approx(1000 * vision.attention_flops / 1e14, rel=0.01)


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda w: budget.weight_bytes(RELEASED, w, "int4"), "int4"),
        (lambda w: budget.flops(RELEASED, w, "eager"), "eager"),
        (lambda w: budget.floor_ms(RELEASED, w, 1e12, {"bfloat16": 1e14}, "fp8"), "fp8"),
        (lambda w: budget.flops(RELEASED, Workload(((224, 250),), 41, 50, 4)), "224 x 250"),
    ],
)
def test_what_cannot_be_counted_is_refused_by_name(call, word: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=word):
        call(Workload.typical(RELEASED, 2))


def test_memory_held_is_every_weight_once() -> None:
    work = Workload.typical(RELEASED, 2)
    held = budget.held_bytes(RELEASED, work)
    once = sum(2 * (s.matrices + s.vectors) for s in budget.stages(RELEASED, work))
    assert held["weights"] == once
    assert held["embeddings"] == 151680 * 2048 * 2
    assert held["weights"] + held["embeddings"] < bench().checkpoint_bytes(RELEASED)
    assert bench().checkpoint_bytes(RELEASED) == 2 * 3_286_608_832
    assert (
        budget.held_bytes(RELEASED, work, "nvfp4")["weights"]
        < budget.held_bytes(RELEASED, work, "fp8")["weights"]
    )


# ---- devices and the page ------------------------------------------------------------------------------


def test_devices_are_told_apart_by_name_and_memory() -> None:
    def name(gpu: str, gib: float) -> str | None:
        found = recognise(gpu, gib * 2**30)
        return None if found is None else found.name

    assert name("NVIDIA H200", 139.8) == "H200"
    assert name("NVIDIA H100 80GB HBM3", 79.1) == "H100 SXM"
    assert name("NVIDIA GeForce RTX 4090", 23.5) == "RTX 4090"
    assert name("NVIDIA L4", 22.0) == "L4"
    assert name("NVIDIA L40S", 44.4) is None
    assert name("NVIDIA Thor", 122.8) == "Jetson Thor T5000"
    assert name("Orin", 61.4) == "Jetson AGX Orin 64"
    assert name("Orin", 15.3) == "Jetson Orin NX 16 (Super)"
    assert name("Orin", 7.4) is None, "NX and Nano look alike"
    assert name("NVIDIA GeForce GTX 1080", 8.0) is None


def test_device_figures_are_dense_and_in_order() -> None:
    for device in DEVICES:
        assert 50 * GIGA < device.bandwidth < 10_000 * GIGA, device.name
        for precision in ("int8", "fp8"):
            ratio = device.peak.get(precision, 2 * device.peak["bfloat16"]) / device.peak["bfloat16"]
            # GeForce cards run INT8 at four times bfloat16, which they accumulate at half rate.
            assert 1.9 < ratio < 4.1, (device.name, precision)


def test_the_page_shows_what_is_calculated_now() -> None:
    page = ROOT / "docs" / "reference" / "roofline.md"
    module = bench()
    found = module.tables(RELEASED)
    text = page.read_text()
    assert {match[2] for match in module.MARK.finditer(text)} == set(found)
    assert module.renewed(text, found) == text, (
        "run `python bench/roofline.py --write docs/reference/roofline.md`"
    )
    assert "calculated, not measured" in text.lower()
