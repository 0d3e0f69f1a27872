# SPDX-License-Identifier: Apache-2.0
"""Writes the constraints from the environment that runs it: ``make constraints``, after versions were tested.

``constraints.txt`` gets what both ROS 2 distributions share, ``constraints-<distro>.txt`` the wheels of one.
Local version tags (``+cpu``) are cut off, because they name a build that other machines may not have.
"""

import sys
from importlib.metadata import distributions
from pathlib import Path

HERE = Path(__file__).resolve().parent
NOT_PINNED = {"pip", "gr00t-ros"}


def pins() -> dict[str, str]:
    """Name -> version of everything that pip installed here (not ROS 2's extra egg-infos)."""
    found = {}
    for distribution in distributions():
        name = (distribution.metadata["Name"] or "").lower().replace("_", "-").replace(".", "-")
        if name and name not in NOT_PINNED and distribution.read_text("WHEEL") is not None:
            found[name] = distribution.version.split("+")[0]
    return dict(sorted(found.items()))


def main() -> int:
    """Writes the files of the distribution named on the command line; Jazzy's environment is the full one."""
    distro = sys.argv[1]
    ros = {name: version for name, version in pins().items() if name.startswith("ros-")}
    common = {name: version for name, version in pins().items() if name not in ros}
    for path, head, chosen in (
        (HERE / "constraints.txt", "Exact versions that were tested together, on Python 3.11", common),
        (HERE / f"constraints-{distro}.txt", f"ROS 2 {distro.capitalize()} from PyPI, as tested", ros),
    ):
        lines = [f"# {head}. Written by requirements/freeze.py.", *(f"{n}=={v}" for n, v in chosen.items())]
        if path.name == "constraints.txt" and distro != "jazzy":
            continue
        path.write_text("\n".join(lines) + "\n")
        print(f"{path}: {len(chosen)} pins")
    return 0


if __name__ == "__main__":
    sys.exit(main())
