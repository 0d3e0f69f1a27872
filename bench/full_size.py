# SPDX-License-Identifier: Apache-2.0
"""What the full-size network costs here: writing, loading and one inference, in time and peak memory.

    python bench/full_size.py FOLDER [--preset released] [--dtype bfloat16] [--keep] [--json FILE]

Writes a random checkpoint of the preset into FOLDER (6.6 GB for `released`), loads it, and computes one
chunk from two 252 x 252 images and a 203-token prompt. Each step runs in a process of its own, so that its
peak memory is its own. The checkpoint is removed afterwards unless --keep is given; one that is already
there is used as it is.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from gr00t_model.checkpoint import load_model, write_random_checkpoint
from gr00t_model.config import Gr00tN1d6Config
from gr00t_model.network import Gr00tN1d6

IMAGE_TOKENS = 81
"""Of one 252 x 252 image."""
TOKENS = 203
"""A prompt with two such images."""


def peak_gb() -> float:
    """The most memory this process has held so far (Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def inputs(config: Gr00tN1d6Config) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 1000, (1, TOKENS), generator=generator)
    for start in (20, 20 + IMAGE_TOKENS + 8):
        ids[:, start : start + IMAGE_TOKENS] = config.image_token_id
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": [torch.rand(1, 3, 252, 252, generator=generator) * 2 - 1 for _ in range(2)],
        "state": torch.randn(1, 1, config.max_state_dim, generator=generator),
        "embodiment_id": torch.tensor([10]),
    }


def run_step(step: str, folder: Path, preset: str, dtype: torch.dtype, repeats: int) -> dict[str, Any]:
    """One step, measured from the inside; libraries are already imported when the clock starts."""
    imported = peak_gb()
    start = time.perf_counter()
    result: dict[str, Any] = {"step": step, "imports_gb": imported}
    if step == "write":
        write_random_checkpoint(getattr(Gr00tN1d6Config, preset)(), folder, dtype=dtype)
        result["seconds"] = time.perf_counter() - start
    else:
        model = load_model(folder)
        result["seconds"] = time.perf_counter() - start
        if step == "infer":
            result |= infer(model, repeats)
    return {**result, "peak_gb": peak_gb()}


def infer(model: Gr00tN1d6, repeats: int) -> dict[str, Any]:
    batch = inputs(model.config)
    noise = torch.randn(1, model.config.action_horizon, model.config.max_action_dim)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        actions = model.get_action(batch, noise)["action_pred"]
        times.append(time.perf_counter() - start)
    return {
        "seconds": min(times),
        "actions_finite": bool(actions.isfinite().all()),
        "actions_std": float(actions.std()),
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--preset", default="released", choices=["released", "seed", "small", "tiny"])
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--repeats", type=int, default=1, help="inferences, of which the fastest counts")
    parser.add_argument(
        "--threads", type=int, default=None, help="torch threads; default: torch's own choice"
    )
    parser.add_argument("--keep", action="store_true", help="leave the checkpoint in FOLDER")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--step", choices=["write", "load", "infer"], help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    if arguments.step:
        dtype = getattr(torch, arguments.dtype)
        result = run_step(arguments.step, arguments.folder, arguments.preset, dtype, arguments.repeats)
        print(json.dumps(result))
        return 0

    there = (arguments.folder / "config.json").exists()
    results = []
    try:
        for step in ("load", "infer") if there else ("write", "load", "infer"):
            command = [sys.executable, __file__, *(sys.argv[1:] if argv is None else argv), "--step", step]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            results.append(json.loads(done.stdout.splitlines()[-1]))
        weights = sum(path.stat().st_size for path in arguments.folder.glob("*.safetensors")) / 1e9
    finally:
        if not there and not arguments.keep:
            shutil.rmtree(arguments.folder, ignore_errors=True)

    machine = {
        "cpu": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "preset": arguments.preset,
        "dtype": arguments.dtype,
        "weights_gb": weights,
    }
    print(f"{arguments.preset}, {arguments.dtype}, {weights:.2f} GB, {machine['threads']} threads")
    print(f"{'step':8}{'seconds':>10}{'peak GB':>10}{'peak / weights':>17}")
    for result in results:
        ratio = (result["peak_gb"] - result["imports_gb"]) / weights
        print(f"{result['step']:8}{result['seconds']:10.2f}{result['peak_gb']:10.2f}{ratio:17.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine, "results": results}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
