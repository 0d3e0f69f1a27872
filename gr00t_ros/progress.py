# SPDX-License-Identifier: Apache-2.0
"""What the policy is doing, for everyone who asks: status, diagnostics, tasks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import IntEnum


class State(IntEnum):
    """The numbers are those of ``PolicyStatus``."""

    INACTIVE = 0
    WAITING = 1
    RUNNING = 2
    FAULT = 3
    IDLE = 4


@dataclass
class Progress:
    """What the planner has done in this session. Written by its thread, read by anyone.

    Times in seconds: ``waiting_s`` from the arrival of the newest frame to the assembled observation,
    ``total_s`` from there to the published chunk, ``observation_age_s`` from the frame's stamp to that.
    ``busy_since_s`` is the monotonic time at which the inference under way began, None between two.
    """

    state: State = State.WAITING
    reason: str = "activated"
    chunks: int = 0
    faults: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    observation_age_s: float = 0.0
    waiting_s: float = 0.0
    processing_s: float = 0.0
    inference_s: float = 0.0
    decoding_s: float = 0.0
    total_s: float = 0.0
    busy_since_s: float | None = None
