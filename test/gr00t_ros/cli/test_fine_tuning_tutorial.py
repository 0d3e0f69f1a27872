# SPDX-License-Identifier: Apache-2.0
"""From recorded episodes to a policy that moves the arm: every command of the tutorial, at a small scale.

Real processes from the simulator to the policy node; what each step leaves is what the next one reads.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gr00t_ros.data.lerobot import LeRobotDataset
from gr00t_ros.sim.demonstrations import INSTRUCTION
from support_processes import REPO, claim_domain, ros_environment

pytestmark = [
    pytest.mark.ros,
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("mujoco") is None or importlib.util.find_spec("honcho") is None,
        reason="needs the extra 'demo' (mujoco, honcho)",
    ),
]

TUTORIAL = REPO / "docs" / "tutorials" / "fine_tuning.md"
# Episode 2 starts with the wrist where it ends; together with 7 every joint moves in what is evaluated.
EPISODES, HELD_OUT, STEPS = 10, (2, 7), 250
# What makes the tutorial's commands small; each must be there to be changed.
SMALL = {
    "--episodes 40": f"--episodes {EPISODES}",
    "--steps 1000": f"--steps {STEPS} --log-every 5",
    "--eval-episodes 4": f"--eval-episodes {len(HELD_OUT)}",
    "--episodes 5,15,25,35": f"--episodes {','.join(map(str, HELD_OUT))}",
    "--output parked": "--output parked --duration 8",
}


def commands() -> dict[str, str]:
    """The tutorial's commands of this package by name, made small; ``name`` twice becomes ``name 2``."""
    text = TUTORIAL.read_text(encoding="utf-8")
    for long, short in SMALL.items():
        assert long in text, f"{TUTORIAL.name} has no {long!r} any more"
        text = text.replace(long, short)
    found: dict[str, str] = {}
    for line in re.findall(r"^ {4}\.venv/bin/(.+)$", text, re.MULTILINE):
        name = line.split()[0]
        found[f"{name} 2" if name in found else name] = line
    return found


def run(folder: Path, line: str, domain: int) -> str:
    """Runs a command in ``folder`` as a shell would; its output, once it ended well."""
    name, *arguments = shlex.split(line)
    place = "nodes" if (REPO / "gr00t_ros" / "nodes" / f"{name}.py").is_file() else "cli"
    expanded = [path for a in arguments for path in (sorted(map(str, folder.glob(a))) if "*" in a else [a])]
    done = subprocess.run(
        [sys.executable, "-m", f"gr00t_ros.{place}.{name}", *expanded],
        cwd=folder,
        env={**os.environ, **ros_environment(domain), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, f"{line}: exit code {done.returncode}\n{done.stdout[-6000:]}"
    return done.stdout


def test_from_the_simulated_arm_to_a_policy_that_parks_it(tmp_path: Path) -> None:
    lines = commands()
    assert list(lines) == ["demonstrate", "bag_to_dataset", "evaluate", "finetune", "evaluate 2", "demo"]
    domain, lock = claim_domain()
    with lock:
        run(tmp_path, lines["demonstrate"], domain)
        episodes = sorted((tmp_path / "episodes").iterdir())
        assert [path.name for path in episodes] == [f"episode_{i:06}" for i in range(EPISODES)]

        run(tmp_path, lines["bag_to_dataset"], domain)
        dataset = LeRobotDataset(tmp_path / "park")
        assert len(dataset) == EPISODES
        assert all(set(dataset.episode(i).instructions) == {INSTRUCTION} for i in dataset.episodes)

        said = run(tmp_path, lines["evaluate"], domain)
        assert f"{EPISODES} with" in said

        said = run(tmp_path, lines["finetune"], domain)
        # What the tutorial evaluates on is what was held out.
        assert lines["evaluate 2"].split("--episodes ")[1].split()[0] in said.splitlines()[-1]
        state = max((tmp_path / "parking").glob("checkpoint-*/trainer_state.json"), key=os.path.getmtime)
        losses = [entry["loss"] for entry in json.loads(state.read_text())["log_history"] if "loss" in entry]
        assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5]), losses

        run(tmp_path, lines["evaluate 2"], domain)  # exits with 3 when it is not better than holding still
        measured = json.loads((tmp_path / "parking.json").read_text())
        assert measured["episodes"] == list(HELD_OUT)
        assert (tmp_path / "parking.png").stat().st_size > 10_000

        said = run(tmp_path, lines["demo"], domain)
        assert "OK: the whole chain ran and every limit was kept" in said
        assert (tmp_path / "parked" / "demo.png").is_file()
