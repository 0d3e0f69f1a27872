# SPDX-License-Identifier: Apache-2.0
"""A real RViz off screen: ROS 2 messages in, a picture out; and what is to be found in such a picture.

RViz is Debian's 1.14 (packages in docs/how-to/see.md), since RViz 2 comes with ROS 2
installations only. It knows the same messages; ``rviz_stage.py`` gives them to it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

PROGRAMS = ("rviz", "rosmaster", "Xvfb", "import")
MISSING = [program for program in PROGRAMS if shutil.which(program) is None]
WIDTH, HEIGHT = 1000, 760
# RViz draws in software here: so long until it has loaded everything, and so often it is looked at, s.
TIMEOUT_S, LOOK_S = 90.0, 1.0
_BACKGROUND = (40, 44, 52)
# What the legend of docs/how-to/see.md names, as hue from and to (OpenCV, of 180), least saturation and
# value, and how many pixels of it there are at least.
PARTS = {
    "early steps": (5, 22, 90, 150, 60),
    "late steps": (135, 172, 90, 110, 200),
    "committed plan": (85, 97, 110, 150, 100),
    "executed path": (50, 75, 110, 150, 100),
    "limit": (0, 4, 170, 150, 100),
    "ghost": (100, 112, 70, 60, 1500),
    "white cubes and text": (0, 180, 0, 235, 800),
}


def fields(message: Any) -> Any:
    """A ROS 2 message as nested mappings."""
    if hasattr(message, "get_fields_and_field_types"):
        return {name: fields(getattr(message, name)) for name in message.get_fields_and_field_types()}
    if isinstance(message, (str, bytes, bool, int, float)):
        return message if not isinstance(message, bytes) else list(message)
    return [fields(one) for one in message]


def not_seen(picture: np.ndarray) -> list[str]:
    """What of ``PARTS`` a picture [H, W, 3] (BGR) lacks."""
    hue, saturation, value = cv2.split(cv2.cvtColor(picture, cv2.COLOR_BGR2HSV).astype(np.int32))
    missing = []
    for name, (low, high, least_saturation, least_value, pixels) in PARTS.items():
        found = (hue >= low) & (hue <= high) & (saturation >= least_saturation) & (value >= least_value)
        if name.startswith("white"):
            found &= saturation < 20
        if found.sum() < pixels:
            missing.append(f"{name} ({found.sum()} pixels of {pixels})")
    return missing


def rviz_picture(folder: Path, stage: Mapping[str, Any], view: Mapping[str, Any], *more: str) -> np.ndarray:
    """What RViz shows [H, W, 3] (BGR) of ``stage`` (see ``rviz_stage.py``), as soon as nothing is missing in
    it, at the latest after ``TIMEOUT_S``. ``view``: of RViz's orbit, Distance, Focal Point, Pitch, Yaw."""
    (folder / "stage.json").write_text(json.dumps(stage))
    (folder / "view.rviz").write_text(yaml.safe_dump(_configuration(view)))
    shot, deadline = folder / "shot.png", time.monotonic() + TIMEOUT_S
    with _programs(folder):
        while True:
            time.sleep(LOOK_S)
            taken = subprocess.run(["import", "-window", "root", str(shot)], env=_environment(), check=False)
            picture = cv2.imread(str(shot)) if taken.returncode == 0 else None
            over = time.monotonic() > deadline
            if picture is not None and (over or not not_seen(_cut(picture))):
                return _cut(picture)
            assert not over, (folder / "rviz.log").read_text()


def _cut(picture: np.ndarray) -> np.ndarray:
    """The view without RViz's frame around it, which is of another colour."""
    inside = np.abs(picture.astype(int) - _BACKGROUND[::-1]).max(axis=2) < 3
    rows, columns = np.flatnonzero(inside.mean(axis=1) > 0.2), np.flatnonzero(inside.mean(axis=0) > 0.2)
    if not len(rows) or not len(columns):
        return picture
    return picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


_PORT = 0
_DISPLAY = f":{70 + os.getpid() % 900}"


def _environment() -> dict[str, str]:
    """Without ROS 2's variables: it is another ROS."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return kept | {
        "ROS_MASTER_URI": f"http://localhost:{_PORT}",
        "ROS_HOSTNAME": "localhost",
        "DISPLAY": _DISPLAY,
        "LIBGL_ALWAYS_SOFTWARE": "1",
        "QT_X11_NO_MITSHM": "1",
    }


@contextlib.contextmanager
def _programs(folder: Path) -> Iterator[None]:
    global _PORT
    with socket.socket() as free:
        free.bind(("localhost", 0))
        _PORT = free.getsockname()[1]
    stage = [str(Path(__file__).with_name("rviz_stage.py")), str(folder / "stage.json")]
    commands = {
        "xvfb": ["Xvfb", _DISPLAY, "-screen", "0", f"{WIDTH}x{HEIGHT}x24"],
        "rosmaster": ["rosmaster", "--core", "-p", str(_PORT)],
        "stage": ["/usr/bin/python3", *stage],
        "rviz": ["rviz", "-d", str(folder / "view.rviz")],
    }
    environment = _environment() | {"ROS_LOG_DIR": str(folder)}
    with contextlib.ExitStack() as stack:
        for name, command in commands.items():
            if name == "stage":
                _wait_for_master()
            log = stack.enter_context((folder / f"{name}.log").open("w"))
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
            stack.callback(_end, process)
        yield


def _wait_for_master() -> None:
    end = time.monotonic() + TIMEOUT_S
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("localhost", _PORT), 1.0):
            return
        assert time.monotonic() < end, "rosmaster does not answer"
        time.sleep(0.1)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(5.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _configuration(view: Mapping[str, Any]) -> dict[str, Any]:
    grid = {"Class": "rviz/Grid", "Cell Size": 0.1, "Plane Cell Count": 20, "Color": "120; 120; 120"}
    displays = [
        grid | {"Name": "Grid", "Alpha": 0.4},
        {"Class": "rviz/RobotModel", "Name": "Robot", "Robot Description": "robot_description"},
        {"Class": "rviz/MarkerArray", "Name": "Policy", "Marker Topic": "/gr00t/markers"},
        {"Class": "rviz/Path", "Name": "Way", "Topic": "/gr00t/executed_path", "Line Style": "Billboards",
         "Line Width": 0.004, "Color": "90; 217; 90"},
    ]  # fmt: skip
    orbit = {"Class": "rviz/Orbit", "Name": "Current View", "Target Frame": "<Fixed Frame>"}
    hidden = {"Hide Left Dock": True, "Hide Right Dock": True}
    return {
        "Panels": [],
        "Visualization Manager": {
            "Class": "",
            "Displays": [{"Enabled": True} | display for display in displays],
            "Enabled": True,
            "Global Options": {
                "Background Color": "; ".join(map(str, _BACKGROUND)),
                "Fixed Frame": "base_link",
                "Frame Rate": 10,
            },
            "Tools": [{"Class": "rviz/MoveCamera"}],
            "Value": True,
            "Views": {"Current": {**orbit, **view}},
        },
        "Window Geometry": {"Width": WIDTH, "Height": HEIGHT, **hidden},
    }
