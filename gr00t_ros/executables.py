# SPDX-License-Identifier: Apache-2.0
"""Where programs are installed: those of this package, and those of others that it starts."""

import shutil
import sysconfig
from pathlib import Path

from gr00t_ros import share
from gr00t_ros.errors import Gr00tRosError


def find_executable(name: str) -> Path:
    """Where an executable of this package is installed.

    Raises:
        Gr00tRosError: it is not.
    """
    # First where `ros2 run` looks, then where pip puts scripts: colcon fills only the first.
    installed = share.prefix()
    places = [installed / "lib" / share.PACKAGE] if installed is not None else []
    places.append(Path(sysconfig.get_path("scripts")))
    for place in places:
        if (place / name).is_file():
            return place / name
    searched = " and ".join(str(place) for place in places)
    raise Gr00tRosError(
        f"executable {name!r} is not installed (looked in {searched}); build and install the package"
    )


def find_foreign(name: str, package: str) -> Path:
    """Where an executable of another ROS package, such as ``rviz2``, is found on PATH.

    Raises:
        Gr00tRosError: it is not.
    """
    found = shutil.which(name)
    if found is None:
        raise Gr00tRosError(
            f"{name} is not on PATH; it comes with a ROS 2 installation (package {package}) that was sourced"
        )
    return Path(found)
