# SPDX-License-Identifier: Apache-2.0
"""The SigLIP-2 tower and the projector, laid out for inference: one matrix product for queries, keys and
values, and position tables made once for each image size."""

from torch import Tensor, nn
from torch.nn import functional as F

from gr00t_model.inference.deployed.layers import Norm, frozen, join_heads, merge, share, split_heads
from gr00t_model.network.eagle import Eagle
from gr00t_model.network.vision import VisionEmbeddings, patches
from gr00t_model.sizes import UNSHUFFLE


class VisionLayer(nn.Module):
    """One pre-norm SigLIP-2 layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        attention, mlp = layer.self_attn, layer.mlp
        self.heads = attention.num_heads
        self.norm1, self.norm2 = Norm(layer.layer_norm1), Norm(layer.layer_norm2)
        self.qkv = merge([attention.q_proj, attention.k_proj, attention.v_proj])
        self.out = share(attention.out_proj)
        self.fc1, self.fc2 = share(mlp.fc1), share(mlp.fc2)

    def forward(self, x: Tensor) -> Tensor:
        """[N, patches, width] to the same."""
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(self.norm1(x)).chunk(3, dim=-1))
        x = x + self.out(join_heads(F.scaled_dot_product_attention(q, k, v)))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x)), approximate="tanh"))


class Vision(nn.Module):
    """Images of one size to image tokens, as many as an image has squares of 28 pixels."""

    def __init__(self, eagle: Eagle) -> None:
        super().__init__()
        tower = eagle.vision_model.vision_model
        embeddings: VisionEmbeddings = tower.embeddings
        self.patch_size = embeddings.patch_size
        self.patch = share(embeddings.patch_embedding)
        self.grid = frozen(embeddings.position_embedding.weight.data)
        self._resize = embeddings.positions
        self.positions: dict[tuple[int, int], Tensor] = {}
        self.layers = nn.ModuleList(VisionLayer(layer) for layer in tower.encoder.layers)
        self.norm = Norm(tower.post_layernorm)
        norm, first, _, second = eagle.mlp1
        self.project_norm, self.project1, self.project2 = Norm(norm), share(first), share(second)

    def prepare(self, height: int, width: int) -> Tensor:
        """The position table [patches, width] of this image size in pixels, made on first use."""
        size = height // self.patch_size, width // self.patch_size
        if size not in self.positions:
            self.positions[size] = self._resize(*size).contiguous()
        return self.positions[size]

    def forward(self, images: Tensor) -> Tensor:
        """[N, 3, H, W] in [-1, 1] to [N, tokens, language width]."""
        height, width = images.shape[-2:]
        x = self.patch(patches(images, self.patch_size)) + self.prepare(height, width)
        for layer in self.layers:
            x = layer(x)
        x = self.norm(x)
        # Four neighbouring patches side by side in a token, channel-major (as `connector.unshuffle`).
        rows, columns = height // self.patch_size, width // self.patch_size
        squares = x.unflatten(1, (rows // UNSHUFFLE, UNSHUFFLE, columns // UNSHUFFLE, UNSHUFFLE))
        merged = squares.permute(0, 1, 3, 5, 2, 4).flatten(3).flatten(1, 2)
        return self.project2(F.gelu(self.project1(self.project_norm(merged))))
