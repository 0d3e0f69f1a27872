# SPDX-License-Identifier: Apache-2.0
"""The noise and the time that a sample is trained with, as a function of the seed and the sample's number.

The number counts the samples of a run, over all steps and processes. So a batch has the same noise however
it is shared among processes and accumulation parts, and a run that is gone on with draws what it would have
drawn without the interruption.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gr00t_model import Gr00tN1d6Config

_WORD = 1 << 64
# The evaluation's samples, which are the same each time, must not share numbers with the run's own: a run
# would have to see 2^48 samples to reach them.
EVALUATION = 1 << 48
# Nor the further draws for the same sample.
ANOTHER_DRAW = 1 << 50


def noise_and_time(
    config: Gr00tN1d6Config, seed: int, numbers: Sequence[int], horizon: int, draws: int = 1
) -> tuple[Tensor, Tensor]:
    """float32 noise [N * B, H, max_action_dim], standard normal, and time [N * B] in [0, noise_s),
    distributed as the network's own (``ActionHead.sample_time``): N draws of the batch one after the other.

    Args:
        numbers: of the B samples.
        draws: N; each of them is the same whatever their number.
    """
    noise = np.empty((draws * len(numbers), horizon, config.max_action_dim), np.float32)
    time = np.empty(len(noise), np.float32)
    drawn = [draw * ANOTHER_DRAW + number for draw in range(draws) for number in numbers]
    for place, number in enumerate(drawn):
        # Philox is counter based (Salmon et al., 2011): a stream of its own for each key, ready at once.
        key = np.array([seed % _WORD, number % _WORD], np.uint64)
        rng = np.random.Generator(np.random.Philox(key=key))
        rng.standard_normal(dtype=np.float32, out=noise[place])
        time[place] = 1.0 - rng.beta(config.noise_beta_alpha, config.noise_beta_beta)
    return torch.from_numpy(noise), torch.from_numpy(time) * config.noise_s


def sample_numbers(micro_step: int, process: int, processes: int, batch: int) -> range:
    """Numbers of the samples that a process computes in one part of one step; ``micro_step`` counts the parts
    of all steps before."""
    first = (micro_step * processes + process) * batch
    return range(first, first + batch)
