# SPDX-License-Identifier: Apache-2.0
"""The deployed form: the network's weights laid out for one job, a chunk now.

Made from a loaded network without a second copy of its weights: merged tensors replace the parts, which
become views of them, so both forms can be used and compared. When the network is dropped, what only it
needs is freed: the language head, the pooling head, the time modulations, all other embodiments' weights.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gr00t_model.config import Gr00tN1d6Config
from gr00t_model.errors import EmbodimentError
from gr00t_model.inference.deployed.head import Context, Head
from gr00t_model.inference.deployed.language import Language
from gr00t_model.inference.deployed.layers import frozen, total_bytes
from gr00t_model.inference.deployed.vision import Vision
from gr00t_model.inference.layout import Layout, group_by_size
from gr00t_model.network import Gr00tN1d6


class Deployed(nn.Module):
    """The whole network for one embodiment and one number of denoising steps.

    Its parts are the two TensorRT engines' as well: `image_tokens`, `fuse` and `language` make the
    backbone, `head` the action engine.
    """

    def __init__(self, network: Gr00tN1d6, embodiment_id: int, num_steps: int | None = None) -> None:
        """Raises EmbodimentError for an id that the checkpoint does not have."""
        super().__init__()
        config: Gr00tN1d6Config = network.config
        if not 0 <= embodiment_id < config.max_num_embodiments:
            raise EmbodimentError(
                f"embodiment id {embodiment_id} is outside this checkpoint's "
                f"0..{config.max_num_embodiments - 1}"
            )
        eagle = network.backbone.model
        self.config = config
        self.embodiment_id = embodiment_id
        self.num_steps = config.num_inference_timesteps if num_steps is None else num_steps
        self.alternate = config.use_alternate_vl_dit
        self.embed_tokens = frozen(eagle.language_model.model.embed_tokens.weight.data)
        self.vision = Vision(eagle)
        self.language = Language(eagle.language_model.model)
        self.head = Head(network.action_head, embodiment_id, self.num_steps)

    @property
    def dtype(self) -> torch.dtype:
        """The type the layers compute in."""
        return self.head.state1.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.head.state1.weight.device

    def memory(self) -> int:
        """Bytes that the weights hold."""
        return total_bytes(self.parameters())

    # ---- the backbone ----------------------------------------------------------------------------

    def image_tokens(self, images: Sequence[Tensor]) -> Tensor:
        """Images, each [1, 3, H, W] in [-1, 1], to their tokens in that order: [S, language width]."""
        tokens: list[Tensor] = [torch.empty(0)] * len(images)
        for indices in group_by_size(images).values():
            batch = images[indices[0]] if len(indices) == 1 else torch.cat([images[i] for i in indices])
            for index, own in zip(indices, self.vision(batch), strict=True):
                tokens[index] = own
        return tokens[0] if len(tokens) == 1 else torch.cat(tokens)

    def fuse(self, text: Tensor, image_tokens: Tensor, order: Tensor) -> Tensor:
        """Text embeddings [B, T, W] and image tokens [S, W] in the order of the sequence: [B, L, W]."""
        return torch.cat((text.flatten(0, 1), image_tokens))[order]

    def context(self, features: Tensor, layout: Layout) -> Context:
        """What the action head looks at, gathered from the features [B, L, W]."""
        if not self.alternate:
            return Context(features, layout.seen, None, None)
        flat = features.flatten(0, 1)
        return Context(flat[layout.text_index], layout.text_mask, flat[layout.image_index], layout.image_mask)

    def backbone(self, images: Sequence[Tensor], layout: Layout, text: Tensor | None = None) -> Context:
        """Images and prompt to what the action head looks at. `text`: the text's embeddings [B, T, W], where
        they are at hand already."""
        text = self.embed_tokens[layout.text_ids] if text is None else text
        fused = self.fuse(text, self.image_tokens(images), layout.order)
        # Padding concerns only the plain DiT, which looks at it.
        valid = None if self.alternate or layout.valid is None else layout.valid[:, :, None].to(self.dtype)
        return self.context(self.language(fused, valid), layout)

    # ---- all of it -------------------------------------------------------------------------------

    def prepare(self, image_sizes: Sequence[tuple[int, int]], tokens: int) -> tuple[Tensor, ...]:
        """The tables for images of these sizes (height, width in pixels) and sequences of `tokens`, made
        where they are not there yet. Whoever records their addresses keeps them."""
        positions = [self.vision.prepare(height, width) for height, width in image_sizes]
        return (*positions, *self.language.prepare(tokens))

    def forward(
        self,
        images: Sequence[Tensor],
        layout: Layout,
        state: Tensor,
        noise: Tensor,
        prefix: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        """Actions [B, H, max_action_dim], in the type of `noise`, which has that shape too."""
        return self.head(self.backbone(images, layout), state, noise, prefix, weight)


def deploy(network: Gr00tN1d6, embodiment_id: int, num_steps: int | None = None) -> Deployed:
    """The deployed form of a network, sharing its storage; num_steps None takes the configuration's.

    Raises:
        EmbodimentError: the checkpoint has no such embodiment.
    """
    with torch.no_grad():
        return Deployed(network, embodiment_id, num_steps).eval()
