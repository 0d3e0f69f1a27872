# SPDX-License-Identifier: Apache-2.0
"""Training samples without end, in a seeded order, from any batch on.

The order is a pure function of (seed, rank, world_size, lanes, position), see ``order.py``. A *lane* is a
stream of batches of its own, with its own few shards open; batch b of a rank comes from lane b mod lanes.
There are as many lanes as loader workers, unless told otherwise, and each worker serves its own: so no frame
is decoded twice, and the order does not depend on which worker is the faster one. A run that is resumed with
another number of workers keeps its order when it keeps its number of lanes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from gr00t_model.errors import Gr00tError
from gr00t_model.processing import Gr00tProcessor
from gr00t_ros.errors import DatasetError, Gr00tRosError
from gr00t_ros.training.collate import collate
from gr00t_ros.training.dataset_statistics import training_statistics
from gr00t_ros.training.order import AUGMENTATION, Draw, Drawing, StreamOrder, cut, generator, mixture
from gr00t_ros.training.samples import (
    KEPT_EPISODES,
    DatasetSource,
    LoadedShard,
    OpenSource,
    encode,
    load_shard,
)

__all__ = ["DatasetSource", "SampleStream", "collate", "training_statistics"]

# 64 rows are 2 to 3 seconds of a recording. Reaching a shard costs decoding from the key frame before it, up
# to 250 frames in files of common encoders, which longer shards share among more rows.
DEFAULT_SHARD_ROWS = 64
# Samples are drawn from this many places at a time: 512 rows, eight batches of 64. Frames of one camera at
# 256 x 256 take 100 MB for that. Where episodes are shorter than a shard, each in a scene of its own, that is
# few scenes for many batches: a network without pretraining then learns those instead of how to see, and
# needs 100 and more.
DEFAULT_OPEN_SHARDS = 8


class Failure:
    """What a worker sends in place of a batch that it could not make; the loader raises it."""

    def __init__(self, text: str) -> None:
        self.text = text


class SampleStream(IterableDataset[dict[str, Any]]):
    """Encoded samples of one rank: ``processor.encode_training``, batch 1, pixels uint8.

    Each ``batch_size`` samples belong together and come from one lane; give the same number to the loader.
    ``loader.training_loader`` does.

    Memory of a lane: frames of at most ``open_shards`` + number of sources shards of ``shard_rows`` rows
    (and as many rows of the past as a window reaches back), of every camera, as the first image step leaves
    them: 196 608 bytes a frame at 256 x 256. With the defaults 113 MB a camera.

    Args:
        processor: with statistics of every source's tag.
        batch_size: samples of a batch, on this rank.
        rank, world_size: which of how many processes that train together.
        start_batch: the first batch to give, where a run goes on. Nothing of what came before is decoded.
        train: False gives the images of evaluation instead of augmented ones.
        shard_rows: rows that are decoded in one go.
        open_shards: how many shards are drawn from at a time; sources of a mixture share them by weight.
        lanes: None means the number of loader workers.

    Raises:
        DatasetError: a source cannot be read or does not fit the processor.
        EmbodimentError: the processor lacks a tag or its statistics.
        ValueError: a number is out of range.
    """

    def __init__(
        self,
        sources: Sequence[DatasetSource],
        processor: Gr00tProcessor,
        *,
        seed: int,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        start_batch: int = 0,
        train: bool = True,
        shard_rows: int = DEFAULT_SHARD_ROWS,
        open_shards: int = DEFAULT_OPEN_SHARDS,
        lanes: int | None = None,
    ) -> None:
        super().__init__()
        if not sources:
            raise DatasetError("no dataset is given; training needs one at least")
        for name, value, least in (
            ("seed", seed, 0),
            ("batch_size", batch_size, 1),
            ("start_batch", start_batch, 0),
            ("shard_rows", shard_rows, 1),
            ("open_shards", open_shards, 1),
            ("lanes", 1 if lanes is None else lanes, 1),
        ):
            if value < least:
                raise ValueError(f"{name} is {value}, expected at least {least}")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank is {rank}, expected 0 to {world_size - 1}")
        self.processor = processor
        self.batch_size = batch_size
        self.start_batch = start_batch
        self.lanes = lanes
        self._seed, self._rank, self._world_size = seed, rank, world_size
        self.train = train
        self._open_shards = open_shards
        self.sources = [
            OpenSource(
                source,
                processor.modality(source.tag),
                state_widths=processor.state_widths(source.tag),
                action_widths=processor.action_widths(source.tag),
                # A worker can have several lanes, each with its own open shards.
                kept_episodes=max(KEPT_EPISODES, open_shards * (lanes or 1) + 1),
            )
            for source in sources
        ]
        self._shards = [cut(source.rows(), shard_rows) for source in self.sources]

    @property
    def rows(self) -> list[int]:
        """Samples of an epoch of each source, over all ranks."""
        return [sum(map(len, shards)) for shards in self._shards]

    @property
    def weights(self) -> list[float]:
        """Share of the samples that each source gives; they add up to one."""
        given = [source.source.weight for source in self.sources]
        return [weight / sum(given) for weight in given]

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        if worker is None:
            yield from self._samples(0, 1)
            return
        try:
            yield from self._samples(worker.id, worker.num_workers)
        except (Gr00tRosError, Gr00tError, OSError) as error:
            yield Failure(str(error))

    def _samples(self, worker: int, workers: int) -> Iterator[dict[str, Any]]:
        lanes = self.lanes or workers
        opened: dict[int, _Lane] = {}
        for batch in count(self.start_batch + worker, workers):
            position = batch // lanes * self.batch_size
            lane = opened.get(batch % lanes)
            if lane is None:
                lane = opened[batch % lanes] = self._lane(batch % lanes, lanes, position)
            lane.skip_to(position)
            for _ in range(self.batch_size):
                yield lane.next()

    def _lane(self, lane: int, lanes: int, position: int) -> _Lane:
        stream, streams = self._rank * lanes + lane, self._world_size * lanes
        orders = [
            StreamOrder(
                shards, self._seed, number, stream, streams, max(1, round(self._open_shards * weight))
            )
            for number, (shards, weight) in enumerate(zip(self._shards, self.weights, strict=True))
        ]
        return _Lane(self, orders, position)


class _Lane:
    """One lane at a position: what is open, and what comes next."""

    def __init__(self, stream: SampleStream, orders: Sequence[StreamOrder], position: int) -> None:
        self._stream = stream
        self._seed, self._number = orders[0].seed, orders[0].stream
        self._position = position
        before, self._choices = mixture(position, stream.weights, self._seed, self._number)
        self._drawings: list[Drawing] = [
            order.samples(drawn) for order, drawn in zip(orders, before, strict=True)
        ]
        self._loaded: list[dict[tuple[int, int], LoadedShard]] = [{} for _ in orders]

    def skip_to(self, position: int) -> None:
        """Leaves out what comes before ``position``: batches that other workers make."""
        while self._position < position:
            next(self._drawings[next(self._choices)])
            self._position += 1

    def next(self) -> dict[str, Any]:
        """The next sample."""
        number = next(self._choices)
        draw = next(self._drawings[number])
        source, processor = self._stream.sources[number], self._stream.processor
        rng = (
            generator(self._seed, AUGMENTATION, self._number, self._position) if self._stream.train else None
        )
        self._position += 1
        return encode(source, processor, self._shard(number, draw), draw.episode, draw.row, rng)

    def _shard(self, number: int, draw: Draw) -> LoadedShard:
        """The frames of a sample's shard, decoded when the first of them is needed and let go when others
        take their place."""
        loaded, drawing = self._loaded[number], self._drawings[number]
        key = (draw.epoch, draw.shard)
        if key not in loaded:
            for old in loaded.keys() - {(draw.epoch, shard) for shard in drawing.open()}:
                del loaded[old]
            rows = [draw.row, *drawing.remaining(draw.shard)]
            loaded[key] = load_shard(self._stream.sources[number], self._stream.processor, draw.episode, rows)
        return loaded[key]
