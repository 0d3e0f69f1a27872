# SPDX-License-Identifier: Apache-2.0
"""Episodes are left out as they are named, and a name that means nothing is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from gr00t_ros.data.lerobot import LeRobotDataset
from gr00t_ros.training.dividing import held_out, parse_skipped, without
from gr00t_ros.training.options import TrainingError
from support_training import recording


def test_forms_of_what_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monday, tuesday = Path("monday"), tmp_path / "tuesday"
    assert parse_skipped((), [monday, tuesday]) == [(), ()]
    assert parse_skipped(("3-5,8", "1"), [monday]) == [(1, 3, 4, 5, 8)]
    assert parse_skipped(("tuesday:2", "./monday/:7, 9-9"), [monday, tuesday]) == [(7, 9), (2,)]
    for texts, message in (
        (("3",), r"there are 2 datasets; say which, as in monday:3"),
        (("friday:3",), r"friday is none of the datasets, which are monday, .*tuesday"),
        (("monday:5-3",), r"monday:5-3: '5-3' is no episode and no range such as 3-5"),
        (("monday:",), r"'' is no episode"),
    ):
        with pytest.raises(TrainingError, match=message):
            parse_skipped(texts, [monday, tuesday])


def test_what_is_left() -> None:
    dataset = LeRobotDataset(recording())
    assert without(dataset, (1,)) == [0, 2]
    assert held_out(dataset, [0, 2], 1) == (2,)
    with pytest.raises(TrainingError, match=r"has no episode 7; it has 0 to 2"):
        without(dataset, (1, 7))
    with pytest.raises(TrainingError, match=r"no episode of .* is left to learn from"):
        without(dataset, (0, 1, 2))
