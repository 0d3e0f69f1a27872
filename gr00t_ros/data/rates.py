# SPDX-License-Identifier: Apache-2.0
"""Rates that should be the same, and how far apart they may be: for all that compares them.

So what the report of a dataset calls a FAIL is what training refuses, and nothing else.
"""

from __future__ import annotations

from gr00t_ros.data.video import VideoFacts

# Relative. A rate that two people wrote down as a decimal number is one number.
WRITTEN = 1e-3
# Measured ones: timestamps in float32 and the clocks of different machines stay within it.
MEASURED = 0.01
# The usual mistakes (25 or 24 for 30, 15 for 30) are beyond it.
MISTAKEN = 0.1


def differ(rate: float, expected: float, tolerance: float) -> bool:
    """Whether a rate is farther from the expected one than by this share of it."""
    return abs(rate / expected - 1.0) > tolerance


def ends_before(video: VideoFacts, row_s: float, fps: float) -> bool:
    """Whether a video has no frame for a row at ``row_s`` seconds of it. Its last frame begins one period
    before its end; a length that it does not say cannot be too short."""
    return bool(video.seconds) and video.seconds < row_s - 0.5 / fps
