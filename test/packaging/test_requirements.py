# SPDX-License-Identifier: Apache-2.0
"""The lists of what to install agree: setup.py, a robot's list, package.xml and the exact pins of CI."""

import importlib.metadata
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
# What rosdep installs on a robot: name on PyPI -> rosdep key.
FROM_ROSDEP = {
    "numpy": "python3-numpy",
    "opencv-python-headless": "python3-opencv",
    "pillow": "python3-pil",
    "pyyaml": "python3-yaml",
    "tqdm": "python3-tqdm",
}


def listed(name: str) -> dict[str, Requirement]:
    lines = (ROOT / "requirements" / name).read_text().splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(requirement.name): requirement for requirement in found}


def declared() -> dict[str, Requirement]:
    """Every dependency of the installed distribution, extras included."""
    found = [Requirement(line) for line in importlib.metadata.requires("gr00t_ros") or []]
    return {canonicalize_name(requirement.name): requirement for requirement in found}


def test_a_robot_gets_every_dependency_from_pip_or_from_rosdep() -> None:
    robot = listed("robot.txt")
    rosdep = {element.text for element in ElementTree.parse(ROOT / "package.xml").getroot()}
    for name, requirement in declared().items():
        if requirement.marker is not None:
            continue
        if name in FROM_ROSDEP:
            assert FROM_ROSDEP[name] in rosdep, f"package.xml lacks {FROM_ROSDEP[name]}"
        else:
            assert name in robot, f"requirements/robot.txt lacks {requirement}"
            assert robot[name].specifier == requirement.specifier, f"{name}: setup.py and robot.txt differ"


def test_everything_that_ci_installs_is_pinned_exactly() -> None:
    pins = listed("constraints.txt")
    missing = sorted(set(declared()) - set(pins))
    assert not missing, f"constraints.txt has no pin for {missing}: run `make constraints`"
    outside = [
        str(pins[name])
        for name, r in declared().items()
        if not r.specifier.contains(str(pins[name].specifier)[2:])
    ]
    assert not outside, f"pinned outside setup.py's ranges: {outside}"


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-jazzy.txt", "constraints-kilted.txt"])
def test_pins_name_versions_that_every_machine_has(name: str) -> None:
    for requirement in listed(name).values():
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", f"{requirement} is not exact"
        assert "+" not in specifier.version, f"{requirement} names a local build"


@pytest.mark.parametrize("distro", ["jazzy", "kilted"])
def test_every_ros_wheel_is_pinned(distro: str) -> None:
    pins = {**listed("constraints.txt"), **listed(f"constraints-{distro}.txt")}
    missing = sorted(set(listed(f"ros-{distro}.txt")) - set(pins))
    assert not missing, f"not pinned for {distro}: {missing}"
