# SPDX-License-Identifier: Apache-2.0
"""Between vision and language: four neighbouring patches become one token, projected to the language
model's width."""

from torch import Tensor, nn
from torch.nn import functional as F

from gr00t_model.sizes import UNSHUFFLE


def unshuffle(feature_map: Tensor) -> Tensor:
    """[h, w, C] to [(h/2)*(w/2), 4*C], tokens in raster order.

    Output feature c*4 + dy*2 + dx: channel-major, as torch.pixel_unshuffle has it and unlike other Eagle
    models.
    """
    channels_first = feature_map.permute(2, 0, 1)
    return F.pixel_unshuffle(channels_first, UNSHUFFLE).flatten(1).transpose(0, 1)


def projector(vision_width: int, language_width: int) -> nn.Sequential:
    """`mlp1`: [..., 4*vision_width] to [..., language_width]. GELU is the exact (erf) one."""
    merged = vision_width * UNSHUFFLE**2
    return nn.Sequential(
        nn.LayerNorm(merged),
        nn.Linear(merged, language_width),
        nn.GELU(),
        nn.Linear(language_width, language_width),
    )
