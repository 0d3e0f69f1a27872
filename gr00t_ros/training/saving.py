# SPDX-License-Identifier: Apache-2.0
"""The folder of a run, and the checkpoints in it that a run is gone on from.

    OUTPUT/run.json             what decides the run's numbers
    OUTPUT/checkpoint-500/      a whole checkpoint, as the policy loads it, and what training goes on from
    OUTPUT/checkpoint.partial/  one that is being written, or was when the process was killed
    OUTPUT/checkpoint-900.aside/  one that is later than what the run was gone on from
    OUTPUT/config.json ...      the finished checkpoint, the same files as in the last folder

A checkpoint folder gets its name when everything in it is on the disk, and holds a list of its files with
their sizes; so neither a killed process nor a copy that was cut short leaves one that looks whole.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gr00t_model.tensor_files import CONFIG_FILE
from gr00t_ros.data.whole_files import write_json
from gr00t_ros.training.options import TrainingError

RUN_FILE = "run.json"
CONTENTS_FILE = "contents.json"
PARTIAL = "checkpoint.partial"
# What a name in run.json ends in whose value is a hash, of which only that it differs is worth saying.
CONTENTS = "contents"
TRAINED_FILE = "trained.safetensors"
STATE_FILE = "trainer_state.json"
_NAME = re.compile(r"checkpoint-(\d+)")
# A checkpoint whose step is written a second time, one that is being removed, and one that is later than what
# was gone on from.
_OLD, _GONE, _ASIDE = ".old", ".gone", ".aside"
# Left beside the files of a run by tools that only look.
_IGNORED = {".DS_Store", "runs", "wandb", PARTIAL}
# A checkpoint is written before the oldest is removed.
_IN_PASSING = 1
# What only training needs; the rest of a checkpoint folder is what a policy loads.
_TRAINING_ONLY = re.compile(
    r"(optimizer|scheduler|rng_state|training_args|trainer_state|trained|contents|scaler|latest|zero_to_fp32|"
    r"global_step).*"
)


def checkpoint_steps(output: Path) -> list[int]:
    """Steps of the checkpoints in a run's folder, whole or not, ascending."""
    if not output.is_dir():
        return []
    found = (_NAME.fullmatch(path.name) for path in output.iterdir() if path.is_dir())
    return sorted(int(match[1]) for match in found if match)


def folder(output: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return output / f"checkpoint-{step}"


def step_of(directory: Path) -> int:
    """The step at which a checkpoint was written. Raises TrainingError where its state cannot be read."""
    path = directory / STATE_FILE
    try:
        return int(json.loads(path.read_text(encoding="utf-8"))["global_step"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{path} cannot be read ({error}); go on from another checkpoint") from None


def damage(directory: Path) -> str:
    """What is wrong with a checkpoint folder, in words; empty where it is whole."""
    try:
        contents = json.loads((directory / CONTENTS_FILE).read_text(encoding="utf-8"))
        files = {str(name): int(size) for name, size in contents["files"].items()}
    except FileNotFoundError:
        return f"{directory / CONTENTS_FILE} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"{directory / CONTENTS_FILE} cannot be read"
    for name, size in files.items():
        path = directory / name
        if not path.is_file():
            return f"{path} is missing"
        if path.stat().st_size != size:
            return f"{path} has {path.stat().st_size} bytes instead of {size}"
    return ""


def find_checkpoint(output: Path, wanted: str) -> tuple[Path, list[str]]:
    """The checkpoint to go on from, and what is wrong with newer ones that were passed over.

    Args:
        wanted: "" for the newest whole one, else the name of one in ``output``, or a folder.

    Raises:
        TrainingError: there is none, or the one that was named is not whole or of another run.
    """
    if wanted:
        named = output / wanted if (output / wanted).is_dir() else Path(wanted)
        problem = damage(named) if named.is_dir() else f"{output / wanted} does not exist"
        if not problem and named.resolve().parent != output.resolve():
            problem = _strange(named.resolve().parent, output)
        if problem:
            raise TrainingError(f"cannot go on from {wanted}: {problem}")
        return named, []
    passed: list[str] = []
    for step in reversed(checkpoint_steps(output)):
        problem = damage(folder(output, step))
        if not problem:
            return folder(output, step), passed
        passed.append(problem)
    why = f" ({'; '.join(passed)})" if passed else ""
    raise TrainingError(f"{output} holds no whole checkpoint to go on from{why}; start without --resume")


def _strange(other: Path, output: Path) -> str:
    """What speaks against a checkpoint in the folder ``other``; empty where the same run was begun there."""
    try:
        left, right = (json.loads((path / RUN_FILE).read_text(encoding="utf-8")) for path in (other, output))
        same = left["deciding"] == right["deciding"]
    except (OSError, ValueError, KeyError, TypeError):
        return f"it is not in {output}, and no {RUN_FILE} beside it says of which run it is"
    return "" if same else f"it is of another run, see {other / RUN_FILE}"


def newest_whole(output: Path) -> Path | None:
    """The checkpoint that a run would be gone on from."""
    whole = (folder(output, step) for step in reversed(checkpoint_steps(output)))
    return next((path for path in whole if not damage(path)), None)


def set_aside(output: Path, step: int) -> list[Path]:
    """Take checkpoints later than ``step``, which the run goes on from, out of its way: it makes its own of
    their steps. What they are called now."""
    moved = []
    for later in (later for later in checkpoint_steps(output) if later > step):
        target = folder(output, later).with_suffix(_ASIDE)
        shutil.rmtree(target, ignore_errors=True)
        folder(output, later).rename(target)
        moved.append(target)
    return moved


def begin(output: Path, content: Mapping[str, Any]) -> None:
    """Make the folder of a new run, with ``content`` (``deciding`` and ``order``) written down.

    Raises:
        TrainingError: it holds something already.
    """
    if output.exists() and not output.is_dir():
        raise TrainingError(f"--output {output} is a file; give a folder that does not exist yet")
    present = sorted(path.name for path in output.iterdir()) if output.is_dir() else []
    if RUN_FILE in present and not checkpoint_steps(output) and set(present) <= {RUN_FILE, *_IGNORED}:
        present = []  # a run that was stopped before its first checkpoint left nothing to lose
    if present:
        what = "another run" if RUN_FILE in present else f"other files ({', '.join(present[:3])})"
        hint = "; --resume goes on with it" if checkpoint_steps(output) else ""
        raise TrainingError(f"--output {output} holds {what} already{hint}; choose another folder")
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / RUN_FILE, dict(content))


def go_on(output: Path, deciding: Mapping[str, Any]) -> Mapping[str, Any]:
    """Check that a run in this folder is the one that is to be gone on with; gives what was written down of
    the order of its samples.

    Raises:
        TrainingError: there is none, or something that decides its numbers differs.
    """
    path = output / RUN_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        before, order = dict(content["deciding"]), dict(content["order"])
    except FileNotFoundError:
        raise TrainingError(f"{path} is missing: there is no run to go on with; leave --resume out") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{path} cannot be read ({error})") from None
    differing = [
        f"{name} is another"
        if name.endswith(CONTENTS)
        else f"{name} was {before.get(name)!r} and is {deciding.get(name)!r}"
        for name in dict.fromkeys([*before, *deciding])
        if before.get(name) != deciding.get(name)
    ]
    if differing:
        raise TrainingError(
            f"this is not the run in {output}: {'; '.join(differing)}; repeat its options, or choose another "
            "--output"
        )
    return order


def publish(partial: Path, target: Path) -> None:
    """Give a finished checkpoint its name; a folder of that name is replaced."""
    files = [path for path in sorted(partial.rglob("*")) if path.is_file()]
    sizes = {path.relative_to(partial).as_posix(): path.stat().st_size for path in files}
    write_json(partial / CONTENTS_FILE, {"files": sizes})
    for path in (*files, partial / CONTENTS_FILE, partial):
        _to_disk(path)
    if target.exists():
        old = target.with_name(f".{target.name}{_OLD}")
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
        partial.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    else:
        partial.rename(target)
    _to_disk(target.parent)


def prune(output: Path, keep: int, newest: int) -> None:
    """Remove what is older than the newest ``keep`` checkpoints.

    Args:
        newest: step of the one that was written last. It stays, and so do the whole ones before it; damaged
            ones do not count.
    """
    before = [step for step in checkpoint_steps(output) if step < newest]
    whole = [step for step in before if not damage(folder(output, step))]
    kept = whole[len(whole) - min(keep - 1, len(whole)) :]
    for step in before:
        if step not in kept:
            doomed = output / f".checkpoint-{step}{_GONE}"
            folder(output, step).rename(doomed)  # one that is half removed must not look whole
            shutil.rmtree(doomed, ignore_errors=True)


def finish(checkpoint: Path, output: Path) -> None:
    """Put the deployable files of a checkpoint into the run's folder, by links where the disk has them;
    config.json last, without which nothing takes it for a checkpoint."""
    names = sorted(
        path.name
        for path in checkpoint.iterdir()
        if path.is_file() and not _TRAINING_ONLY.fullmatch(path.name)
    )
    (output / CONFIG_FILE).unlink(missing_ok=True)
    for name in sorted(names, key=lambda name: name == CONFIG_FILE):
        partial = output / f".{name}.partial"
        partial.unlink(missing_ok=True)
        try:
            os.link(checkpoint / name, partial)
        except OSError:
            shutil.copy2(checkpoint / name, partial)
        partial.replace(output / name)
    _to_disk(output)


def clear(output: Path) -> None:
    """Remove what a killed process left unfinished; a checkpoint that was about to be replaced gets its name
    back."""
    for old in output.glob(f".checkpoint-*{_OLD}"):
        name = output / old.name.removeprefix(".").removesuffix(_OLD)
        if not name.exists():
            old.rename(name)
    left = (path for ending in (_OLD, _GONE) for path in output.glob(f".checkpoint-*{ending}"))
    for path in (output / PARTIAL, *left):
        shutil.rmtree(path, ignore_errors=True)


def check_space(output: Path, bytes_each: int, keep: int, present: int = 0) -> None:
    """That the disk holds what the run will keep.

    Raises:
        TrainingError: it does not.
    """
    existing = output
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    count = max(0, keep + _IN_PASSING - present)
    needed = bytes_each * count
    if free < needed:
        raise TrainingError(
            f"{output}: {keep} checkpoints and one in passing take {needed / 1e9:.1f} GB "
            f"({bytes_each / 1e9:.1f} GB each), {free / 1e9:.1f} GB are free; make room, choose another "
            "disk, or keep fewer with --keep"
        )


def total_bytes(paths: Iterable[Path]) -> int:
    """Of all files below these folders."""
    return sum(file.stat().st_size for path in paths for file in path.rglob("*") if file.is_file())


def _to_disk(path: Path) -> None:
    """Until this returns, a power failure may lose what was written."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
