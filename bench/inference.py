# SPDX-License-Identifier: Apache-2.0
"""What a chunk takes: the readable network, its deployed form and TensorRT, compared on the same inputs.

    python bench/inference.py [--preset full] [--modes network deployed] [--json FILE] [--all]

Needs this repository, PyTorch, transformers, diffusers, safetensors and NumPy; no network, no checkpoint and
no installation. The modes take turns in one process, so that whatever else the machine does meets all of
them. A mode that fails is reported with its error, and the others go on. Progress is on stderr; Ctrl-C
prints what there is by then. It ends after about --seconds: a mode that is not ready by then is given up,
and a configuration that has not begun is skipped.

Modes: `network` (readable form, eager), `network-compiled` (torch.compile of its backbone and velocity),
`deployed` (the engine as the policy uses it), and on CUDA `deployed-eager` (neither graph nor compiled
layers), `deployed-graph` (CUDA graph), `deployed-compiled` (CUDA graph of compiled layers), `tensorrt`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
ALL_MODES = ("network", "network-compiled", "deployed", "deployed-eager", "deployed-graph")
ALL_MODES += ("deployed-compiled", "tensorrt")


def make_importable() -> None:
    """`gr00t_model` from this repository, installed or not."""
    if "gr00t_model" in sys.modules:
        return
    where = ROOT / "model"
    spec = importlib.util.spec_from_file_location(
        "gr00t_model", where / "__init__.py", submodule_search_locations=[str(where)]
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules["gr00t_model"] = package
    spec.loader.exec_module(package)


make_importable()
if str(Path(__file__).parent) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parent))
import inference_machine as machine  # noqa: E402
import inference_modes as modes  # noqa: E402
from inference_measure import Bench, Configuration  # noqa: E402


class Run:
    """All configurations that were asked for, the main one first, and what is known of them so far."""

    def __init__(self, arguments: argparse.Namespace, device: torch.device) -> None:
        self.arguments, self.device = arguments, device
        self.clock = machine.Clock(arguments.seconds)
        self.benches: list[Bench] = []
        self.notes: list[str] = []
        self.interrupted = False
        self.rate = (0.0, "")

    def configurations(self) -> list[Configuration]:
        a = self.arguments
        presets = sorted(a.preset, key=list(modes.PRESETS).index, reverse=True)
        return [
            Configuration(preset, dtype, cameras, horizon)
            for preset, dtype, cameras, horizon in product(presets, a.dtype, a.cameras, a.horizon)
        ]

    def measure(self) -> None:
        self.rate = machine.bandwidth(self.device)
        processing = {n: machine.processing_ms(n, self.clock) for n in dict.fromkeys(self.arguments.cameras)}
        maker, made_for = None, None
        for number, configuration in enumerate(self.configurations()):
            if number and self.clock.left <= 0:
                self.note(f"{configuration}: skipped, out of time; give more --seconds")
                continue
            if made_for != (configuration.preset, configuration.dtype):
                maker = None  # frees the network before
                made_for = configuration.preset, configuration.dtype
                maker = self._maker(configuration)
            _forget_compiled()
            bench = Bench(configuration, maker, self.device, self.clock, self.arguments.repeats)
            bench.rate, bench.processing = self.rate, processing[configuration.cameras]
            bench.last = number == len(self.configurations()) - 1
            self.benches.append(bench)
            bench.run(self._modes(number), self.write)

    def _maker(self, configuration: Configuration) -> modes.Modes:
        self.clock.say(f"{configuration.preset}, {configuration.dtype}: weights")
        dtype, a = getattr(torch, configuration.dtype), self.arguments
        if a.checkpoint:
            network = modes.stored_network(a.checkpoint, dtype, self.device)
        else:
            network = modes.random_network(configuration.preset, dtype, self.device)
        return modes.Modes(network, a.network_compile, a.engine, a.checkpoint)

    def _modes(self, number: int) -> list[str]:
        """Only the main configuration is worth minutes of compiling, unless all is asked for."""
        a = self.arguments
        if a.modes:
            return list(a.modes)
        chosen = ["network"]
        if self.device.type == "cuda":
            compiling = a.all or number == 0
            chosen += ["network-compiled", "deployed"] if compiling else []
            chosen += ["deployed-eager", "deployed-graph"]
            chosen += ["deployed-compiled"] if compiling else []
        else:
            chosen += ["network-compiled"] if a.all else []
            chosen += ["deployed"]
            chosen += ["deployed-compiled"] if a.all else []
        return chosen + (["tensorrt"] if a.engine else [])

    def note(self, text: str) -> None:
        self.notes.append(text)
        self.clock.say(text)

    # ---- results -------------------------------------------------------------------------------------

    def result(self) -> dict[str, Any]:
        results = [
            {
                "configuration": asdict(bench.configuration),
                "floor_ms": bench.floor_ms(),
                "processing_ms": bench.processing,
                "notes": bench.notes,
                "modes": bench.entries(),
            }
            for bench in self.benches
        ]
        first = results[0] if results else {"modes": [], "floor_ms": None, "notes": []}
        return {
            **first,
            "others": results[1:],
            "bandwidth": {"bytes_per_second": self.rate[0], "source": self.rate[1]},
            "device": machine.describe(self.device),
            "versions": machine.versions(),
            "platform": platform.platform(),
            "command": shlex.join(["python", *sys.argv]),
            "weights": str(self.arguments.checkpoint) if self.arguments.checkpoint else "random",
            "network_compile": self.arguments.network_compile,
            "skipped": self.notes,
            "interrupted": self.interrupted,
            "seconds": self.clock.spent,
        }

    def write(self) -> None:
        """Keep what is known so far: whatever ends this process, the file is there."""
        path: Path | None = self.arguments.json
        if path is not None:
            partial = path.with_name(path.name + ".partial")
            partial.write_text(json.dumps(self.result(), indent=2) + "\n", encoding="utf-8")
            partial.replace(path)

    def tables(self) -> Iterator[str]:
        about = machine.describe(self.device)
        yield f"{about['name']}, torch {torch.__version__}, {about['threads']} threads"
        for bench in self.benches:
            yield bench.table()
        yield from self.notes

    def succeeded(self) -> bool:
        """Whether the main configuration has a figure."""
        return (
            any(entry["median_ms"] is not None for entry in self.benches[0].entries())
            if self.benches
            else False
        )


def _forget_compiled() -> None:
    """Versions of compiled code for other shapes count against a limit in torch."""
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, torch.device]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--preset", nargs="+", choices=list(modes.PRESETS), help="default: full on CUDA, tiny and small else")
    add("--cameras", nargs="+", type=int, choices=[1, 2, 3], help="the first is the main one; default 2")
    add("--horizon", nargs="+", type=int, help="likewise; default 50, on CUDA 50 and 16")
    add("--dtype", nargs="+", choices=["bfloat16", "float32"], help="default: bfloat16 on CUDA, else float32")
    add("--device", help="default: cuda where there is one, else cpu")
    add("--modes", nargs="+", choices=ALL_MODES, help="in all configurations; default: see above")
    everything = (
        "every preset (full on CUDA only), 1 to 3 cameras, horizons 50 and 16, compiled modes as well"
    )
    add("--all", action="store_true", help=everything)
    add("--repeats", type=int, help="counted runs of each mode; default 200 on CUDA, else 30")
    add("--seconds", type=float, help="default 420, with --all 3600")
    add("--checkpoint", type=Path, metavar="DIR", help="its weights instead of random ones")
    add("--engine", type=Path, metavar="DIR", help="TensorRT engines, made of --checkpoint by build_engine")
    add(
        "--network-compile",
        default="default",
        metavar="MODE",
        help="torch.compile's mode for network-compiled, such as max-autotune",
    )
    add("--threads", type=int, help="torch threads; default: torch's own choice")
    add("--json", type=Path, metavar="FILE", help="write the figures to this file as well, as they come")
    arguments = parser.parse_args(argv)

    device = torch.device(arguments.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    cuda = device.type == "cuda"
    if arguments.checkpoint and arguments.preset:
        parser.error("--checkpoint has sizes of its own; leave --preset out")
    if arguments.engine and not arguments.checkpoint:
        parser.error("--engine needs --checkpoint, the one that the engine was made of")
    presets = ["full"] if cuda else ["tiny", "small"]
    presets = ["tiny", "small", "full"] if cuda and arguments.all else presets
    arguments.preset = ["full"] if arguments.checkpoint else arguments.preset or presets
    arguments.cameras = arguments.cameras or ([2, 1, 3] if arguments.all else [2])
    arguments.horizon = arguments.horizon or ([50, 16] if arguments.all or cuda else [50])
    arguments.dtype = arguments.dtype or ["bfloat16" if cuda else "float32"]
    arguments.repeats = arguments.repeats or (200 if cuda else 30)
    arguments.seconds = arguments.seconds or (3600.0 if arguments.all else 420.0)
    return arguments, device


def main(argv: Sequence[str] | None = None) -> int:
    arguments, device = parse(argv)
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    run = Run(arguments, device)
    try:
        run.measure()
    except KeyboardInterrupt:
        run.interrupted = True
        run.clock.say("interrupted; this is what there is")
    run.write()
    print("\n\n".join(run.tables()))
    return 130 if run.interrupted else 0 if run.succeeded() else 1


if __name__ == "__main__":
    sys.exit(main())
