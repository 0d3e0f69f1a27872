# SPDX-License-Identifier: Apache-2.0
"""The JSON files of a processor, read and written with errors that name them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gr00t_model.errors import CheckpointError, ConfigError


def read_json(path: Path, optional: bool = False) -> dict[str, Any]:
    """A JSON object; an empty one where the file is missing and ``optional``. Raises CheckpointError."""
    if optional and not path.is_file():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing; a checkpoint needs it to prepare observations") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not readable JSON ({error})") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found {type(data).__name__}")
    return data


def write_json(path: Path, data: Any) -> None:
    """Writes plain values; raises ConfigError for a number that JSON cannot hold, with nothing written."""
    try:
        text = json.dumps(data, indent=2, allow_nan=False)
    except ValueError as error:
        raise ConfigError(f"{path}: not written, expected finite numbers ({error})") from None
    path.write_text(text + "\n", encoding="utf-8")
