# SPDX-License-Identifier: Apache-2.0
"""The flow-matching action head, laid out for inference with a fixed number of denoising steps.

Once a load: all that depends on the denoising time alone, and the one embodiment's weights. Once a chunk:
the state token, and the cross-attention keys and values of text and image tokens. Once a step: the rest.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gr00t_model.inference.deployed.layers import Norm, frozen, join_heads, linear, merge, share, split_heads
from gr00t_model.network.action_head import ActionHead
from gr00t_model.network.dit import BLOCK_EPS, OUTPUT_EPS, AlternateVLDiT, DitBlock
from gr00t_model.network.embodiment import EmbodimentLinear
from gr00t_model.network.timestep import action_time_code

KeysValues = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Context:
    """What the cross-attention blocks look at: features [B, n, W], and which of them are real (bool [B, n],
    or what is added to the scores; None for all). The plain DiT has one set for all blocks, in `text`."""

    text: Tensor
    text_mask: Tensor | None
    image: Tensor | None
    image_mask: Tensor | None


class Block(nn.Module):
    """One transformer block: attention behind a norm whose weights are the time's scale and shift, then a
    feed-forward."""

    def __init__(self, block: DitBlock, own: bool) -> None:
        super().__init__()
        attention = block.attn1
        self.heads = attention.heads
        # A self-attention block projects its own tokens three ways, a cross-attention block only the queries.
        self.project = (
            merge([attention.to_q, attention.to_k, attention.to_v]) if own else share(attention.to_q)
        )
        self.out = share(attention.to_out[0])
        self.fc1, self.fc2 = share(block.ff.net[0].proj), share(block.ff.net[2])

    def forward(
        self, x: Tensor, scale: Tensor, shift: Tensor, context: KeysValues | None, mask: Tensor | None
    ) -> Tensor:
        """x [B, T, width]; scale (one already added) and shift [width]; context keys and values
        [B, heads, n, d], or None for self-attention; mask [B, 1, 1, n], added to the scores, or None."""
        width = x.shape[-1:]
        projected = self.project(F.layer_norm(x, width, scale, shift, BLOCK_EPS))
        if context is None:
            q, k, v = (split_heads(part, self.heads) for part in projected.chunk(3, dim=-1))
        else:
            q, (k, v) = split_heads(projected, self.heads), context
        x = x + self.out(join_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=mask)))
        hidden = self.fc1(F.layer_norm(x, width, None, None, BLOCK_EPS))
        return x + self.fc2(F.gelu(hidden, approximate="tanh"))


class KeysValuesOf(nn.Module):
    """Keys and values of several cross-attention blocks in one product."""

    def __init__(self, blocks: list[DitBlock]) -> None:
        super().__init__()
        self.heads = blocks[0].attn1.heads if blocks else 0
        self.count = len(blocks)
        layers = [layer for block in blocks for layer in (block.attn1.to_k, block.attn1.to_v)]
        self.project = merge(layers) if layers else None

    def forward(self, features: Tensor) -> list[KeysValues]:
        """[B, n, context width] to keys and values [B, heads, n, d] for each block."""
        if self.project is None:
            return []
        parts = self.project(features).chunk(2 * self.count, dim=-1)
        heads = [split_heads(part, self.heads) for part in parts]
        return list(zip(heads[::2], heads[1::2], strict=True))


class Head(nn.Module):
    """Features and state to a chunk of actions, in `num_steps` Euler steps, for one embodiment."""

    def __init__(self, head: ActionHead, embodiment_id: int, num_steps: int) -> None:
        super().__init__()
        config, dit = head.config, head.model
        self.num_steps = num_steps
        self.own = list(dit.self_attention)
        self.vlln = Norm(head.vlln) if config.use_vlln else nn.Identity()
        # Which features a cross-attention block sees: text (or all, in the plain DiT), else images.
        self.sees_text = [
            not isinstance(dit, AlternateVLDiT) or index % dit.text_period == 0
            for index in range(len(self.own))
        ]
        crossing = [(block, text) for block, own, text in self._zip(dit.transformer_blocks) if not own]
        self.text_context = KeysValuesOf([block for block, text in crossing if text])
        self.image_context = KeysValuesOf([block for block, text in crossing if not text])
        self.blocks = nn.ModuleList(Block(block, own) for block, own, _ in self._zip(dit.transformer_blocks))
        self._fold_embodiment(head, embodiment_id)
        self._fold_time(head)

    def _zip(self, blocks: nn.ModuleList) -> list[tuple[DitBlock, bool, bool]]:
        return list(zip(blocks, self.own, self.sees_text, strict=True))

    @torch.no_grad()
    def _fold_embodiment(self, head: ActionHead, e: int) -> None:
        """One embodiment's weights; linear layers with nothing between them become one, multiplied out in
        float32."""

        def part(layer: EmbodimentLinear) -> tuple[Tensor, Tensor]:
            """Weight [out, in] and bias, float32 or wider."""
            return wide(layer.W[e]).T, wide(layer.b[e])

        def put(weight: Tensor, bias: Tensor) -> nn.Linear:
            return linear(weight.to(dtype).contiguous(), bias.to(dtype).contiguous())

        dtype = head.state_encoder.layer1.W.dtype
        encoder, decoder = head.action_encoder, head.action_decoder
        self.state1, self.state2 = (
            put(*part(layer)) for layer in (head.state_encoder.layer1, head.state_encoder.layer2)
        )
        (w1, b1), (w2, b2), (w3, b3) = part(encoder.W1), part(encoder.W2), part(encoder.W3)
        actions, time = w2.split(encoder.width, dim=1)
        # W2 [W1 x + b1, tau] + b2 = (W2a W1) x + (W2a b1 + W2t tau + b2)
        self.encode1 = linear((actions @ w1).to(dtype).contiguous(), None)
        code = action_time_code(self.buckets(head), encoder.width).to(time)
        self.encode1_bias = frozen((code @ time.T + actions @ b1 + b2).to(dtype))
        self.encode2 = put(w3, b3)
        positions = head.position_embedding.weight.data if head.config.add_pos_embed else None
        rows = head.config.action_horizon
        self.positions = None if positions is None else frozen(positions[:rows].clone())
        # The transformer's output projection runs straight into the decoder's first layer.
        (d1, c1), last = part(decoder.layer1), head.model.proj_out_2
        self.decode1 = put(d1 @ wide(last.weight), d1 @ wide(last.bias) + c1)
        self.decode2 = put(*part(decoder.layer2))

    def buckets(self, head: ActionHead) -> Tensor:
        """int64 [N]: the time bucket of each Euler step."""
        config, device = head.config, head.model.proj_out_1.weight.device
        return torch.tensor(
            [int(step / self.num_steps * config.num_timestep_buckets) for step in range(self.num_steps)],
            device=device,
        )

    @torch.no_grad()
    def _fold_time(self, head: ActionHead) -> None:
        """Scales (one added) and shifts of every norm at every step, computed in float32."""
        dit, dtype = head.model, head.model.proj_out_1.weight.dtype
        encoder = dit.timestep_encoder
        code = wide(encoder.time_proj(self.buckets(head)))
        hidden = F.silu(apply_wide(encoder.timestep_embedder.linear_1, code))
        time = F.silu(apply_wide(encoder.timestep_embedder.linear_2, hidden))
        modulations = [
            apply_wide(block.norm1.linear, time).chunk(2, dim=1) for block in dit.transformer_blocks
        ]
        shift, scale = apply_wide(dit.proj_out_1, time).chunk(2, dim=1)  # shift first here
        modulations.append((scale, shift))
        self.scales = frozen(torch.stack([1 + scale for scale, _ in modulations], dim=1).to(dtype))
        self.shifts = frozen(torch.stack([shift for _, shift in modulations], dim=1).to(dtype))

    # ---- once a chunk ----------------------------------------------------------------------------

    def look(self, context: Context) -> list[KeysValues | None]:
        """Keys and values for each block; None for those that look at their own tokens."""
        text = iter(self.text_context(self.vlln(context.text)))
        image = iter(() if context.image is None else self.image_context(self.vlln(context.image)))
        return [
            None if own else next(text if sees_text else image)
            for own, sees_text in zip(self.own, self.sees_text, strict=True)
        ]

    def encode_state(self, state: Tensor) -> Tensor:
        """[B, T, max_state_dim] to state tokens [B, T, width]."""
        return self.state2(F.relu(self.state1(state)))

    # ---- once a step -----------------------------------------------------------------------------

    def velocity(
        self,
        actions: Tensor,
        step: int,
        state_tokens: Tensor,
        looked: list[KeysValues | None],
        masks: list[Tensor | None],
    ) -> Tensor:
        """The predicted velocity [B, H, max_action_dim] at actions of that shape, in the layers' type."""
        tokens = self.encode2(F.silu(self.encode1(actions) + self.encode1_bias[step]))
        horizon = actions.shape[1]
        if self.positions is not None:
            tokens = tokens + self.positions[:horizon]
        x = torch.cat((state_tokens, tokens), dim=1)
        for index, block in enumerate(self.blocks):
            x = block(x, self.scales[step, index], self.shifts[step, index], looked[index], masks[index])
        x = F.layer_norm(
            x[:, -horizon:], x.shape[-1:], self.scales[step, -1], self.shifts[step, -1], OUTPUT_EPS
        )
        return self.decode2(F.relu(self.decode1(x)))

    def forward(
        self,
        context: Context,
        state: Tensor,
        noise: Tensor,
        prefix: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        """A chunk [B, H, max_action_dim] from `noise` of that shape, summed in the type of `noise`.

        prefix [B, H, max_action_dim] and weight [num_steps, H] guide it along a committed plan
        (`engine.Guidance`), and both are None where there is none.
        """
        state_tokens = self.encode_state(state)
        looked = self.look(context)
        per_source = {
            True: _additive(context.text_mask, state.dtype),
            False: _additive(context.image_mask, state.dtype),
        }
        masks = [
            None if own else per_source[text] for own, text in zip(self.own, self.sees_text, strict=True)
        ]
        actions = noise
        for step in range(self.num_steps):
            velocity = self.velocity(actions.to(state.dtype), step, state_tokens, looked, masks)
            actions = torch.add(actions, velocity.to(noise.dtype), alpha=1 / self.num_steps)
            if prefix is not None and weight is not None:
                time = (step + 1) / self.num_steps
                share = weight[step, :, None]
                actions = share * actions + (1 - share) * ((1 - time) * noise + time * prefix)
        return actions


def wide(tensor: Tensor) -> Tensor:
    """float32, or float64 where it is that already."""
    return tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32))


def apply_wide(layer: nn.Linear, x: Tensor) -> Tensor:
    """A linear layer computed in at least float32, whatever its type."""
    return F.linear(x, wide(layer.weight), wide(layer.bias))


def _additive(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """bool [B, n] to what is added to the scores [B, 1, 1, n]: once a chunk, where attention would do it in
    every block and step. A mask that is no bool is that already."""
    if mask is None:
        return None
    if mask.dtype != torch.bool:
        return mask[:, None, None]
    return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, float("-inf"))[:, None, None]
