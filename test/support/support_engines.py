# SPDX-License-Identifier: Apache-2.0
"""For tests of the inference engines: networks in which every part matters, and prompts of any shape."""

from typing import Any

import numpy as np
import torch

import support_network as support
from gr00t_model.config import Gr00tN1d6Config
from gr00t_model.network import Gr00tN1d6

EMBODIMENT = 3


def randomise(network: Gr00tN1d6, seed: int = 0) -> Gr00tN1d6:
    """Weights under which every part matters: time modulations, biases and positions start near zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return network.eval()


def ragged_inputs(
    config: Gr00tN1d6Config, texts: list[int], sizes: list[list[tuple[int, int]]]
) -> dict[str, Any]:
    """Prompts with these numbers of text tokens and images of these sizes, left-padded to one length."""
    generator = torch.Generator().manual_seed(len(texts))
    rows, images = [], []
    for count, own in zip(texts, sizes, strict=True):
        tokens = torch.randint(0, 900, (count,), generator=generator).tolist()
        row = tokens[: count // 2]
        for height, width in own:
            row += [config.image_token_id] * (height * width // config.image_multiple**2)
            images.append(torch.rand(1, 3, height, width, generator=generator) * 2 - 1)
        rows.append(row + tokens[count // 2 :])
    longest = max(len(row) for row in rows)
    ids = torch.tensor([[901] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "pixel_values": images,
        "state": torch.randn(len(rows), 1, config.max_state_dim, generator=generator),
        "embodiment_id": torch.full((len(rows),), EMBODIMENT),
    }


NETWORKS = {
    alternate: randomise(Gr00tN1d6(support.small_config(use_alternate_vl_dit=alternate)))
    for alternate in (True, False)
}
CONFIG = NETWORKS[True].config


def prompt(text: int = 9, sizes: tuple[tuple[int, int], ...] = ((56, 56), (28, 84))) -> dict[str, Any]:
    """As the processor gives it: uint8 images."""
    inputs = ragged_inputs(CONFIG, [text], [list(sizes)])
    generator = torch.Generator().manual_seed(text)
    inputs["pixel_values"] = [
        torch.randint(0, 256, (1, 3, *size), generator=generator, dtype=torch.uint8) for size in sizes
    ]
    return inputs


def chunk_noise(seed: int = 0, horizon: int = CONFIG.action_horizon) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal((1, horizon, CONFIG.max_action_dim))
    return values.astype(np.float32)


def expected_actions(inputs: dict[str, Any], start: np.ndarray, network: Any = NETWORKS[True]) -> np.ndarray:
    images = [image.float() / 127.5 - 1 for image in inputs["pixel_values"]]
    given = {**inputs, "pixel_values": images}
    return network.get_action(given, torch.from_numpy(start))["action_pred"].numpy()
