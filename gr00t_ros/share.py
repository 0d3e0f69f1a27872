# SPDX-License-Identifier: Apache-2.0
"""Where this package's own files lie: launch files, configurations, messages.

Configuration belongs to the code that reads it, so where the running code is a source tree, its own files
are used. Otherwise the package is installed: a ROS installation's ament index knows where, and without ROS
it is the Python environment's prefix.
"""

import sys
from pathlib import Path

from gr00t_ros.errors import Gr00tRosError, RobotConfigError

PACKAGE = "gr00t_ros"


def prefix() -> Path | None:
    """The installation prefix of the package, or None when it is not installed."""
    try:
        from ament_index_python.packages import PackageNotFoundError, get_package_prefix
    except ImportError:
        pass
    else:
        try:
            return Path(get_package_prefix(PACKAGE))
        except (PackageNotFoundError, OSError):  # OSError: no AMENT_PREFIX_PATH, as with ROS 2 from PyPI
            pass
    installed = Path(sys.prefix)
    return installed if (installed / "share" / PACKAGE / "package.xml").is_file() else None


def share_directory() -> Path:
    """The folder that holds ``config/`` and ``launch/``.

    Raises:
        Gr00tRosError: the package runs from neither a source tree nor an installation.
    """
    source = Path(__file__).resolve().parent.parent
    if (source / "package.xml").is_file():
        return source
    installed = prefix()
    if installed is None:
        raise Gr00tRosError(
            f"the shared files of {PACKAGE} are not installed; install the package with pip or colcon"
        )
    return installed / "share" / PACKAGE


def config_file(name: str) -> Path:
    """A file below ``config/``; the caller names one that the package ships."""
    return share_directory() / "config" / name


def robot_names() -> list[str]:
    """The robots that the package ships a description of."""
    return sorted(path.stem for path in config_file("robots").glob("*.yaml"))


def robot_file(name_or_path: str) -> Path:
    """A robot description: the name of a shipped one, or the path of a YAML file.

    Raises:
        RobotConfigError: neither; the message lists the shipped names.
    """
    path = Path(name_or_path).expanduser()
    if path.suffix in (".yaml", ".yml"):
        if path.is_file():
            return path.resolve()
        raise RobotConfigError(f"robot file {name_or_path!r} does not exist")
    shipped = config_file(f"robots/{name_or_path}.yaml")
    if shipped.is_file():
        return shipped
    raise RobotConfigError(
        f"robot {name_or_path!r} is neither a YAML file nor one of the shipped robots "
        f"({', '.join(robot_names())})"
    )
