# SPDX-License-Identifier: Apache-2.0
"""What is written follows the published formats: every file is gone through by a description of its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gr00t_ros.data.assembling import assemble
from gr00t_ros.data.lerobot_writing import EpisodeWriter
from gr00t_ros.data.rows import Layout, Row
from gr00t_ros.data.video_writing import VideoOptions
from support_published_format import complaints
from support_writing import LAYOUT, START_NS, row, write_episodes

Damage = Callable[[Path], None]


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        fmt: write_episodes(tmp_path_factory.mktemp("published"), (24, 37, 18), fmt)
        for fmt in ("v2.1", "v3.0")
    }


@pytest.mark.parametrize("fmt", ["v2.1", "v3.0"])
def test_a_dataset_follows_the_published_format(datasets: dict[str, Path], fmt: str) -> None:
    assert complaints(datasets[fmt]) == []


@pytest.mark.parametrize("fmt", ["v2.1", "v3.0"])
def test_one_joint_av1_and_a_broken_rate_follow_it_too(tmp_path: Path, fmt: str) -> None:
    one = (("joint", ("only",)),)
    layout = Layout("one", 29.97, ("front",), one, one)
    for number in range(2):
        with EpisodeWriter(tmp_path / str(number), layout, VideoOptions(codec="av1", size=32)) as writer:
            for k in range(5):
                now = row(number, k, LAYOUT)
                value = {"joint": now.state["gripper"]}
                writer.add(Row(START_NS, START_NS, {"front": now.video["front"]}, value, value, "task"))
            writer.finish()
    made = assemble([tmp_path / "0", tmp_path / "1"], tmp_path / "out", layout, fmt, horizon=2)
    assert complaints(made) == []


def _json(name: str, change: Callable[[dict], None]) -> Damage:
    def damage(root: Path) -> None:
        value = json.loads((root / name).read_text())
        change(value)
        (root / name).write_text(json.dumps(value))

    return damage


def _index_shifted(root: Path) -> None:
    path = min(root.glob("data/*/*.parquet"))
    table = pq.read_table(path)
    shifted = pa.array([value + 1 for value in table["index"].to_pylist()])
    pq.write_table(table.set_column(table.column_names.index("index"), "index", shifted), path)


def _videos_swapped(root: Path) -> None:
    first, second = sorted(root.glob("videos/*/observation.images.front/*.mp4"))[:2]
    shutil.copyfile(first, root / "kept")
    second.rename(first)
    (root / "kept").rename(second)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_json("meta/info.json", lambda v: v.pop("splits")), "splits"),
        (_json("meta/info.json", lambda v: v.update(fps=30)), "k / fps"),
        (_json("meta/info.json", lambda v: v["features"].pop("index")), "columns"),
        (_json("meta/stats.json", lambda v: v["action"].pop("q99")), "stats.json: action q99"),
        (_json("meta/modality.json", lambda v: v["state"]["arm"].update(end=4)), "state.gripper"),
        (_index_shifted, "episode 0: index"),
        (_videos_swapped, "no frame at"),
    ],
)
def test_the_description_sees_what_is_wrong(
    datasets: dict[str, Path], tmp_path: Path, damage: Damage, says: str
) -> None:
    """So that its silence says something."""
    copy = tmp_path / "copy"
    shutil.copytree(datasets["v2.1"], copy)
    damage(copy)
    try:
        found = complaints(copy)
    except KeyError as error:
        found = [str(error)]
    assert any(says in text for text in found), found
