# SPDX-License-Identifier: Apache-2.0
"""The demo command around its programs: whatever becomes of it, they end with it."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support_checkpoints import tiny_checkpoint
from support_processes import ros_environment

pytestmark = [
    pytest.mark.ros,
    pytest.mark.skipif(
        importlib.util.find_spec("mujoco") is None or importlib.util.find_spec("honcho") is None,
        reason="needs the extra 'demo' (mujoco, honcho)",
    ),
]


def belonging(folder: Path) -> list[int]:
    """The processes whose environment names ``folder``."""
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"DEMO_OF={folder}\0".encode() in environment.read_bytes():
                found.append(int(environment.parent.name))
        except OSError:
            continue  # it has just ended
    return found


def test_when_nobody_reads_on_all_programs_end(domain: int, tmp_path: Path) -> None:
    """As with ``demo | head -1``."""
    arguments = ["--duration", "0", "--output", str(tmp_path), "--checkpoint", str(tiny_checkpoint())]
    demo = subprocess.Popen(
        [sys.executable, "-m", "gr00t_ros.cli.demo", *arguments],
        env={
            **os.environ,
            **ros_environment(domain),
            "PYTHONPATH": os.pathsep.join(sys.path),
            "DEMO_OF": str(tmp_path),
        },
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert demo.stdout is not None
        assert "started" in demo.stdout.readline()
        demo.stdout.close()
        demo.wait(60.0)
        end = time.monotonic() + 30.0
        while belonging(tmp_path) and time.monotonic() < end:
            time.sleep(0.1)
        assert belonging(tmp_path) == []
    finally:
        for pid in belonging(tmp_path):
            os.kill(pid, signal.SIGKILL)
