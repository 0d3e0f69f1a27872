# SPDX-License-Identifier: Apache-2.0
"""Writes the constraints from the environment that runs it: ``make constraints``, after versions were tested.

``constraints.txt`` gets what both ROS 2 distributions share, ``constraints-<distro>.txt`` the wheels of one.
Only what the package and its tools need is pinned, whatever else lies in the environment. Local version tags
(``+cpu``) are cut off, because they name a build that other machines may not have.
"""

import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

HERE = Path(__file__).resolve().parent
EXTRAS = "gr00t_ros[demo,tensorrt,test,train]"
# Installed without what they ask for.
ALONE = ("nvidia-modelopt",)


def wanted(distro: str) -> list[Requirement]:
    """What the Makefile asks pip for."""
    files = [HERE / name for name in ("build.txt", "modelopt.txt", "deepspeed.txt", f"ros-{distro}.txt")]
    lines = [line for path in files for line in path.read_text().splitlines()]
    return [Requirement(line) for line in [EXTRAS, *ALONE, *lines] if line and not line.startswith("#")]


def pins(distro: str) -> dict[str, str]:
    """Name -> installed version of everything wanted and all that it needs in turn."""
    found: dict[str, str] = {}
    seen: set[str] = set()
    queue = wanted(distro)
    while queue:
        requirement = queue.pop()
        if str(requirement) in seen:
            continue
        seen.add(str(requirement))
        try:
            installed = distribution(requirement.name)
        except PackageNotFoundError:
            continue  # optional, or for another platform
        name = installed.metadata["Name"].lower().replace("_", "-").replace(".", "-")
        found[name] = installed.version.split("+")[0]
        for line in () if name in ALONE else installed.requires or ():
            need = Requirement(line)
            if need.marker is None or any(
                need.marker.evaluate({"extra": extra}) for extra in {"", *requirement.extras}
            ):
                queue.append(need)
    found.pop("gr00t-ros", None)
    return dict(sorted(found.items()))


def main() -> int:
    """Writes the files of the distribution named on the command line; Jazzy's environment is the full one."""
    distro = sys.argv[1]
    chosen = pins(distro)
    ros = {name: version for name, version in chosen.items() if name.startswith("ros-")}
    common = {name: version for name, version in chosen.items() if name not in ros}
    for path, head, part in (
        (HERE / "constraints.txt", "Exact versions that were tested together, on Python 3.11", common),
        (HERE / f"constraints-{distro}.txt", f"ROS 2 {distro.capitalize()} from PyPI, as tested", ros),
    ):
        if path.name == "constraints.txt" and distro != "jazzy":
            continue
        lines = [f"# {head}. Written by requirements/freeze.py.", *(f"{n}=={v}" for n, v in part.items())]
        path.write_text("\n".join(lines) + "\n")
        print(f"{path.name}: {len(part)} pins")
    return 0


if __name__ == "__main__":
    sys.exit(main())
