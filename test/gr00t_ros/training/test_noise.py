# SPDX-License-Identifier: Apache-2.0
"""Noise and time of training samples: by number, distributed as the network's own."""

from __future__ import annotations

import torch

from gr00t_ros.training.noise import noise_and_time, sample_numbers
from support_network import small_config

CONFIG = small_config()


def test_noise_is_the_same_however_a_batch_is_shared() -> None:
    whole, times = noise_and_time(CONFIG, 3, sample_numbers(5, 0, 1, 8), 6)
    # Two processes, four samples each; and one process in two parts.
    shared = [noise_and_time(CONFIG, 3, sample_numbers(5, rank, 2, 4), 6) for rank in (0, 1)]
    parts = [noise_and_time(CONFIG, 3, sample_numbers(10 + part, 0, 1, 4), 6) for part in (0, 1)]
    for pieces in (shared, parts):
        assert torch.equal(torch.cat([noise for noise, _ in pieces]), whole)
        assert torch.equal(torch.cat([time for _, time in pieces]), times)


def test_noise_differs_between_samples_steps_and_seeds() -> None:
    numbers = [*sample_numbers(0, 0, 1, 4), *sample_numbers(1, 0, 1, 4)]
    noise, _ = noise_and_time(CONFIG, 0, numbers, 6)
    other, _ = noise_and_time(CONFIG, 1, numbers, 6)
    assert len({float(value) for value in (*noise[:, 0, 0], *other[:, 0, 0])}) == 16


def test_further_draws_are_others_and_leave_the_first_as_it_is() -> None:
    one, first = noise_and_time(CONFIG, 3, range(4), 6)
    noise, time = noise_and_time(CONFIG, 3, range(4), 6, draws=3)
    assert (len(noise), len(time)) == (12, 12)
    assert torch.equal(noise[:4], one)
    assert torch.equal(time[:4], first)
    assert len(set(time.tolist())) == len({float(value) for value in noise[:, 0, 0]}) == 12


def test_distributions_are_the_network_s() -> None:
    """1 - Beta(1.5, 1), times noise_s: mean 0.4 and variance 1.5 / (2.5^2 * 3.5) of that."""
    noise, time = noise_and_time(CONFIG, 0, range(20_000), 1)
    assert noise.dtype == time.dtype == torch.float32
    assert abs(float(noise.mean())) < 0.01
    assert abs(float(noise.std()) - 1) < 0.01
    assert 0 <= float(time.min()) <= float(time.max()) < CONFIG.noise_s
    assert abs(float(time.mean()) - 0.4 * 0.999) < 0.01
    assert abs(float(time.var()) - 1.5 / (2.5**2 * 3.5) * 0.999**2) < 0.005
