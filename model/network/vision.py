# SPDX-License-Identifier: Apache-2.0
"""The SigLIP-2 tower of the backbone: images to patch features.

Every patch of an image attends to every patch of the same image, and to no other image. Images keep their
sizes: those of one size go through together, so nothing is padded and no mask is needed.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.siglip2.configuration_siglip2 import Siglip2VisionConfig
from transformers.models.siglip2.modeling_siglip2 import (
    Siglip2EncoderLayer,
    Siglip2MultiheadAttentionPoolingHead,
)

from gr00t_model.sizes import VisionSizes


def patches(images: Tensor, size: int) -> Tensor:
    """[N, C, H, W] to [N, (H/size)*(W/size), size*size*C]: raster order, and row, column, channel inside a
    patch."""
    count, channels, height, width = images.shape
    grid = images.reshape(count, channels, height // size, size, width // size, size)
    return grid.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


class VisionEmbeddings(nn.Module):
    """Patches through one linear layer, plus a learned square position grid resized to the image's."""

    def __init__(self, sizes: VisionSizes) -> None:
        super().__init__()
        self.patch_size = sizes.patch_size
        self.side = int(sizes.num_patches**0.5)
        self.patch_embedding = nn.Linear(sizes.num_channels * sizes.patch_size**2, sizes.hidden_size)
        self.position_embedding = nn.Embedding(sizes.num_patches, sizes.hidden_size)

    def positions(self, rows: int, columns: int) -> Tensor:
        """[rows*columns, hidden]. On the CPU in float32 whatever the model's device and type, as the
        reference does: antialiased interpolation differs between devices."""
        table = self.position_embedding.weight
        grid = table.to("cpu", torch.float32).view(1, self.side, self.side, -1).permute(0, 3, 1, 2)
        resized = F.interpolate(grid, (rows, columns), mode="bilinear", align_corners=False, antialias=True)
        return resized[0].flatten(1).transpose(0, 1).to(table.device, table.dtype)

    def forward(self, images: Tensor) -> Tensor:
        """[N, C, H, W] of one size to [N, patches, hidden]."""
        embedded = self.patch_embedding(patches(images, self.patch_size))
        return embedded + self.positions(
            images.shape[-2] // self.patch_size, images.shape[-1] // self.patch_size
        )


class VisionEncoder(nn.Module):
    """A stack of pre-norm SigLIP-2 layers."""

    def __init__(self, sizes: VisionSizes) -> None:
        super().__init__()
        config = Siglip2VisionConfig(
            hidden_size=sizes.hidden_size,
            intermediate_size=sizes.intermediate_size,
            num_hidden_layers=sizes.num_hidden_layers,
            num_attention_heads=sizes.num_attention_heads,
            layer_norm_eps=sizes.layer_norm_eps,
            hidden_act="gelu_pytorch_tanh",
            attention_dropout=0.0,
            attn_implementation="sdpa",
        )
        self.config = config
        self.layers = nn.ModuleList(Siglip2EncoderLayer(config) for _ in range(sizes.num_hidden_layers))

    def forward(self, hidden: Tensor) -> Tensor:
        """[N, patches, hidden] to the same."""
        for layer in self.layers:
            hidden = layer(hidden, None)
        return hidden


class VisionTransformer(nn.Module):
    """Embeddings, encoder and final norm. `head` pools an image into one vector; N1.6 never calls it, but
    its tensors are part of the published checkpoint."""

    def __init__(self, sizes: VisionSizes) -> None:
        super().__init__()
        self.embeddings = VisionEmbeddings(sizes)
        self.encoder = VisionEncoder(sizes)
        self.post_layernorm = nn.LayerNorm(sizes.hidden_size, eps=sizes.layer_norm_eps)
        self.head = Siglip2MultiheadAttentionPoolingHead(self.encoder.config)

    def forward(self, images: Tensor) -> Tensor:
        """[N, C, H, W] of one size to [N, patches, hidden]."""
        return self.post_layernorm(self.encoder(self.embeddings(images)))


class VisionModel(nn.Module):
    """The tower under its checkpoint name, for images of any sizes.

    (The second level named `vision_model` is the published checkpoint's.)
    """

    def __init__(self, sizes: VisionSizes) -> None:
        super().__init__()
        self.patch_size = sizes.patch_size
        self.vision_model = VisionTransformer(sizes)

    def forward(self, images: Sequence[Tensor]) -> list[Tensor]:
        """Each [1, C, H, W] to a feature map [H/patch, W/patch, hidden], in the order given."""
        by_size: dict[tuple[int, int], list[int]] = {}
        for index, image in enumerate(images):
            by_size.setdefault((image.shape[-2], image.shape[-1]), []).append(index)
        maps: list[Tensor] = [torch.empty(0)] * len(images)
        for (height, width), indices in by_size.items():
            features = self.vision_model(torch.cat([images[i] for i in indices]))
            grid = features.unflatten(1, (height // self.patch_size, width // self.patch_size))
            for index, feature_map in zip(indices, grid, strict=True):
                maps[index] = feature_map
        return maps
