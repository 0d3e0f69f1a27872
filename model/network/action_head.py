# SPDX-License-Identifier: Apache-2.0
"""The flow-matching action head: backbone features and robot state to a chunk of actions.

Training learns the velocity from noise to actions; inference follows it from noise in a few Euler steps.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from gr00t_model.config import Gr00tN1d6Config
from gr00t_model.network.dit import AlternateVLDiT, DiT
from gr00t_model.network.eagle import Features, repeat
from gr00t_model.network.embodiment import INITIAL_SCALE, ActionEncoder, EmbodimentMLP

# Keeps the loss finite when a batch's mask is all zero.
MASK_EPS = 1e-6


class ActionHead(nn.Module):
    """State encoder, action encoder, diffusion transformer and action decoder."""

    def __init__(self, config: Gr00tN1d6Config) -> None:
        super().__init__()
        self.config = config
        robots, width = config.max_num_embodiments, config.input_embedding_dim
        self.model = self._transformer(config)
        self.state_encoder = EmbodimentMLP(robots, config.max_state_dim, config.hidden_size, width)
        self.action_encoder = ActionEncoder(robots, config.max_action_dim, width)
        self.action_decoder = EmbodimentMLP(
            robots, config.hidden_size, config.hidden_size, config.max_action_dim
        )
        self.vlln = nn.LayerNorm(config.backbone_embedding_dim) if config.use_vlln else nn.Identity()
        if config.add_pos_embed:
            self.position_embedding = nn.Embedding(config.max_seq_len, width)
        if config.state_dropout_prob > 0:
            self.mask_token = nn.Parameter(INITIAL_SCALE * torch.randn(1, 1, width))

    @staticmethod
    def _transformer(config: Gr00tN1d6Config) -> DiT:
        if config.use_alternate_vl_dit:
            return AlternateVLDiT(
                config.dit, config.backbone_embedding_dim, config.attend_text_every_n_blocks
            )
        return DiT(config.dit, config.backbone_embedding_dim)

    # ---- what training and inference share -------------------------------------------------------

    def context(self, features: Features) -> Features:
        """The features as the transformer sees them: normed."""
        return replace(features, values=self.vlln(features.values))

    def encode_state(self, state: Tensor, embodiment_id: Tensor) -> Tensor:
        """state [B, T, max_state_dim] to T state tokens [B, T, width]."""
        return self.state_encoder(state, embodiment_id)

    def velocity(
        self, noisy: Tensor, bucket: Tensor, state_tokens: Tensor, context: Features, embodiment_id: Tensor
    ) -> Tensor:
        """The predicted velocity [B, H, max_action_dim] at `noisy` [B, H, max_action_dim] and time bucket
        int64 [B]."""
        action_tokens = self.action_encoder(noisy, bucket, embodiment_id)
        horizon = noisy.shape[1]
        if self.config.add_pos_embed:
            action_tokens = action_tokens + self.position_embedding.weight[:horizon]
        tokens = torch.cat((state_tokens, action_tokens), dim=1)
        return self.action_decoder(self.model(tokens, context, bucket), embodiment_id)[:, -horizon:]

    # ---- training --------------------------------------------------------------------------------

    def sample_time(self, batch: int, device: torch.device) -> Tensor:
        """float32 [batch] in [0, noise_s]: (1 - Beta(alpha, beta)) * noise_s, denser near pure noise (0)."""
        config = self.config
        beta = torch.distributions.Beta(
            torch.tensor(float(config.noise_beta_alpha), device=device),
            torch.tensor(float(config.noise_beta_beta), device=device),
        )
        return (1 - beta.sample((batch,))) * config.noise_s

    def disturb_state(self, state_tokens: Tensor) -> Tensor:
        """State dropout and state noise, the reference's two regularisers.

        Dropout is drawn per sample and also in eval mode, for it belongs to the loss; noise only while
        training.
        """
        if self.config.state_dropout_prob > 0:
            dropped = (
                torch.rand(len(state_tokens), device=state_tokens.device) < self.config.state_dropout_prob
            )
            state_tokens = torch.where(
                dropped[:, None, None], self.mask_token.to(state_tokens.dtype), state_tokens
            )
        if self.training and self.config.state_additive_noise_scale > 0:
            noise = torch.randn_like(state_tokens)
            state_tokens = state_tokens + self.config.state_additive_noise_scale * noise
        return state_tokens

    def loss(
        self,
        features: Features,
        state: Tensor,
        embodiment_id: Tensor,
        action: Tensor,
        action_mask: Tensor,
        noise: Tensor | None = None,
        time: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The flow-matching loss.

        action and action_mask [B, H, max_action_dim] (mask 1 on real steps and dimensions), noise like
        action (normal when None), time float [B] in [0, 1) (0 is pure noise; drawn when None). Noise and time
        may hold N * B rows instead, N draws of the whole batch one after the other: the loss is then that of
        all of them, for one pass through the backbone.

        Returns: "loss" (mean squared velocity error over the mask), "action_loss" [N * B, H, max_action_dim]
        (its masked elements), "action_mask" like it.
        """
        noise = torch.randn_like(action) if noise is None else noise.to(action)
        draws = len(noise) // len(action)
        features = features.repeated(draws)
        state, embodiment_id, action, action_mask = (
            repeat(value, draws) for value in (state, embodiment_id, action, action_mask)
        )
        time = self.sample_time(len(action), action.device) if time is None else time.to(action.device)
        t = time.to(action.dtype)[:, None, None]
        bucket = (time * self.config.num_timestep_buckets).long()

        state_tokens = self.disturb_state(self.encode_state(state, embodiment_id))
        noisy = (1 - t) * noise + t * action
        predicted = self.velocity(noisy, bucket, state_tokens, self.context(features), embodiment_id)
        action_loss = (predicted - (action - noise)).square() * action_mask
        loss = action_loss.sum() / (action_mask.sum() + MASK_EPS)
        return {"loss": loss, "action_loss": action_loss, "action_mask": action_mask}

    # ---- inference -------------------------------------------------------------------------------

    def denoise(
        self, features: Features, state: Tensor, embodiment_id: Tensor, noise: Tensor, num_steps: int
    ) -> Tensor:
        """Euler integration from `noise` [B, H, max_action_dim] to actions, summed in the type of `noise`.

        The network's own type is that of `state`. (The reference sums in that type too; in bfloat16 that
        rounds the actions once a step for nothing.)
        """
        state_tokens = self.encode_state(state, embodiment_id)
        context = self.context(features)
        actions = noise
        for step in range(num_steps):
            bucket = int(step / num_steps * self.config.num_timestep_buckets)
            buckets = torch.full((len(actions),), bucket, dtype=torch.long, device=actions.device)
            velocity = self.velocity(actions.to(state.dtype), buckets, state_tokens, context, embodiment_id)
            actions = actions + velocity.to(actions.dtype) / num_steps
        return actions
