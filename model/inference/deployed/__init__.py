# SPDX-License-Identifier: Apache-2.0
"""The network laid out for speed: same weights, same numbers, nothing computed twice."""

from gr00t_model.inference.deployed.form import Deployed, deploy
from gr00t_model.inference.deployed.head import Context, Head

__all__ = ["Context", "Deployed", "Head", "deploy"]
