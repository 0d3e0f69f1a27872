# SPDX-License-Identifier: Apache-2.0
"""Golden pre- and post-processing data, read from wherever it lies.

The full set lies beside the repository where its maintainers have it; a trimmed copy is part of the
repository. The trimmed one stores camera images as PNG, expected images as SHA-256, and no padding. Tests run
on both where both exist.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
FULL = ROOT.parent / "shared" / "reference" / "processor"
TRIMMED = ROOT / "test" / "data" / "reference" / "processor"
TOKENIZER_FILES = ROOT.parent / "shared" / "reference" / "eagle_tokenizer"


@dataclass(frozen=True)
class GoldenCase:
    """One case: processor arguments, inputs and expected outputs."""

    path: Path
    meta: dict[str, Any]
    arrays: dict[str, np.ndarray]

    def __str__(self) -> str:
        return f"{'full' if self.path.parent == FULL else 'trimmed'}-{self.path.name}"

    @property
    def tag(self) -> str:
        return str(self.meta["embodiment_tag"])

    @property
    def kwargs(self) -> dict[str, Any]:
        apart = ("modality_configs", "statistics", "embodiment_id_mapping")
        return {key: value for key, value in self.meta["processor_kwargs"].items() if key not in apart}

    @property
    def modality(self) -> dict[str, Any]:
        modality: dict[str, Any] = self.meta["processor_kwargs"]["modality_configs"][self.tag]
        return modality

    @property
    def statistics(self) -> dict[str, Any] | None:
        return self.meta["processor_kwargs"].get("statistics")

    @property
    def variants(self) -> list[str]:
        return list(self.meta["letterbox_variants"])

    @property
    def batch(self) -> int:
        return len(self.meta["samples"])

    def image(self, sample: int, view: str) -> np.ndarray:
        key = f"in.{sample}.image.{view}.0"
        if key in self.arrays:
            return self.arrays[key]
        return cv2.imdecode(self.arrays[f"{key}.png"], cv2.IMREAD_COLOR)[..., ::-1]

    def group(self, kind: str) -> dict[str, np.ndarray]:
        """State or action groups {key: [B, T, D]}."""
        keys = self.modality[kind]["modality_keys"]
        return {
            key: np.stack([self.arrays[f"in.{b}.{kind}.{key}"] for b in range(self.batch)]) for key in keys
        }

    @property
    def video(self) -> dict[str, np.ndarray]:
        keys = self.modality["video"]["modality_keys"]
        return {key: np.stack([self.image(b, key) for b in range(self.batch)])[:, None] for key in keys}

    @property
    def language(self) -> dict[str, list[list[str]]]:
        key = self.modality["language"]["modality_keys"][0]
        return {key: [[sample["text"]] for sample in self.meta["samples"]]}

    def knows_bits(self, key: str) -> bool:
        return key in self.arrays or key in self.meta.get("sha256", {})

    def has_bits(self, key: str, found: np.ndarray) -> bool:
        """Whether an image equals the expected one bit for bit."""
        if key in self.arrays:
            expected = self.arrays[key]
            return found.dtype == expected.dtype and np.array_equal(found, expected)
        return bool(
            hashlib.sha256(np.ascontiguousarray(found).tobytes()).hexdigest() == self.meta["sha256"][key]
        )

    def padded(self, key: str, shape: tuple[int, ...]) -> np.ndarray:
        """An expected array, zeros restored."""
        if key in self.arrays:
            return self.arrays[key]
        corner = self.arrays[f"{key}.corner"]
        full = np.zeros(shape)
        full[:, : corner.shape[1], : corner.shape[2]] = corner
        return full


@lru_cache
def golden_cases() -> tuple[GoldenCase, ...]:
    return tuple(
        GoldenCase(
            path, json.loads(path.with_suffix(".json").read_text(encoding="utf-8")), dict(np.load(path))
        )
        for directory in (FULL, TRIMMED)
        for path in sorted(directory.glob("*.npz"))
    )


def text_tables() -> list[dict[str, Any]]:
    """The tables of texts, token ids and image geometry, one a place."""
    paths = [directory / "text_and_geometry.json" for directory in (FULL, TRIMMED)]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.is_file()]
