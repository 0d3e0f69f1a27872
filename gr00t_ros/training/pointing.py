# SPDX-License-Identifier: Apache-2.0
"""Pointing: an auxiliary loss that teaches a network without pretraining which thing an instruction means.

The dataset knows where in a camera's picture the named thing is, as two values (u, v) of a state that the
network does not get. A linear layer gives each image token, as the backbone hands it to the action head,
three numbers. The loss is the cross-entropy of the first for the token that the thing is on, and the squared
distance, in tokens, of that token's two others from where the thing is in the picture: a token that is found
but does not say where it is helps no action. Text comes first in the prompt and the language model is causal,
so image tokens know what is asked for. The layer is of the training only: what is deployed has neither it nor
the state.
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
        """float32 [1, 3]: number of the token among all image tokens of a sample, and the point's place from
        the picture's centre in tokens, to the right and down. (``NOWHERE``, 0, 0) where no token shows it.

        Args:
            point: (u, v) in the newest picture of the camera, as the network sees it.
            images: of the sample, [1, 3, H, W] each, by time, then view.
        """
        u, v = point
        if not (0.0 <= u < 1.0 and 0.0 <= v < 1.0):
            return torch.tensor([[NOWHERE, 0.0, 0.0]])
        cameras = modality["video"].modality_keys
        number = len(images) - len(cameras) + cameras.index(self.view(modality))
        grids = [(image.shape[2] // PATCH_MULTIPLE, image.shape[3] // PATCH_MULTIPLE) for image in images]
        rows, columns = grids[number]
        before = sum(height * width for height, width in grids[:number])
        number = before + int(v * rows) * columns + int(u * columns)
        return torch.tensor([[number, (u - 0.5) * columns, (v - 0.5) * rows]])


class PointingHead(nn.Module):
    """For each token, from the backbone's feature of it: whether it is the one, and if it is, where the thing
    is."""

    def __init__(self, width: int, seed: int) -> None:
        super().__init__()
        # No bias: cross-entropy does not see one, and places are counted from the picture's centre.
        self.weight = nn.Parameter(initial_value(f"{HEAD}.weight", (3, width), seed))

    def forward(self, features: Tensor) -> Tensor:
        """[B, L, width] to float32 [B, L, 3]: logit, x, y."""
        return features.float() @ self.weight.float().T


@dataclass(frozen=True)
class Pointed:
    """Sums over the samples of a batch that have a label: loss (nats and squared tokens), how many tokens
    were right, how many samples there were."""

    loss: Tensor
    right: Tensor
    count: Tensor


def pointed(head: nn.Module, features: Tensor, is_image: Tensor, label: Tensor) -> Pointed:
    """How well the image tokens' features tell where the named thing is.

    Args:
        features: [B, L, width] of the backbone.
        is_image: bool [B, L].
        label: [B, 3], see :meth:`Pointing.label`.
    """
    said = head(features)
    logits, places = said[..., 0].masked_fill(~is_image, -torch.inf), said[..., 1:]
    wanted = is_image & (is_image.cumsum(1) - 1 == label[:, :1])
    known = label[:, 0] != NOWHERE
    surprise = -logits.log_softmax(1).masked_fill(~wanted, 0.0).sum(1)
    distance = (places - label[:, None, 1:]).square().sum(2).masked_fill(~wanted, 0.0).sum(1)
    best = logits.argmax(1, keepdim=True)
    right = wanted.gather(1, best)[:, 0]
    return Pointed((surprise + distance).sum(), right.sum(), known.sum())


class PointingCount:
    """The figures since they were last told, of this process. They stay where they were computed until then,
    so that nobody waits for a GPU."""

    def __init__(self) -> None:
        self._sums: Tensor | None = None

    def add(self, result: Pointed) -> None:
        """One batch more."""
        new = torch.stack([value.detach().double() for value in (result.loss, result.right, result.count)])
        self._sums = new if self._sums is None else self._sums + new

    def take(self) -> list[float]:
        """Loss, right ones, samples; they begin anew."""
        taken, self._sums = self._sums, None
        return [0.0, 0.0, 0.0] if taken is None else [float(value) for value in taken]


def figures(sums: Sequence[float], prefix: str = "") -> dict[str, float]:
    """What :class:`PointingCount` gives, for the log; nothing where no sample had a label."""
    loss, right, count = sums
    if not count:
        return {}
    return {f"{prefix}pointing_loss": loss / count, f"{prefix}pointing_accuracy": right / count}
