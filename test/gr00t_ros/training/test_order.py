# SPDX-License-Identifier: Apache-2.0
"""The order of training samples: nothing lost, nothing twice, the same again from anywhere."""

from __future__ import annotations

from collections import Counter
from itertools import islice, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gr00t_ros.training.order import MIXTURE_BLOCK, StreamOrder, cut, generator, mixture, mixture_counts

EPISODES = st.lists(st.integers(0, 40), min_size=1, max_size=6).filter(any)


def dataset(lengths: list[int], first: int = 0) -> dict[int, range]:
    return {number: range(first, first + length) for number, length in enumerate(lengths)}


@settings(deadline=None)
@given(lengths=EPISODES, first=st.integers(0, 3), shard_rows=st.integers(1, 50))
def test_shards_hold_every_row_once_and_are_of_nearly_one_length(
    lengths: list[int], first: int, shard_rows: int
) -> None:
    shards = cut(dataset(lengths, first), shard_rows)
    held = [(shard.episode, row) for shard in shards for row in range(shard.start, shard.stop)]
    assert held == [(e, row) for e, rows in dataset(lengths, first).items() for row in rows]
    assert max(map(len, shards)) <= shard_rows
    for episode in range(len(lengths)):
        of_it = [len(shard) for shard in shards if shard.episode == episode]
        assert not of_it or max(of_it) - min(of_it) <= 1


@settings(deadline=None)
@given(
    lengths=EPISODES,
    shard_rows=st.integers(1, 20),
    streams=st.integers(1, 9),
    open_shards=st.integers(1, 5),
    epoch=st.integers(0, 4),
    seed=st.integers(0, 2**32),
)
def test_an_epoch_over_all_streams_is_every_row_once(
    lengths: list[int], shard_rows: int, streams: int, open_shards: int, epoch: int, seed: int
) -> None:
    shards = cut(dataset(lengths), shard_rows)
    seen: Counter[tuple[int, int]] = Counter()
    counts = []
    for stream in range(streams):
        order = StreamOrder(shards, seed, 0, stream, streams, open_shards)
        before = sum(high - low for low, high in map(order.bounds, range(epoch)))
        low, high = order.bounds(epoch)
        drawn = list(islice(order.samples(before), high - low))
        assert {draw.epoch for draw in drawn} <= {epoch}
        seen.update((draw.episode, draw.row) for draw in drawn)
        counts.append(len(drawn))
    assert seen == Counter((e, row) for e, rows in dataset(lengths).items() for row in rows)
    assert max(counts) - min(counts) <= 1


@settings(deadline=None)
@given(
    lengths=EPISODES,
    streams=st.integers(1, 5),
    stream=st.integers(0, 4),
    position=st.integers(0, 300),
    seed=st.integers(0, 9),
)
def test_a_stream_goes_on_from_any_position(
    lengths: list[int], streams: int, stream: int, position: int, seed: int
) -> None:
    order = StreamOrder(cut(dataset(lengths), 7), seed, 0, stream % streams, streams, 3)
    assert list(islice(order.samples(), position, position + 20)) == list(islice(order.samples(position), 20))


@settings(deadline=None)
@given(lengths=EPISODES, open_shards=st.integers(1, 4), samples=st.integers(1, 120))
def test_no_more_shards_are_open_than_allowed(lengths: list[int], open_shards: int, samples: int) -> None:
    """What is open, and what is still needed of it, is what the memory of the stream holds."""
    drawing = StreamOrder(cut(dataset(lengths), 5), 1, 0, 0, 1, open_shards).samples()
    came: set[tuple[int, int, int]] = set()
    for draw in islice(drawing, samples):
        assert len(drawing.open()) <= open_shards
        came.add((draw.epoch, draw.episode, draw.row))
        if draw.shard in drawing.open():
            left = drawing.remaining(draw.shard)
            assert left
            assert not came & {(draw.epoch, draw.episode, row) for row in left}


def test_epochs_streams_sources_and_seeds_are_shuffled_differently() -> None:
    shards = cut(dataset([64, 64]), 8)

    def rows(seed: int, source: int, stream: int, epoch: int) -> list[tuple[int, int]]:
        order = StreamOrder(shards, seed, source, stream, 2, 4)
        return [(draw.episode, draw.row) for draw in islice(order.samples(64 * epoch), 64)]

    orders = [rows(0, 0, 0, 0), rows(1, 0, 0, 0), rows(0, 1, 0, 0), rows(0, 0, 1, 0), rows(0, 0, 0, 1)]
    assert all(orders[i] != orders[j] for i in range(5) for j in range(i))
    # Neighbours are not neighbours any more, and one batch shows both episodes.
    near = [abs(a[1] - b[1]) <= 1 and a[0] == b[0] for a, b in pairwise(orders[0])]
    assert np.mean(near) < 0.2
    assert len({episode for episode, _ in orders[0][:16]}) == 2


@settings(deadline=None, max_examples=40)
@given(
    weights=st.lists(st.floats(0.01, 10.0), min_size=1, max_size=5),
    position=st.integers(0, 3 * MIXTURE_BLOCK),
    seed=st.integers(0, 9),
    stream=st.integers(0, 3),
)
def test_a_mixture_gives_each_source_its_share_from_any_position(
    weights: list[float], position: int, seed: int, stream: int
) -> None:
    start, sources = mixture(0, weights, seed, stream)
    assert start == [0] * len(weights)
    first = list(islice(sources, position))
    before, rest = mixture(position, weights, seed, stream)
    assert before == [first.count(source) for source in range(len(weights))]
    assert list(islice(rest, 50)) == list(islice(sources, 50))
    share = np.asarray(weights) / sum(weights)
    assert np.abs(np.asarray(mixture_counts(2, weights, seed, stream)) - share * MIXTURE_BLOCK).max() <= 1.0


def test_random_numbers_of_different_purposes_are_different_ones() -> None:
    places = [(0, 0, 1), (1, 0, 1), (0, 1, 1), (0, 0, 2)]
    assert len({float(generator(*place).random()) for place in places}) == len(places)
    assert generator(3, 1, 2).random() == pytest.approx(generator(3, 1, 2).random(), abs=0)
