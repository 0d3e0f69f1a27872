# SPDX-License-Identifier: Apache-2.0
"""Everything between an observation and the network's tensors, and between its output and physical actions.

Imports nothing of the network. The entry point is :class:`Gr00tProcessor`; the other names are what a new
robot is described with.
"""

from gr00t_model.pixels import pixels_to_float
from gr00t_model.processing.embodiments import EMBODIMENT_IDS
from gr00t_model.processing.modality import ActionConfig, ModalityConfig
from gr00t_model.processing.options import ProcessorOptions
from gr00t_model.processing.processor import Gr00tProcessor
from gr00t_model.processing.prompt import formalize_language
from gr00t_model.processing.statistics import KeyStatistics

__all__ = [
    "EMBODIMENT_IDS",
    "ActionConfig",
    "Gr00tProcessor",
    "KeyStatistics",
    "ModalityConfig",
    "ProcessorOptions",
    "formalize_language",
    "pixels_to_float",
]
