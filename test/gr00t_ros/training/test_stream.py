# SPDX-License-Identifier: Apache-2.0
"""The stream of training samples: the documented order, whoever makes the batches, and nothing decoded
twice."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gr00t_model.errors import EmbodimentError
from gr00t_model.network import Gr00tN1d6
from gr00t_model.processing import Gr00tProcessor
from gr00t_ros.data.lerobot import LeRobotDataset
from gr00t_ros.data.windows import WindowReader
from gr00t_ros.errors import DatasetError
from gr00t_ros.training import stream as stream_module
from gr00t_ros.training.collate import to_device
from gr00t_ros.training.loader import training_loader
from gr00t_ros.training.order import AUGMENTATION, StreamOrder, cut, generator
from gr00t_ros.training.preparing import prepare_processor
from gr00t_ros.training.running import Run
from gr00t_ros.training.stream import DatasetSource, SampleStream, training_statistics
from support_datasets import CAMERAS, write_dataset
from support_samples import CONFIG, HORIZON, OTHER, SAMPLES, SMALL_IMAGES, TAG, Rows, modality, processor_for
from support_training import options

torch.set_num_threads(1)

LENGTHS = (12, 25)
ROWS = [(episode, row) for episode, length in enumerate(LENGTHS) for row in range(length)]
ORDER: dict[str, Any] = {"shard_rows": 6, "open_shards": 3}


@pytest.fixture(scope="module", params=["v2.0", "v2.1", "v3.0"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp(request.param), version=request.param, lengths=LENGTHS)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[DatasetSource], Gr00tProcessor]:
    """A dataset and its processor, for tests that need no version in particular."""
    path = write_dataset(tmp_path_factory.mktemp("stream"), lengths=LENGTHS)
    sources = [DatasetSource(path, TAG)]
    return sources, processor_for(sources)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[DatasetSource], Gr00tProcessor]:
    """Two embodiments: two cameras and one."""
    paths = [write_dataset(tmp_path_factory.mktemp("mixture"), lengths=LENGTHS) for _ in range(2)]
    sources = [DatasetSource(paths[0], TAG, 1.0), DatasetSource(paths[1], OTHER, 3.0)]
    modalities = {TAG: modality(), OTHER: modality(("front",), ("arm",), ("arm", "gripper"), steps=range(4))}
    return sources, processor_for(sources, modalities)


def batches(stream: SampleStream, count: int, workers: int = 0) -> list[dict[str, Any]]:
    return list(islice(training_loader(stream, workers), count))


def same(left: Sequence[dict[str, Any]], right: Sequence[dict[str, Any]]) -> bool:
    def equal(a: Any, b: Any) -> bool:
        return all(map(torch.equal, a, b)) if isinstance(a, list) else torch.equal(a, b)

    return len(left) == len(right) and all(
        a.keys() == b.keys() and all(equal(a[name], b[name]) for name in a)
        for a, b in zip(left, right, strict=True)
    )


def documented(seed: int, stream: int, streams: int, start: int, count: int) -> list[tuple[int, int]]:
    """The rows of a stream as ``order.py`` says them, without anything of the stream's own."""
    usable = {episode: range(length) for episode, length in enumerate(LENGTHS)}
    order = StreamOrder(cut(usable, ORDER["shard_rows"]), seed, 0, stream, streams, ORDER["open_shards"])
    return [(draw.episode, draw.row) for draw in islice(order.samples(start), count)]


def test_every_version_gives_every_row_once_an_epoch(folder: Path) -> None:
    sources = [DatasetSource(folder, TAG)]
    processor = processor_for(sources)
    stream = SampleStream(sources, processor, seed=5, batch_size=1, **ORDER)
    assert (stream.rows, stream.weights) == ([37], [1.0])
    found = Rows(folder, processor)
    rows = [found.of(sample)[0] for sample in islice(stream, 37)]
    assert sorted(rows) == ROWS
    assert rows == documented(5, 0, 1, 0, 37)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_batches_come_in_the_documented_order(one: Any, workers: int) -> None:
    """Batch b is of lane b modulo lanes, and each lane is a stream of its own."""
    sources, processor = one
    made = batches(SampleStream(sources, processor, seed=1, batch_size=4, **ORDER), 6, workers)
    found, lanes = Rows(sources[0].path, processor), max(1, workers)
    for number, batch in enumerate(made):
        expected = documented(1, number % lanes, lanes, number // lanes * 4, 4)
        assert found.of(batch) == expected, f"batch {number}"


def test_who_makes_the_batches_changes_nothing(one: Any) -> None:
    sources, processor = one

    def run(workers: int, lanes: int | None) -> list[dict[str, Any]]:
        stream = SampleStream(sources, processor, seed=2, batch_size=3, lanes=lanes, **ORDER)
        return batches(stream, 7, workers)

    two_workers = run(2, None)
    assert same(two_workers, run(0, 2))
    assert same(two_workers, run(1, 2))
    assert not same(two_workers, run(0, 1))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_stream_is_the_uninterrupted_one(two: Any, workers: int) -> None:
    sources, processor = two
    options: dict[str, Any] = {"seed": 3, "batch_size": 4, **ORDER}
    whole = batches(SampleStream(sources, processor, **options), 13, workers)
    for start in (3, 12):  # in the middle of an epoch, and beyond several
        rest = batches(SampleStream(sources, processor, start_batch=start, **options), 13 - start, workers)
        assert same(rest, whole[start:])


def test_resuming_decodes_nothing_of_what_was_consumed(one: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sources, processor = one
    loaded: list[tuple[int, int]] = []
    load = stream_module.load_shard

    def recording(source: Any, processor: Any, episode: int, rows: Sequence[int]) -> Any:
        loaded.extend((episode, row) for row in rows)
        return load(source, processor, episode, rows)

    monkeypatch.setattr(stream_module, "load_shard", recording)
    stream = SampleStream(sources, processor, seed=4, batch_size=5, start_batch=5, **ORDER)
    assert len(list(islice(stream, 12))) == 12  # to the end of the epoch
    consumed = documented(4, 0, 1, 0, 25)
    assert sorted(loaded) == sorted(set(ROWS) - set(consumed))


def test_no_frame_is_decoded_twice_in_an_epoch(one: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sources, processor = one
    asked: Counter[tuple[str, int, int]] = Counter()
    frames = WindowReader.frames

    def counting(self: Any, episode: Any, key: str, start: int, stop: int, **options: Any) -> Any:
        asked.update((key, episode.index, row) for row in range(start, stop))
        return frames(self, episode, key, start, stop, **options)

    monkeypatch.setattr(WindowReader, "frames", counting)
    stream = SampleStream(sources, processor, seed=4, batch_size=5, **ORDER)
    assert len(list(islice(stream, 37))) == 37
    assert asked == Counter((camera, *row) for camera in CAMERAS for row in ROWS)


def test_no_more_shards_are_in_memory_than_are_open(two: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sources, processor = two
    alive: list[weakref.ref[Any]] = []
    load = stream_module.load_shard

    def recording(*arguments: Any) -> Any:
        shard = load(*arguments)
        assert max(len(frames) for frames in shard.frames.values()) <= ORDER["shard_rows"]
        alive.append(weakref.ref(shard))
        return shard

    monkeypatch.setattr(stream_module, "load_shard", recording)
    stream = SampleStream(sources, processor, seed=4, batch_size=5, **ORDER)
    for _ in islice(stream, 100):
        assert sum(shard() is not None for shard in alive) <= ORDER["open_shards"]
    assert len(alive) > 10


def test_rows_of_an_open_episode_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = [DatasetSource(write_dataset(tmp_path / "short", lengths=(4,) * 6), TAG)]
    processor = processor_for(sources)
    monkeypatch.setattr(stream_module, "KEPT_EPISODES", 1)
    asked: Counter[int] = Counter()
    episode = LeRobotDataset.episode

    def counting(self: LeRobotDataset, number: int) -> Any:
        asked[number] += 1
        return episode(self, number)

    monkeypatch.setattr(LeRobotDataset, "episode", counting)
    stream = SampleStream(sources, processor, seed=4, batch_size=4, open_shards=6)
    assert len(list(islice(stream, 24))) == 24
    assert asked == Counter(range(6))


@pytest.mark.parametrize("open_shards", [1, 3])
def test_a_run_draws_from_as_many_shards_as_it_is_told(
    open_shards: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = Run.prepare(options(tmp_path, batch_size=8, open_shards=open_shards))
    processor = prepare_processor(prepared.options, prepared.base, prepared.recordings, lambda _: None)
    seen: set[int] = set()
    load = stream_module.load_shard

    def recording(source: Any, processor: Any, episode: int, rows: Sequence[int]) -> Any:
        seen.add(episode)
        return load(source, processor, episode, rows)

    monkeypatch.setattr(stream_module, "load_shard", recording)
    next(iter(prepared.loader(processor, 1)(0)))  # 8 of 12, 10 and 8 rows
    assert len(seen) == open_shards


def test_two_ranks_see_different_rows_and_together_all(one: Any) -> None:
    sources, processor = one
    found = Rows(sources[0].path, processor)
    seen = []
    for rank, count in ((0, 18), (1, 19)):  # 37 rows
        stream = SampleStream(sources, processor, seed=6, batch_size=1, rank=rank, world_size=2, **ORDER)
        seen += [found.of(sample)[0] for sample in islice(stream, count)]
    assert sorted(seen) == ROWS


def test_augmentation_is_of_the_position_and_only_in_training(one: Any) -> None:
    sources, processor = one
    dataset = LeRobotDataset(sources[0].path)
    reader = WindowReader(dataset, modality())
    (episode, row), *_ = documented(8, 0, 1, 2, 1)
    recorded = dataset.episode(episode)
    observation, (actions, real) = reader.observation(recorded, row), reader.actions(recorded, row)
    for train in (True, False):
        rng = generator(8, AUGMENTATION, 0, 2) if train else None
        expected = processor.encode_training(
            observation, actions, TAG, rng, pixels="uint8", real_steps=(real,)
        )
        stream = SampleStream(sources, processor, seed=8, batch_size=1, train=train, **ORDER)
        assert same([list(islice(stream, 3))[2]], [expected])


def test_padded_steps_are_masked_and_repeat_the_last_action(one: Any) -> None:
    sources, processor = one
    stream = SampleStream(sources, processor, seed=9, batch_size=1, **ORDER)
    found, real = Rows(sources[0].path, processor), {}
    for sample in islice(stream, 37):
        (place,) = found.of(sample)
        mask = sample["action_mask"][0]
        real[place] = int(mask[:, 0].sum())
        assert mask.shape == (CONFIG.action_horizon, CONFIG.max_action_dim)
        assert torch.equal(mask[: real[place], :6], torch.ones(real[place], 6))
        assert float(mask.sum()) == 6 * real[place]
        padded = sample["action"][0, real[place] : HORIZON]
        assert torch.equal(padded, sample["action"][0, real[place] - 1].expand_as(padded))
    assert real == {(e, row): min(HORIZON, LENGTHS[e] - row) for e, row in ROWS}


def test_a_mixture_is_drawn_by_weight_whatever_the_sizes(two: Any) -> None:
    sources, processor = two
    stream = SampleStream(sources, processor, seed=0, batch_size=8, **ORDER)
    assert stream.weights == [0.25, 0.75]
    numbers = torch.cat([sample["embodiment_id"] for sample in islice(stream, 120)])
    share = float((numbers == processor.embodiment_id(OTHER)).float().mean())
    assert share == pytest.approx(0.75, abs=0.1)  # of 120 out of a shuffled block of 1024


def test_held_out_episodes_stay_out(one: Any) -> None:
    (source,), processor = one
    chosen = DatasetSource(source.path, TAG, episodes=(1,))
    stream = SampleStream([chosen], processor, seed=0, batch_size=1, **ORDER)
    found = Rows(source.path, processor)
    assert sorted(found.of(sample)[0] for sample in islice(stream, 25)) == ROWS[12:]


def test_a_history_is_read_with_its_rows(one: Any) -> None:
    (source,), plain = one
    processor = processor_for([source], {TAG: modality(past=(-2, 0))})
    stream = SampleStream([source], processor, seed=0, batch_size=1, **ORDER)
    assert stream.rows == [33]
    found = Rows(source.path, plain)  # the same statistics, and one step of state
    seen = {}
    for sample in islice(stream, 33):
        assert len(sample["pixel_values"]) == 4
        seen[found.of(sample)[0]] = sample
    assert sorted(seen) == [(e, row) for e, row in ROWS if row >= 2]
    now, before = seen[(1, 9)]["state"][0, 1], seen[(1, 11)]["state"][0, 0]
    assert torch.equal(now, before)


def test_an_episode_without_rows_is_left_out_and_told(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path, lengths=(5, 4))
    index = folder / "meta/episodes.jsonl"
    index.write_text(index.read_text() + '{"episode_index": 2, "tasks": [], "length": 0}\n')
    sources = [DatasetSource(folder, TAG)]
    told: list[str] = []
    statistics = training_statistics(sources, {TAG: modality()}, told.append)
    assert f"{folder}: no rows in episode 2; left out" in told
    processor = Gr00tProcessor({TAG: modality()}, statistics, **SMALL_IMAGES)
    assert SampleStream(sources, processor, seed=0, batch_size=1).rows == [9]


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the sample recordings are not beside the repository")
def test_the_samples_train_the_tiny_network() -> None:
    """A humanoid (v2.0, H.264) and an arm (v3.0, AV1) in one batch."""
    sources = [
        DatasetSource(SAMPLES / "gr1_pick_and_place", OTHER),
        DatasetSource(SAMPLES / "so101_lerobot_v3", TAG),
    ]
    groups = ("right_arm", "right_hand")
    modalities = {
        OTHER: modality(("ego_view",), groups, groups, steps=range(16)),
        TAG: modality(("wrist",), ("all",), ("all",)),
    }
    processor = processor_for(sources, modalities)
    stream = SampleStream(sources, processor, seed=0, batch_size=6, shard_rows=4, open_shards=2)
    assert stream.rows == [2096, 1782]
    (batch,) = batches(stream, 1)
    assert set(batch["embodiment_id"].tolist()) == {processor.embodiment_id(tag) for tag in (TAG, OTHER)}
    assert torch.isfinite(Gr00tN1d6(CONFIG)(to_device(batch, "cpu"))["loss"])


def test_mistakes_are_named_before_anything_is_decoded(one: Any, tmp_path: Path) -> None:
    (source,), processor = one

    def start(sources: list[DatasetSource], **options: Any) -> SampleStream:
        return SampleStream(sources, processor, **{"seed": 0, "batch_size": 2, **options})

    with pytest.raises(DatasetError, match="no dataset is given"):
        start([])
    with pytest.raises(DatasetError, match="does not exist"):
        start([DatasetSource(tmp_path / "nowhere", TAG)])
    with pytest.raises(EmbodimentError, match="'other' is not in this checkpoint"):
        start([DatasetSource(source.path, "other")])
    for weight in (0.0, -1.0, np.nan):
        with pytest.raises(DatasetError, match=rf"its weight is {weight}, expected a number above 0"):
            start([DatasetSource(source.path, TAG, weight)])
    with pytest.raises(DatasetError, match="no episode 7; the dataset has 0 to 1"):
        start([DatasetSource(source.path, TAG, episodes=(0, 7))])
    for option, value in (
        ("batch_size", 0),
        ("shard_rows", 0),
        ("rank", 1),
        ("start_batch", -1),
        ("seed", -1),
    ):
        with pytest.raises(ValueError, match=f"{option} is {value}, expected"):
            start([source], **{option: value})
    folder = write_dataset(tmp_path / "incomplete", lengths=(6, 6))
    video = folder / "videos/chunk-000/observation.images.front/episode_000001.mp4"
    video.unlink()
    with pytest.raises(DatasetError, match=r"front/episode_000001\.mp4: missing; .* episode 1"):
        start([DatasetSource(folder, TAG)])
    start([DatasetSource(folder, TAG, episodes=(0,))])
    short = processor_for([source], {TAG: modality(past=(-20, 0))})
    with pytest.raises(
        DatasetError, match="no episode is long enough for a sample; the checkpoint looks 20 rows"
    ):
        SampleStream([DatasetSource(folder, TAG, episodes=(0,))], short, seed=0, batch_size=2)
