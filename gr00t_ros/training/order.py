# SPDX-License-Identifier: Apache-2.0
"""In which order training sees the rows of a dataset: pure functions of a seed and a position.

Nothing is read or decoded here, so the order of a run can be recomputed anywhere, and a run that was
interrupted goes on behind its last batch without decoding what it has consumed.

An epoch of a dataset is one pass over all its rows. Its *shards* (consecutive rows of one episode, which a
video decoder reads in one go) are put into a random order and laid end to end; each *stream* takes an equal
part of that line, cutting a shard where the part ends. So within an epoch no row is lost and none comes
twice, whatever the number of streams, and streams differ by one row at most. A stream opens a few shards at
a time, draws uniformly from the rows that are left in them, and opens the next shard when one is used up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import ceil

import numpy as np

# What a random generator is for, so that no two share their numbers: the second entry of every seed.
SHUFFLE, DRAW, MIXTURE, AUGMENTATION = range(4)
# Samples over which a mixture keeps its shares: a weight of one in a thousand is met once, and they are drawn
# at once.
MIXTURE_BLOCK = 1024


@dataclass(frozen=True)
class Shard:
    """Rows ``start`` to before ``stop`` of an episode."""

    episode: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Draw:
    """One sample: a row of shard number ``shard`` of the stream's share of an epoch."""

    epoch: int
    shard: int
    episode: int
    row: int


def generator(seed: int, purpose: int, *place: int) -> np.random.Generator:
    """The random numbers of one purpose at one place; every argument changes them."""
    return np.random.default_rng(np.random.SeedSequence((seed, purpose, *place)))


def cut(rows: Mapping[int, range], shard_rows: int) -> tuple[Shard, ...]:
    """Episodes ({number: rows that can be samples}) cut into shards of nearly equal length, at most
    ``shard_rows``."""
    shards = []
    for episode, usable in rows.items():
        pieces = ceil(len(usable) / shard_rows)
        edges = [usable.start + len(usable) * i // pieces for i in range(pieces + 1)] if pieces else []
        shards += [Shard(episode, edges[i], edges[i + 1]) for i in range(pieces)]
    return tuple(shards)


@dataclass(frozen=True)
class StreamOrder:
    """The order in which one of several streams sees a dataset.

    Args:
        source: number of the dataset in a mixture; datasets of equal size are not shuffled alike.
        stream, streams: which of how many.
        open_shards: how many shards are drawn from at a time.
    """

    shards: tuple[Shard, ...]
    seed: int
    source: int
    stream: int
    streams: int
    open_shards: int

    @property
    def rows(self) -> int:
        """Rows of the dataset, which is the samples of an epoch over all streams."""
        return sum(map(len, self.shards))

    def bounds(self, epoch: int) -> tuple[int, int]:
        """The part of an epoch's line that is this stream's; parts go round, so that each stream gets rows
        even of a dataset with fewer rows than there are streams."""
        part = (self.stream + epoch) % self.streams
        return part * self.rows // self.streams, (part + 1) * self.rows // self.streams

    def share(self, epoch: int) -> list[Shard]:
        """The stream's shards of an epoch in the order in which they are opened."""
        low, high = self.bounds(epoch)
        order = generator(self.seed, SHUFFLE, self.source, epoch).permutation(len(self.shards))
        line = [self.shards[i] for i in order]
        mine = []
        for shard, end in zip(line, accumulate(map(len, line)), strict=True):
            begin = end - len(shard)
            first, last = max(begin, low), min(end, high)
            if first < last:
                mine.append(Shard(shard.episode, shard.start + first - begin, shard.start + last - begin))
        return mine

    def locate(self, position: int) -> tuple[int, int]:
        """(epoch, samples of it that come before) of the stream's sample number ``position``."""
        # Over as many epochs as there are streams, a stream gets every part once: all rows.
        cycles, left = divmod(position, self.rows)
        epoch = cycles * self.streams
        while True:
            low, high = self.bounds(epoch)
            if left < high - low:
                return epoch, left
            left -= high - low
            epoch += 1

    def samples(self, position: int = 0) -> Drawing:
        """The stream's samples from ``position`` on, without end."""
        return Drawing(self, position)


class Drawing(Iterator[Draw]):
    """Samples of a stream one after the other. ``remaining`` tells what a shard is still needed for."""

    def __init__(self, order: StreamOrder, position: int) -> None:
        self._order = order
        self._epoch, consumed = order.locate(position)
        self._begin()
        for _ in range(consumed):
            self._draw()

    def _begin(self) -> None:
        order = self._order
        self._share = order.share(self._epoch)
        self._pool: list[tuple[int, int]] = []  # (shard, row) of what is open and not drawn yet
        self._left: dict[int, int] = {}  # rows that are left, by shard
        self._opened = 0
        low, high = order.bounds(self._epoch)
        place = (order.source, self._epoch, order.stream)
        self._uniform = iter(generator(order.seed, DRAW, *place).random(high - low).tolist())
        while len(self._left) < min(order.open_shards, len(self._share)):
            self._open()

    def _open(self) -> None:
        if self._opened < len(self._share):
            shard = self._share[self._opened]
            self._pool += [(self._opened, row) for row in range(shard.start, shard.stop)]
            self._left[self._opened] = len(shard)
            self._opened += 1

    def _draw(self) -> tuple[int, int]:
        index = int(next(self._uniform) * len(self._pool))
        drawn = self._pool[index]
        self._pool[index] = self._pool[-1]
        self._pool.pop()
        self._left[drawn[0]] -= 1
        if not self._left[drawn[0]]:
            del self._left[drawn[0]]
            self._open()
        return drawn

    def __next__(self) -> Draw:
        while not self._pool:
            self._epoch += 1
            self._begin()
        shard, row = self._draw()
        return Draw(self._epoch, shard, self._share[shard].episode, row)

    @property
    def epoch(self) -> int:
        """The epoch of the sample drawn last."""
        return self._epoch

    def open(self) -> set[int]:
        """Shards of this epoch that have rows left."""
        return set(self._left)

    def remaining(self, shard: int) -> list[int]:
        """Rows of an open shard that are still to come, ascending."""
        return sorted(row for number, row in self._pool if number == shard)


def mixture_counts(block: int, weights: Sequence[float], seed: int, stream: int) -> list[int]:
    """How often each source is drawn in a block of the mixture."""
    return np.bincount(_block(block, weights, seed, stream), minlength=len(weights)).tolist()


def mixture(
    position: int, weights: Sequence[float], seed: int, stream: int
) -> tuple[list[int], Iterator[int]]:
    """The sources of a stream's samples from ``position`` on, by their weights.

    Returns:
        How many samples each source gave before, and the source of each sample from there on, without end.
        In every block of ``MIXTURE_BLOCK`` samples the share of a source is its weight's to within one
        sample.
    """
    block, inside = divmod(position, MIXTURE_BLOCK)
    before = [0] * len(weights)
    for number in range(block):
        before = [a + b for a, b in zip(before, mixture_counts(number, weights, seed, stream), strict=True)]
    first = _block(block, weights, seed, stream)
    for source in first[:inside]:
        before[source] += 1
    return before, _sources(first[inside:], block + 1, weights, seed, stream)


def _sources(first: list[int], block: int, weights: Sequence[float], seed: int, stream: int) -> Iterator[int]:
    yield from first
    while True:
        yield from _block(block, weights, seed, stream)
        block += 1


def _block(block: int, weights: Sequence[float], seed: int, stream: int) -> list[int]:
    """Systematic sampling: a comb with a random offset over the weights laid end to end, then shuffled."""
    if len(weights) == 1:
        return [0] * MIXTURE_BLOCK
    rng = generator(seed, MIXTURE, stream, block)
    ends = np.cumsum(np.asarray(weights, np.float64) / np.sum(weights))
    teeth = (np.arange(MIXTURE_BLOCK) + rng.random()) / MIXTURE_BLOCK
    sources = np.minimum(np.searchsorted(ends, teeth, side="right"), len(weights) - 1)
    return rng.permutation(sources).tolist()
