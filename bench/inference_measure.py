# SPDX-License-Identifier: Apache-2.0
"""One configuration of `inference.py`: its modes prepared, taking turns, and what came out as rows."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from time import perf_counter, process_time
from typing import Any

import inference_modes
import numpy as np
import torch
from inference_machine import Clock, Memory, OutOfTime, at_most
from inference_modes import STAGES, likeness

from gr00t_model.inference import budget

COMPILING = ("deployed", "deployed-compiled", "network-compiled")
"""Modes that are prepared last, in this order, as their preparation may take minutes."""
BURST = 10
"""Chunks in a turn on CUDA. A robot's chunks follow each other too; the first of a turn is not counted."""
WARM_UP_RUNS = 5
"""On CUDA, where libraries choose kernels and clocks rise."""
RESERVED = 0.12
"""Share of the whole time that preparations leave for measuring: some 30 s at full size on an H200."""
TURNS = 0.8
"""Share of the time left that the turns may take where another configuration follows."""
STAGE_RUNS = 20
STAGE_SECONDS = 10.0


@dataclass(frozen=True)
class Configuration:
    preset: str
    dtype: str
    cameras: int
    horizon: int

    def __str__(self) -> str:
        cameras = f"{self.cameras} camera" + ("s" if self.cameras > 1 else "")
        return f"{self.preset}, {cameras}, horizon {self.horizon}, {self.dtype}"


@dataclass
class Measured:
    """What is known of one mode."""

    name: str
    mode: Any = None
    error: str | None = None
    times: list[float] = field(default_factory=list)
    """seconds of each counted chunk"""
    processor: list[float] = field(default_factory=list)
    """processor seconds of all threads in them, which other programs disturb less; of CPUs only"""
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def works(self) -> bool:
        return self.mode is not None and self.error is None

    @contextmanager
    def caught(self, clock: Clock) -> Iterator[None]:
        """Note what goes wrong instead of ending the run."""
        try:
            yield
        except (Exception, OutOfTime) as error:
            self.error = f"{type(error).__name__}: {str(error).strip() or 'no text'}"[:2000]
            clock.say(f"{self.name} fails: {self.error.splitlines()[0]}")


class Bench:
    """All modes of one configuration."""

    def __init__(
        self, configuration: Configuration, maker: Any, device: torch.device, clock: Clock, repeats: int
    ) -> None:
        self.configuration, self.device, self.clock, self.repeats = configuration, device, clock, repeats
        self.maker, self.config = maker, maker.network.config
        self.inputs = inference_modes.make_inputs(self.config, configuration.cameras)
        self.noise = inference_modes.make_noise(self.config, configuration.horizon)
        self.notes: list[str] = []
        self.all: list[Measured] = []
        self.rate: tuple[float, str] = (0.0, "")
        self.processing: float | None = None
        self.last = True
        """whether no other configuration follows"""
        clock.say(f"{configuration}: float32 reference")
        self.expected = self._reference(configuration.horizon)
        whole = self.config.action_horizon
        self.unshortened = self._reference(whole) if configuration.horizon < whole else None

    def _reference(self, horizon: int) -> np.ndarray | None:
        """Actions in float32, or None where that cannot be computed here."""
        noise = inference_modes.make_noise(self.config, horizon)
        try:
            return inference_modes.reference(self.maker.network, self.inputs, noise)
        except RuntimeError as error:  # of memory, that is
            self.notes.append(f"no float32 reference: {str(error).splitlines()[0]}")
            return None

    def run(self, names: Sequence[str], report: Callable[[], None]) -> None:
        """Measure these modes: first those that are ready soon, then all. `report` is told of results."""
        self.all = [Measured(name) for name in names]
        soon = [measured for measured in self.all if measured.name not in COMPILING]
        late = sorted((m for m in self.all if m.name in COMPILING), key=lambda m: COMPILING.index(m.name))
        # Weights get their final place before anything is compiled or recorded around them.
        for measured in self.all:
            with measured.caught(self.clock):
                measured.mode = self.maker.make(measured.name)
        for group in (soon, late):
            for measured in group:
                self._prepare(measured)
                if self.device.type == "cuda" and measured in late:
                    self._turns(BURST * 2)  # something to show, should the next one take too long
                report()
            if group is late or self.device.type == "cuda":
                self._turns(self.repeats if group is late else min(BURST, self.repeats))
                report()
        for measured in self.all:
            if measured.works:
                with measured.caught(self.clock):
                    self._stages(measured)
            measured.mode = None  # frees its buffers
        self.maker = None
        report()

    def _prepare(self, measured: Measured) -> None:
        if not measured.works:
            return
        self.clock.say(f"{self.configuration}: preparing {measured.name}")
        begun = perf_counter()
        # What is still to be measured after this needs its time too.
        left = self.clock.left - RESERVED * self.clock.seconds
        with measured.caught(self.clock), at_most(left):
            if left <= 0:
                raise OutOfTime("skipped, out of time; give more --seconds")
            memory = Memory(self.device)
            measured.mode.prepare(self.inputs, self.noise)
            for _ in range(WARM_UP_RUNS if self.device.type == "cuda" else 1):
                actions = measured.mode.run(self.inputs, self.noise)
            measured.figures["prepare_s"] = perf_counter() - begun
            measured.figures |= measured.mode.remarks()
            held = measured.mode.held_bytes()
            peak, kept = memory.peak(), memory.kept()
            measured.figures["peak_memory_mb"] = (held + max(peak, kept)) / 1e6
            measured.figures["memory_held_mb"] = (held + kept) / 1e6
            measured.figures["finite"] = bool(np.isfinite(actions).all())
            for key, expected in (("cosine", self.expected), ("cosine_to_full_horizon", self.unshortened)):
                if expected is not None:
                    measured.figures[key] = likeness(actions, expected, self.noise)
            measured.figures["actions"] = actions

    def _turns(self, repeats: int) -> None:
        """Let the working modes take turns until each has `repeats` times, or the time is over."""
        working = [measured for measured in self.all if measured.works and measured.figures]
        if not working:
            return
        end = 0.0 if self.last else (1 - TURNS) * self.clock.left
        before = {measured.name: measured.times for measured in working}
        for measured in working:
            measured.times, measured.processor = [], []
        burst = min(BURST, repeats) if self.device.type == "cuda" else 1
        self.clock.say(f"{self.configuration}: {repeats} runs each of {', '.join(m.name for m in working)}")
        gc.collect()
        gc.disable()
        try:
            for _ in range(-(-repeats // burst)):
                for measured in working:
                    if measured.works:
                        with measured.caught(self.clock):
                            self._burst(measured, burst)
                if self.clock.left <= end and all(m.times for m in working if m.works):
                    break
        finally:
            gc.enable()
            for measured in working:  # one that broke keeps what it had
                measured.times = measured.times or before[measured.name]

    def _burst(self, measured: Measured, count: int) -> None:
        if self.device.type == "cuda":
            measured.mode.run(self.inputs, self.noise)
        for _ in range(count):
            begun, busy = perf_counter(), process_time()
            measured.mode.run(self.inputs, self.noise)
            measured.times.append(perf_counter() - begun)
            if self.device.type == "cpu":
                measured.processor.append(process_time() - busy)

    def _stages(self, measured: Measured) -> None:
        runs = []
        for _ in range(STAGE_RUNS + 1):
            runs.append(measured.mode.stages(self.inputs, self.noise))
            if self.clock.left <= 0 or sum(sum(run.values()) for run in runs) > STAGE_SECONDS:
                break
        counted = runs[1:] or runs  # the first may record something
        measured.figures["stages"] = {
            stage: 1e3 * float(np.median([run[stage] for run in counted]))
            for stage in STAGES
            if stage in counted[0]
        }

    # ---- results -------------------------------------------------------------------------------------

    def floor_ms(self) -> float:
        """The least time of memory traffic in the deployed form."""
        c = self.configuration
        work = budget.Workload.typical(self.config, c.cameras, inference_modes.IMAGE_SIZE, horizon=c.horizon)
        return budget.floor_ms(self.config, work, self.rate[0], precision=c.dtype)

    def entries(self) -> list[dict[str, Any]]:
        floor = self.floor_ms()
        by_name = {measured.name: measured for measured in self.all}
        return [self._entry(measured, by_name, floor) for measured in self.all]

    def _entry(self, measured: Measured, by_name: dict[str, Measured], floor: float) -> dict[str, Any]:
        figures = dict(measured.figures)
        actions = figures.pop("actions", None)
        times = 1e3 * np.array(measured.times) if measured.times else None
        median = None if times is None else float(np.median(times))
        entry: dict[str, Any] = {"name": measured.name, **asdict(self.configuration)}
        entry |= {"error": measured.error} if measured.error else {}
        entry |= {
            "runs": len(measured.times),
            "median_ms": median,
            "p99_ms": None if times is None else float(np.quantile(times, 0.99)),
            "min_ms": None if times is None else float(times.min()),
            "processor_ms": 1e3 * float(np.median(measured.processor)) if measured.processor else None,
            "share_of_floor": None if median is None else floor / median,
        }
        for other in ("network", "network-compiled"):
            times_there = by_name[other].times if other in by_name else []
            key = f"speedup_vs_{other.replace('-', '_')}"
            there = 1e3 * float(np.median(times_there)) if times_there else None
            entry[key] = there / median if there and median else None
        beside = by_name["network"].figures.get("actions") if "network" in by_name else None
        entry["cosine"] = figures.pop("cosine", None)
        known = actions is not None and beside is not None
        entry["cosine_to_network"] = likeness(actions, beside, self.noise) if known else None
        for key in ("peak_memory_mb", "memory_held_mb"):
            entry[key] = figures.pop(key, None)
        entry["stages"] = {"processing": self.processing, **dict.fromkeys(STAGES)}
        entry["stages"] |= figures.pop("stages", {})
        return entry | figures

    def table(self) -> str:
        head = f"{'ms':18}{'median':>9}{'p99':>9}{'upload':>9}{'backbone':>10}{'action':>9}{'download':>10}"
        head += (
            f"{'of floor':>10}{'x network':>11}{'x compiled':>12}{'cosine':>11}{'held MB':>10}{'peak MB':>9}"
        )
        lines = [str(self.configuration), head]
        for entry in self.entries():
            stages = entry["stages"]
            cells = [_cell(entry["median_ms"], 9, 2), _cell(entry["p99_ms"], 9, 2)]
            widths = dict(zip(STAGES, (9, 10, 9, 10), strict=True))
            cells += [_cell(stages[name], widths[name], 2) for name in STAGES]
            share = entry["share_of_floor"]
            cells += [_cell(None if share is None else 100 * share, 9, 1) + ("%" if share else " ")]
            cells += [
                _cell(entry["speedup_vs_network"], 11, 2),
                _cell(entry["speedup_vs_network_compiled"], 12, 2),
            ]
            cells += [_cell(entry["cosine"], 11, 7)]
            cells += [_cell(entry["memory_held_mb"], 10, 0), _cell(entry["peak_memory_mb"], 9, 0)]
            lines.append(f"{entry['name']:18}" + "".join(cells))
            if "error" in entry:
                lines.append(f"    {entry['error'].splitlines()[0][:160]}")
        busy = {entry["name"]: entry["processor_ms"] for entry in self.entries() if entry["processor_ms"]}
        if busy:
            told = ", ".join(f"{name} {value:.2f}" for name, value in busy.items())
            lines.append(f"processor time of all threads, median ms: {told}")
        runs = sorted({entry["runs"] for entry in self.entries()})
        lines.append(
            f"runs {'-'.join(map(str, runs))}; floor {self.floor_ms():.3g} ms at "
            f"{self.rate[0] / 1e9:.0f} GB/s ({self.rate[1]}); processing "
            + ("not measured" if self.processing is None else f"{self.processing:.1f} ms")
        )
        return "\n".join(lines)


def _cell(value: float | None, width: int, digits: int) -> str:
    return f"{'–' if value is None else f'{value:.{digits}f}':>{width}}"
