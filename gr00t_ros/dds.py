# SPDX-License-Identifier: Apache-2.0
"""The Fast DDS profile for camera traffic, as environment variables for the programs that are started.

Fast DDS drops camera frames by default (``config/dds/fastdds.xml`` says why) and takes other settings from a
file that an environment variable names. Other middlewares do not read it. What a user has set up himself
always stands.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from gr00t_ros import share
from gr00t_ros.errors import Gr00tRosError

SHIPPED = "shipped"
# Fast DDS 2, which is in Humble and Jazzy, and Fast DDS 3, from Kilted on. Fast DDS 3 takes the older name as
# well, with a warning from every process.
_FAST_DDS_2, _FAST_DDS_3 = "FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"
# The other ways to choose transports. A profile would overrule them; with the last one, on Humble, it would
# open the network again.
_OTHER_WAYS = ("FASTDDS_BUILTIN_TRANSPORTS", "ROS_LOCALHOST_ONLY")


def environment(profile: str, present: Mapping[str, str]) -> dict[str, str]:
    """What to add to the environment ``present`` of a program with camera traffic.

    Args:
        profile: ``shipped``, an empty text for none, or the path of an XML file.
        present: the environment as it is. ``shipped`` adds nothing where it chooses transports already.

    Raises:
        Gr00tRosError: the file does not exist.
    """
    if not profile.strip():
        return {}
    if profile != SHIPPED:
        path = Path(profile).expanduser()
        if not path.is_file():
            raise Gr00tRosError(
                f"argument dds_profile: file {profile!r} does not exist, expected {SHIPPED}, the path of a "
                "Fast DDS profile, or an empty text for none"
            )
        return dict.fromkeys(_variables(present), str(path.resolve()))
    if any(present.get(name, "") not in ("", "0") for name in (_FAST_DDS_2, _FAST_DDS_3, *_OTHER_WAYS)):
        return {}
    return dict.fromkeys(_variables(present), str(share.config_file("dds/fastdds.xml")))


def _variables(present: Mapping[str, str]) -> tuple[str, ...]:
    """The variables that the installed Fast DDS reads, told by its library's name. One not found (another
    middleware, another place) may be either."""
    prefixes = [Path(sys.prefix)]
    prefixes += [Path(text) for text in present.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if text]
    for prefix in prefixes:
        for library, variable in (("libfastdds.so", _FAST_DDS_3), ("libfastrtps.so", _FAST_DDS_2)):
            if any((prefix / "lib").glob(library)) or any((prefix / "lib").glob(f"*/{library}")):
                return (variable,)
    return (_FAST_DDS_2, _FAST_DDS_3)
