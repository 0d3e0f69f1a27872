# SPDX-License-Identifier: Apache-2.0
"""What a TensorRT engine leaves in the checkpoint, read from there when it is needed."""

from pathlib import Path

import torch
from torch import Tensor

from gr00t_model.checkpoint import locate_weights, put_tensor, untrained_embodiment
from gr00t_model.errors import CheckpointError
from gr00t_model.tensor_files import read_rows, read_tensor

_TABLE = "backbone.model.language_model.model.embed_tokens.weight"
_OWN_WEIGHTS = tuple(f"action_head.{name}." for name in ("state_encoder", "action_encoder", "action_decoder"))


class WordEmbeddings:
    """Rows of the checkpoint's token embedding table, read when a word is first used: a robot uses a few
    hundred of 150,000."""

    def __init__(self, checkpoint: Path) -> None:
        self._model, self._entries = locate_weights(checkpoint)
        self._rows: dict[int, Tensor] = {}

    @property
    def width(self) -> int:
        """Of an embedding."""
        return self._entries[_TABLE][1].shape[1]

    def rows(self, ids: Tensor) -> Tensor:
        """Embeddings [T, width] of ids int64 [T], in the stored type.

        Raises:
            CheckpointError: the checkpoint's file can no longer be read.
        """
        wanted = ids.tolist()
        new = sorted(set(wanted) - self._rows.keys())
        if new:
            path, entry = self._entries[_TABLE]
            try:
                with path.open("rb") as file:
                    self._rows.update(zip(new, read_rows(file, entry, new), strict=True))
            except OSError as error:
                raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
        return torch.stack([self._rows[word] for word in wanted])

    def untrained(self, embodiment_id: int) -> bool:
        """`checkpoint.untrained_embodiment`, reading only the weights that it looks at."""
        names = [name for name in self._entries if name.startswith(_OWN_WEIGHTS)]
        try:
            for name in names:
                path, entry = self._entries[name]
                with path.open("rb") as file:
                    put_tensor(self._model, name, read_tensor(file, entry))
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
        found = untrained_embodiment(self._model, embodiment_id)
        for name in names:
            put_tensor(self._model, name, torch.empty(self._entries[name][1].shape, device="meta"))
        return found
