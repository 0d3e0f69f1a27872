# SPDX-License-Identifier: Apache-2.0
"""Running the network for one job, a chunk now: which engine, on which device, in which precision."""

from gr00t_model.inference.backend import BackendChoice
from gr00t_model.inference.engine import Engine, Guidance
from gr00t_model.inference.opening import Opened, Request, open_engine
from gr00t_model.inference.pytorch import PyTorchEngine

__all__ = ["BackendChoice", "Engine", "Guidance", "Opened", "PyTorchEngine", "Request", "open_engine"]
