# SPDX-License-Identifier: Apache-2.0
"""The least time one chunk can take on a device, and the memory it takes: calculated, not measured.

    python bench/roofline.py [--preset released] [--cameras 2] [--json FILE]
    python bench/roofline.py --write docs/reference/roofline.md

Counts the bytes of weights and the operations of one chunk (`model/inference/budget.py`) and divides them by
what the device's maker states (`model/inference/devices.py`). `--write` renews the tables in that page,
between its `calculated` marks.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from gr00t_model.config import Gr00tN1d6Config
from gr00t_model.inference import budget
from gr00t_model.inference.budget import Workload
from gr00t_model.inference.devices import DEVICES, GIGA, Device

PRECISIONS = ("bfloat16", "int8", "fp8", "nvfp4")
BOARDS_GB = (16, 32, 64)
MARK = re.compile(r"(<!-- calculated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def floors(config: Gr00tN1d6Config, work: Workload, device: Device) -> dict[str, float]:
    """Milliseconds of "network" (bfloat16) and of each precision that the device has."""
    found = {}
    for label, precision, form in (
        ("network", "bfloat16", "network"),
        *((precision, precision, "deployed") for precision in PRECISIONS),
    ):
        if precision in device.peak:
            found[label] = budget.floor_ms(config, work, device.bandwidth, device.peak, precision, form)
    return found


def memory(config: Gr00tN1d6Config, work: Workload, precision: str) -> dict[str, float]:
    """What the deployed form holds, and the bound while an engine is built, in bytes."""
    held = budget.held_bytes(config, work, precision)
    return {**held, "held": sum(held.values()), "build": 2 * checkpoint_bytes(config)}


def checkpoint_bytes(config: Gr00tN1d6Config) -> int:
    """Of the published form: every tensor in bfloat16."""
    from gr00t_model.network import Gr00tN1d6

    shapes = Gr00tN1d6.on_meta(config).state_dict().values()
    return 2 * sum(tensor.numel() for tensor in shapes)


# ---- tables --------------------------------------------------------------------------------------------


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def counted_table(config: Gr00tN1d6Config, work: Workload) -> str:
    columns: dict[str, dict[str, float]] = {"network GB": budget.weight_bytes(config, work, form="network")}
    for precision in ("bfloat16", "fp8", "nvfp4"):
        columns[f"deployed {precision} GB"] = budget.weight_bytes(config, work, precision)
    columns["network GFLOP"] = budget.flops(config, work, "network")
    columns["deployed GFLOP"] = budget.flops(config, work)
    rows = [
        [stage, *(_count(name, column[stage]) for name, column in columns.items())]
        for stage in columns["network GB"]
    ]
    total = ["**all**", *(_count(name, sum(column.values())) for name, column in columns.items())]
    return table(["a chunk", *columns], [*rows, total])


def _count(name: str, value: float) -> str:
    return f"{value / 1e9:.3f}" if name.endswith("GB") else f"{value / 1e9:.1f}"


def floors_table(config: Gr00tN1d6Config, works: Sequence[Workload]) -> str:
    head = ["device", "GB/s", "BF16 TFLOP/s"]
    for work in works:
        cameras = f"{len(work.image_sizes)} camera" + ("s" if len(work.image_sizes) > 1 else "")
        head += [f"{cameras}: {label}" for label in ("network", *PRECISIONS)]
    rows = []
    for device in DEVICES:
        row = [device.name, f"{device.bandwidth / GIGA:g}", f"{device.peak['bfloat16'] / 1e12:.1f}"]
        for work in works:
            found = floors(config, work, device)
            row += [f"{found[k]:.1f}" if k in found else "–" for k in ("network", *PRECISIONS)]
        rows.append(row)
    return table(head, rows)


def stages_table(config: Gr00tN1d6Config, work: Workload, names: Sequence[tuple[str, str]]) -> str:
    """Where the floor lies: milliseconds and what bounds each stage, for (device, precision) pairs."""
    devices = {device.name: device for device in DEVICES}
    columns = {}
    for name, precision in names:
        device = devices[name]
        both = budget.stage_ms(config, work, device.bandwidth, device.peak, precision)
        traffic = budget.stage_ms(config, work, device.bandwidth, None, precision)
        columns[f"{name}, {precision}"] = {
            stage: f"{both[stage]:.2f} {'memory' if both[stage] == traffic[stage] else 'arithmetic'}"
            for stage in both
        }
    stages = next(iter(columns.values()))
    return table(
        ["ms", *columns], [[stage, *(column[stage] for column in columns.values())] for stage in stages]
    )


def memory_table(config: Gr00tN1d6Config, work: Workload) -> str:
    head = ["GB", "weights", "table of words", "activations", "held", "while building, at most"]
    head += [f"left of {board}" for board in BOARDS_GB]
    rows = []
    for precision in PRECISIONS:
        found = memory(config, work, precision)
        parts = [found[key] for key in ("weights", "embeddings", "activations", "held", "build")]
        left = [board * GIGA - found["held"] for board in BOARDS_GB]
        rows.append(
            [precision, *(f"{value / GIGA:.2f}" for value in parts), *(f"{v / GIGA:.1f}" for v in left)]
        )
    return table(head, rows)


def tables(config: Gr00tN1d6Config, cameras: int = 2) -> dict[str, str]:
    """The tables of the page, by their marks' names."""
    work = Workload.typical(config, cameras)
    one = Workload.typical(config, 1)
    where = [("Jetson Thor T5000", "bfloat16"), ("Jetson Thor T5000", "fp8"), ("Jetson Thor T5000", "nvfp4")]
    where += [("Jetson AGX Orin 64", "bfloat16"), ("Jetson AGX Orin 64", "int8")]
    return {
        "counted": counted_table(config, work),
        "floors": floors_table(config, [one, work] if cameras != 1 else [one]),
        "stages": stages_table(config, work, where),
        "memory": memory_table(config, work),
    }


def renewed(page: str, found: dict[str, str]) -> str:
    """The page with its tables replaced."""
    return MARK.sub(lambda match: match[1] + found[match[2]] + match[3], page)


def as_json(config: Gr00tN1d6Config, cameras: int) -> dict[str, Any]:
    work = Workload.typical(config, cameras)
    return {
        "calculated": True,
        "workload": {"images": work.image_sizes, "text_tokens": work.text_tokens, "horizon": work.horizon}
        | {"num_steps": work.num_steps},
        "weight_bytes": {p: budget.weight_bytes(config, work, p) for p in PRECISIONS},
        "flops": budget.flops(config, work),
        "floor_ms": {device.name: floors(config, work, device) for device in DEVICES},
        "memory_bytes": {p: memory(config, work, p) for p in PRECISIONS},
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="released", choices=["released", "seed", "small", "tiny"])
    parser.add_argument("--cameras", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="renew the tables of this page")
    arguments = parser.parse_args(argv)
    config = getattr(Gr00tN1d6Config, arguments.preset)()
    found = tables(config, arguments.cameras)
    if arguments.write:
        page = arguments.write.read_text()
        arguments.write.write_text(renewed(page, found))
    else:
        print("Calculated, not measured.\n\n" + "\n".join(found.values()), end="")
    if arguments.json:
        content = as_json(config, arguments.cameras)
        arguments.json.write_text(json.dumps(content, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
