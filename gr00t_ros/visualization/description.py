# SPDX-License-Identifier: Apache-2.0
"""A URDF file as other programs are to find it on ``/robot_description``."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from gr00t_ros.urdf import UrdfError, read_root


def read_description(path: str | Path) -> str:
    """The URDF at ``path``, with meshes that it names relative to itself as ``file://`` addresses: whoever
    hears it on a topic cannot know where the file lies.

    Raises UrdfError when it cannot be read.
    """
    file = Path(path).expanduser()
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UrdfError(f"{file}: cannot be read ({error}), expected a URDF file") from error
    root = read_root(text, str(file))
    for mesh in root.iter("mesh"):
        name = mesh.get("filename", "")
        if name and "://" not in name:
            mesh.set("filename", (file.parent / name).resolve().as_uri())
    return ElementTree.tostring(root, encoding="unicode")
