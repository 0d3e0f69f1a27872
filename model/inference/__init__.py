# SPDX-License-Identifier: Apache-2.0
"""Running the network for one job, a chunk now: which engine, on which device, in which precision."""

from gr00t_model.inference.backend import BackendChoice, choose_backend
from gr00t_model.inference.pytorch import PyTorchEngine

__all__ = ["BackendChoice", "PyTorchEngine", "choose_backend"]
