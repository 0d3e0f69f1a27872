# SPDX-License-Identifier: Apache-2.0
"""Policies whose errors are known exactly, for the datasets of ``support_datasets``.

There the state of joint j at row k of episode e is ``e + 0.01 k + 0.1 j`` and the action is the state and 0.5
more, so a stand-in can tell from the state where it is, and holding still is wrong by 0.5 + 0.01 i at step i.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gr00t_model.config import Gr00tN1d6Config
from gr00t_model.processing import ActionConfig, Gr00tProcessor, KeyStatistics, ModalityConfig
from support_datasets import CAMERAS

TAG = "new_embodiment"
HORIZON = 8
ARM = {"arm": 5, "gripper": 1}
CONFIG = Gr00tN1d6Config.tiny()

Chunk = dict[str, NDArray[np.float32]]


def processor_for(
    states: Mapping[str, int],
    actions: Mapping[str, int] | None = None,
    *,
    tag: str = TAG,
    videos: tuple[str, ...] = CAMERAS,
    horizon: int = HORIZON,
    past: tuple[int, ...] = (0,),
    configs: tuple[ActionConfig, ...] = (),
) -> Gr00tProcessor:
    """Keys and widths as given, every value scaled by -4 to 4."""
    given = states if actions is None else actions

    def limits(widths: Mapping[str, int]) -> dict[str, KeyStatistics]:
        return {key: KeyStatistics.from_limits([-4.0] * n, [4.0] * n) for key, n in widths.items()}

    modality = {
        "video": ModalityConfig(past, videos),
        "state": ModalityConfig(past, tuple(states)),
        "action": ModalityConfig(tuple(range(horizon)), tuple(given), action_configs=configs),
        "language": ModalityConfig((0,), ("annotation.human.task_description",)),
    }
    statistics = {"state": limits(states), "action": limits(given), "relative_action": limits(given)}
    return Gr00tProcessor(
        {tag: modality},
        {tag: statistics},
        max_state_dim=CONFIG.max_state_dim,
        max_action_dim=CONFIG.max_action_dim,
        max_action_horizon=CONFIG.action_horizon,
    )


class Oracle:
    """Knows the recorded actions and spoils them: ``spoil`` changes a chunk in place. Remembers its calls."""

    def __init__(self, spoil: Callable[[Chunk], object] = lambda chunk: None, horizon: int = HORIZON) -> None:
        self.spoil, self.horizon = spoil, horizon
        self.calls: list[tuple[int, int]] = []
        self.states: list[float] = []

    def get_action(
        self, observation: Mapping[str, Any], *, t_obs_ns: int, seed: int
    ) -> tuple[Chunk, dict[str, Any]]:
        self.calls.append((t_obs_ns, seed))
        first = float(observation["state"]["arm"][0, -1, 0])
        self.states.append(first)
        steps = first + 0.5 + 0.01 * np.arange(self.horizon)[:, None] + 0.1 * np.arange(6)
        steps = steps.astype(np.float32)[None]
        chunk = {"arm": steps[..., :5].copy(), "gripper": steps[..., 5:].copy()}
        self.spoil(chunk)
        return chunk, {"timing": {"inference_s": 0.25}}
