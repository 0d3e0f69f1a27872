# SPDX-License-Identifier: Apache-2.0
"""Buffers between the CPU and an engine's device: many small tensors as one copy.

A chunk's inputs are a dozen tensors, and a copy costs microseconds whatever its size. Here they lie side by
side in one page-locked buffer, so that all of them go up in one asynchronous copy, to addresses that never
change: what a CUDA graph and TensorRT want.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

ALIGNMENT = 256
"""Bytes. TensorRT takes addresses that are multiples of this."""


class Staging:
    """Named tensors in one host buffer and one device buffer of the same layout, both zero at first.

    On the CPU the two are separate as well, so that what is not uploaded is missed there too.

    Args:
        fields: shape and type of each tensor, by name.
        device: where the second buffer lies.
        pinned: page-lock the host buffer; None does so for a CUDA device. Without it copies are synchronous.

    Attributes:
        host: the tensors on the CPU, to be filled, or read after `download`.
        device: the same on the device. Neither set of addresses ever changes.
    """

    host: dict[str, Tensor]
    device: dict[str, Tensor]

    def __init__(
        self,
        fields: Mapping[str, tuple[Sequence[int], torch.dtype]],
        device: torch.device | str,
        pinned: bool | None = None,
    ) -> None:
        where = torch.device(device)
        starts, size = {}, 0
        for name, (shape, dtype) in fields.items():
            starts[name] = size
            size += -(-math.prod(shape) * dtype.itemsize // ALIGNMENT) * ALIGNMENT
        pin = where.type == "cuda" if pinned is None else pinned
        self._host = torch.zeros(size, dtype=torch.uint8, pin_memory=pin)
        self._device = torch.zeros(size, dtype=torch.uint8, device=where)

        def views(buffer: Tensor) -> dict[str, Tensor]:
            return {
                name: buffer[starts[name] : starts[name] + math.prod(shape) * dtype.itemsize]
                .view(dtype)
                .view(tuple(shape))
                for name, (shape, dtype) in fields.items()
            }

        self.host, self.device = views(self._host), views(self._device)

    @property
    def nbytes(self) -> int:
        """Bytes of one of the two buffers."""
        return self._host.nbytes

    def fill(self, values: Mapping[str, Tensor]) -> None:
        """Put values into the host buffer, converted to the fields' types; what is not named stays.

        The upload before must be over: where it is asynchronous, wait for something that came after it.
        """
        for name, value in values.items():
            field = self.host[name]
            if value.shape != field.shape:
                raise ValueError(f"{name} has shape {list(value.shape)}, expected {list(field.shape)}")
            field.copy_(value)

    def upload(self, stream: "torch.cuda.Stream | None" = None) -> None:
        """Copy all of it to the device, ordered on `stream` or on the current one."""
        self._copy(self._device, self._host, stream)

    def download(self, stream: "torch.cuda.Stream | None" = None) -> None:
        """Copy all of it to the host. On CUDA the values are there once the stream is synchronised."""
        self._copy(self._host, self._device, stream)

    @staticmethod
    def _copy(target: Tensor, source: Tensor, stream: "torch.cuda.Stream | None") -> None:
        if stream is None:
            target.copy_(source, non_blocking=True)
        else:
            with torch.cuda.stream(stream):
                target.copy_(source, non_blocking=True)
