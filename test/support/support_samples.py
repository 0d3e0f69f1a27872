# SPDX-License-Identifier: Apache-2.0
"""Processors for the small datasets of ``support_datasets``, and which row a training sample is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gr00t_model.config import Gr00tN1d6Config
from gr00t_model.processing import ActionConfig, Gr00tProcessor, ModalityConfig
from gr00t_ros.data.lerobot import LeRobotDataset
from gr00t_ros.training.stream import DatasetSource, training_statistics
from support_datasets import CAMERAS, states

SAMPLES = Path(__file__).resolve().parents[2].parent / "shared" / "data"
CONFIG = Gr00tN1d6Config.tiny()
TAG = "new_embodiment"
OTHER = "gr1"
HORIZON = 8
LANGUAGE = ModalityConfig((0,), ("annotation.human.task_description",))


def modality(
    videos: Sequence[str] = CAMERAS,
    state: Sequence[str] = ("arm", "gripper"),
    action: Sequence[str] = ("arm", "gripper"),
    *,
    past: Sequence[int] = (0,),
    steps: Iterable[int] = range(HORIZON),
    configs: Sequence[ActionConfig] = (),
) -> dict[str, ModalityConfig]:
    return {
        "video": ModalityConfig(tuple(past), tuple(videos)),
        "state": ModalityConfig(tuple(past), tuple(state)),
        "action": ModalityConfig(tuple(steps), tuple(action), action_configs=tuple(configs)),
        "language": LANGUAGE,
    }


# Images of four tokens: a network's work for a picture is the same for any number of them.
SMALL_IMAGES: Mapping[str, Any] = {"shortest_image_edge": 56}


def processor_for(
    sources: Sequence[DatasetSource],
    modalities: Mapping[str, Mapping[str, ModalityConfig]] | None = None,
    **options: Any,
) -> Gr00tProcessor:
    """Statistics of the sources, sizes of the tiny network, images of 56 pixels."""
    configs = modalities or {source.tag: modality() for source in sources}
    return Gr00tProcessor(
        configs,
        training_statistics(sources, configs, lambda text: None),
        max_state_dim=CONFIG.max_state_dim,
        max_action_dim=CONFIG.max_action_dim,
        max_action_horizon=CONFIG.action_horizon,
        **{**SMALL_IMAGES, **options},
    )


class Rows:
    """Finds the (episode, row) of encoded samples by their states, which differ in every row."""

    def __init__(self, folder: Path, processor: Gr00tProcessor, tag: str = TAG) -> None:
        self._number = processor.embodiment_id(tag)
        self._known: dict[bytes, tuple[int, int]] = {}
        dataset = LeRobotDataset(folder)
        for episode in dataset.episodes:
            values = states(episode, dataset.length(episode))
            for row, value in enumerate(values):
                groups = {"arm": value[None, None, :5], "gripper": value[None, None, 5:]}
                encoded = processor._codec(tag).encode_state(groups, CONFIG.max_state_dim)
                self._known[encoded[0, -1].tobytes()] = (episode, row)

    def of(self, inputs: Mapping[str, Any]) -> list[tuple[int, int]]:
        """The rows of a batch; samples of other embodiments are left out."""
        return [
            self._known[state[-1].numpy().tobytes()]
            for state, number in zip(inputs["state"], inputs["embodiment_id"], strict=True)
            if int(number) == self._number
        ]
