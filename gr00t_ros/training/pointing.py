# SPDX-License-Identifier: Apache-2.0
"""Pointing: an auxiliary loss that teaches a network without pretraining which thing an instruction means.

The dataset knows where in a camera's picture the named thing is, as two values (u, v) of a state that the
network does not get. A linear layer gives each image token, as the backbone hands it to the action head, one
number; the loss is the cross-entropy for the token that the thing is on. Text comes first in the prompt and
the language model is causal, so image tokens know what is asked for. The layer is of the training only: what
is deployed has neither it nor the state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from gr00t_model.network.initial import initial_value
from gr00t_model.processing import ModalityConfig
from gr00t_model.processing.images import PATCH_MULTIPLE
from gr00t_ros.training.options import TrainingError

# The label of a sample in whose picture the thing is not to be seen; it counts for nothing.
NOWHERE = -1
# Where the layer hangs in the network while it is trained.
HEAD = "pointing"
# Values of the state: u, v, as `gr00t_model.processing.points` has them.
WIDTH = 2


@dataclass(frozen=True)
class Pointing:
    """``state``: the key that holds (u, v) of the named thing; ``camera``: the video key in whose picture, ""
    for the first one."""

    state: str
    camera: str

    @classmethod
    def parse(cls, text: str) -> Pointing:
        """``STATE[:CAMERA]``."""
        state, _, camera = text.partition(":")
        return cls(state, camera)

    def view(self, modality: Mapping[str, ModalityConfig]) -> str:
        """The camera's video key.

        Raises:
            TrainingError: there is no such camera.
        """
        cameras = modality["video"].modality_keys
        if self.camera and self.camera not in cameras:
            raise TrainingError(
                f"--pointing {self.state}:{self.camera}: there is no such camera, only {', '.join(cameras)}"
            )
        return self.camera or cameras[0]

    def hidden(self, modality: Mapping[str, ModalityConfig]) -> dict[str, ModalityConfig]:
        """The modality without the state that tells: the network is to find the thing by itself.

        Raises:
            TrainingError: nothing would be left, an action is relative to it, or there is no such camera.
        """
        self.view(modality)
        state, action = modality["state"], modality["action"]
        left = tuple(key for key in state.modality_keys if key != self.state)
        configs = ((key, action.action_config(key)) for key in action.modality_keys)
        bound = [
            key for key, config in configs if config.relative and (config.state_key or key) == self.state
        ]
        if not left or bound:
            raise TrainingError(
                f"--pointing {self.state}: it is no input of the network then, but "
                + (f"action {bound[0]} is relative to it" if bound else "there is no other state")
            )
        return {**modality, "state": replace(state, modality_keys=left)}

    def label(
        self, point: tuple[float, float], images: Sequence[Tensor], modality: Mapping[str, ModalityConfig]
    ) -> Tensor:
        """int64 [1]: number of the token among all image tokens of a sample, ``NOWHERE`` where none shows the
        point.

        Args:
            point: (u, v) in the newest picture of the camera, as the network sees it.
            images: of the sample, [1, 3, H, W] each, by time, then view.
        """
        u, v = point
        if not (0.0 <= u < 1.0 and 0.0 <= v < 1.0):
            return torch.tensor([NOWHERE])
        cameras = modality["video"].modality_keys
        number = len(images) - len(cameras) + cameras.index(self.view(modality))
        grids = [(image.shape[2] // PATCH_MULTIPLE, image.shape[3] // PATCH_MULTIPLE) for image in images]
        rows, columns = grids[number]
        before = sum(height * width for height, width in grids[:number])
        return torch.tensor([before + int(v * rows) * columns + int(u * columns)])


class PointingHead(nn.Module):
    """One number for each token, from the backbone's feature of it."""

    def __init__(self, width: int, seed: int) -> None:
        super().__init__()
        # A bias would be the same for all tokens of a picture, and cross-entropy does not see it.
        self.weight = nn.Parameter(initial_value(f"{HEAD}.weight", (1, width), seed))

    def forward(self, features: Tensor) -> Tensor:
        """[B, L, width] to float32 [B, L]."""
        return (features.float() @ self.weight.float().T)[..., 0]


@dataclass(frozen=True)
class Pointed:
    """Sums over the samples of a batch that have a label: cross-entropy (nats), how many tokens were right,
    how many samples there were."""

    loss: Tensor
    right: Tensor
    count: Tensor


def pointed(head: nn.Module, features: Tensor, is_image: Tensor, label: Tensor) -> Pointed:
    """How well the image tokens' features tell where the named thing is.

    Args:
        features: [B, L, width] of the backbone.
        is_image: bool [B, L].
        label: int64 [B], see :meth:`Pointing.label`.
    """
    logits = head(features).masked_fill(~is_image, -torch.inf)
    wanted = is_image & (is_image.cumsum(1) - 1 == label[:, None])
    losses = -logits.log_softmax(1).masked_fill(~wanted, 0.0).sum(1)
    known = label != NOWHERE
    best = logits.argmax(1, keepdim=True)
    right = wanted.gather(1, best)[:, 0]
    return Pointed(losses.sum(), right.sum(), known.sum())


class PointingCount:
    """The figures since they were last told, of this process."""

    def __init__(self) -> None:
        self._sums = [0.0, 0.0, 0.0]

    def add(self, result: Pointed) -> None:
        """One batch more."""
        new = (result.loss, result.right, result.count)
        self._sums = [total + float(value.detach()) for total, value in zip(self._sums, new, strict=True)]

    def take(self) -> list[float]:
        """Loss, right ones, samples; they begin anew."""
        taken, self._sums = self._sums, [0.0, 0.0, 0.0]
        return taken


def figures(sums: Sequence[float], prefix: str = "") -> dict[str, float]:
    """What :class:`PointingCount` gives, for the log; nothing where no sample had a label."""
    loss, right, count = sums
    if not count:
        return {}
    return {f"{prefix}pointing_loss": loss / count, f"{prefix}pointing_accuracy": right / count}
