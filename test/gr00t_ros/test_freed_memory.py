# SPDX-License-Identifier: Apache-2.0
"""Memory that comes and goes is asked of the system once."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from support_robots import REPOSITORY

PROGRAM = """
import resource, sys
from gr00t_ros.freed_memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
frame = bytes(4_000_000)
kept = []
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for number in range(100):
    kept = [*kept[-2:], frame + b"."]
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries do otherwise")
def test_pages_are_asked_for_once() -> None:
    environment = os.environ | {"PYTHONPATH": f"{REPOSITORY}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    faults = {
        what: int(subprocess.check_output([sys.executable, "-c", PROGRAM, what], env=environment, text=True))
        for what in ("keep", "leave")
    }
    # 100 times 4 MB are 97,700 pages of 4 KiB; those of three areas, and one more, are 4,000.
    assert faults["keep"] < 10_000, faults
