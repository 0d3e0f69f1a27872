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
import resource, sys, threading
from gr00t_ros.freed_memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
frame = bytes(900_000)

def work():
    for _ in range(100):
        chunk = [frame + b"." for _ in range(4)]
        del chunk

before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
thread = threading.Thread(target=work)
thread.start()
thread.join()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries do otherwise")
def test_pages_are_asked_for_once() -> None:
    environment = os.environ | {"PYTHONPATH": f"{REPOSITORY}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    faults = {
        what: int(subprocess.check_output([sys.executable, "-c", PROGRAM, what], env=environment, text=True))
        for what in ("keep", "leave")
    }
    # 4 frames are 880 pages of 4 KiB; asked for 100 times, 88,000.
    assert faults["keep"] < 5_000, faults
    assert faults["leave"] > 2 * faults["keep"], "glibc does so by itself now: freed_memory.py can go"
