# SPDX-License-Identifier: Apache-2.0
"""What happens to a moving robot when something goes wrong: every scenario of the fault suite, with its
times.

    python bench/faults.py [--only WORD ...] [--json FILE] [--page docs/reference/faults.md]

Plays the scenarios of ``test/gr00t_ros/faults`` with real processes and prints the table of
docs/reference/faults.md; ``--page`` writes it into that file, between the lines that mark it. "Told" is the
time from the fault to the status that says so, "at rest" to the last motion of the arm's reference or the
gripper's command, "moves again" from the end of the fault, or from executor/start, to the next motion. The
command's exit code is 0 when every scenario kept its limits and its promises."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "test/support")]

import support_fault_scenarios  # noqa: E402
import support_fault_system  # noqa: E402
from support_faults import ExecutorRig, Outcome, Scenario, SystemRig, play  # noqa: E402

BEGIN, END = "<!-- bench/faults.py -->", "<!-- end -->"
HEAD = ("fault", "detected by", "reaction", "recovery", "at rest within", "told", "at rest", "moves again")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", nargs="*", default=[], help="scenarios whose name has one of these words")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--page", type=Path, help="write the table into this page, between its marks")
    arguments = parser.parse_args()
    rows, failures = [], 0
    for rig, scenarios in ((ExecutorRig, support_fault_scenarios), (SystemRig, support_fault_system)):
        chosen = [s for s in scenarios.SCENARIOS if wanted(s, arguments.only)]
        if not chosen:
            continue
        with closing(rig()) as running:
            for scenario in chosen:
                outcome = attempt(scenario, running)
                failures += outcome is None
                rows.append((scenario, outcome))
    table = "\n".join(line(cells) for cells in [HEAD, ("---",) * len(HEAD), *map(cells_of, rows)])
    outcomes = [outcome for _, outcome in rows if outcome is not None]
    worst = (
        f"Over all {sum(outcome.worst.commands for outcome in outcomes)} commands the highest velocity was "
        f"{max(outcome.worst.velocity for outcome in outcomes):.2f} of its limit, the highest acceleration "
        f"{max(outcome.worst.acceleration for outcome in outcomes):.2f} of its limit."
    )
    print(f"{table}\n\n{worst}")
    if arguments.json:
        arguments.json.write_text(json.dumps(report(rows), indent=1) + "\n")
    if arguments.page:
        text = arguments.page.read_text()
        before, after = text.split(BEGIN)[0], text.split(END)[1]
        arguments.page.write_text(f"{before}{BEGIN}\n{table}\n\n{worst}\n{END}{after}")
    return 1 if failures else 0


def wanted(scenario: Scenario, words: list[str]) -> bool:
    return not words or any(word in scenario.name for word in words)


def attempt(scenario: Scenario, rig: Any) -> Outcome | None:
    """Plays one scenario; None, and why on stderr, when it does not go as documented."""
    try:
        outcome = play(scenario, rig)
    except AssertionError as error:
        print(f"{scenario.name}: FAILED: {error}", file=sys.stderr, flush=True)
        return None
    print(f"{scenario.name}: {outcome}", file=sys.stderr, flush=True)
    return outcome


def cells_of(row: tuple[Scenario, Outcome | None]) -> tuple[str, ...]:
    scenario, outcome = row
    texts = (scenario.fault, scenario.detection, scenario.reaction, scenario.recovery)
    limit = "goes on" if scenario.stop_s is None else f"{scenario.stop_s:.2f} s"
    if outcome is None:
        return (*texts, limit, "FAILED", "FAILED", "FAILED")
    note = f"goes on; {outcome.note}" if outcome.note else "goes on"
    return (
        *texts,
        limit,
        seconds(outcome.report_s),
        note if scenario.stop_s is None else seconds(outcome.stop_s),
        seconds(outcome.recovery_s),
    )


def seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} s"


def line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def report(rows: list[tuple[Scenario, Outcome | None]]) -> dict[str, Any]:
    """Everything measured, and on what."""
    return {
        "made": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "scenarios": {
            scenario.name: None if outcome is None else asdict(outcome) for scenario, outcome in rows
        },
    }


if __name__ == "__main__":
    sys.exit(main())
