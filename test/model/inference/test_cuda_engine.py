# SPDX-License-Identifier: Apache-2.0
"""The PyTorch engine on a real CUDA device: graphs, compiled layers and uploads give the network's numbers.

Skipped without a GPU; test_pytorch_engine.py holds all that needs none.
"""

import copy

import numpy as np
import pytest
import torch

from gr00t_model.inference.deployed import deploy
from gr00t_model.inference.guidance import Guidance
from gr00t_model.inference.pytorch import PyTorchEngine
from support_engines import CONFIG, EMBODIMENT, NETWORKS, chunk_noise, expected_actions, prompt

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def engine(dtype: torch.dtype, **options: object) -> PyTorchEngine:
    return PyTorchEngine(deploy(copy.deepcopy(NETWORKS[True]).to("cuda", dtype), EMBODIMENT), **options)


@pytest.mark.parametrize("compile", ["off", "on", "auto"])
def test_float32_graphs_are_the_network(compile: str) -> None:
    """One graph for each length of text, replayed in any order."""
    tested = engine(torch.float32, compile=compile)
    tested.prepare(prompt())
    recorded = len(tested._programs)
    assert recorded > 1
    for text, seed in ((9, 0), (31, 1), (33, 2), (100, 3), (9, 4), (33, 5)):
        wanted = expected_actions(prompt(text), chunk_noise(seed))
        assert np.abs(tested.run(prompt(text), chunk_noise(seed)) - wanted).max() < 1e-3
    assert len(tested._programs) == recorded
    assert tested.compile in ("off", "on"), "auto has decided"


def test_a_graph_equals_the_layers_it_recorded() -> None:
    recorded, plain = (engine(torch.bfloat16, compile="off", graphs=graphs) for graphs in (True, False))
    recorded.prepare(prompt())
    for seed in range(3):
        start = chunk_noise(seed)
        first, second = recorded.run(prompt(), start), plain.run(prompt(), start)
        moved = first - start, second - start
        cosine = float((moved[0] * moved[1]).sum() / np.linalg.norm(moved[0]) / np.linalg.norm(moved[1]))
        assert cosine > 0.999
        assert np.array_equal(recorded.run(prompt(), start), first), "a replay is not repeatable"


def test_guidance_and_new_shapes_in_graphs() -> None:
    tested = engine(torch.float32, compile="off")
    tested.prepare(prompt())
    shape = chunk_noise(0).shape
    prefix = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    weight = np.zeros((CONFIG.num_inference_timesteps, shape[1]), np.float32)
    other = prompt(sizes=((84, 28),))
    for _ in range(2):  # layer by layer first, then from a graph
        assert np.abs(tested.run(prompt(), chunk_noise(0), Guidance(prefix, weight)) - prefix).max() < 1e-4
        tested.catch_up()
        wanted = expected_actions(other, chunk_noise(1))
        assert np.abs(tested.run(other, chunk_noise(1)) - wanted).max() < 1e-3
        tested.catch_up()
    assert {program.guided for program in tested._programs} == {False, True}


def test_stages_on_the_device() -> None:
    tested = engine(torch.bfloat16, compile="off")
    tested.prepare(prompt())
    assert all(seconds > 0 for seconds in tested.stages(prompt(), chunk_noise(0)).values())
    assert np.isfinite(tested.run(prompt(), chunk_noise(0))).all()
