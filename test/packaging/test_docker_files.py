# SPDX-License-Identifier: Apache-2.0
"""The Jetson images: they copy what the build needs, keep to the ranges and agree with the how-to."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "how-to" / "jetson.md"
IMAGES = {path.name: path for path in sorted((ROOT / "docker").glob("Dockerfile.*"))}

# What a robot's image needs nothing of.
LEFT_OUT = {"docs", "test", "docker", "Makefile", "CONTRIBUTING.md"}
# What rosdep would install on each Ubuntu, by the names of PyPI.
UBUNTU = {
    "22.04": {
        "numpy": "1.21.5",
        "opencv-python-headless": "4.5.4",
        "pillow": "9.0.1",
        "pyyaml": "5.4.1",
        "tqdm": "4.57.0",
    },
    "24.04": {
        "numpy": "1.26.4",
        "opencv-python-headless": "4.6.0",
        "pillow": "10.2.0",
        "pyyaml": "6.0.1",
        "tqdm": "4.66.2",
    },
}
CODENAMES = {"22.04": "jammy", "24.04": "noble"}
KNOWN = {"FROM", "SHELL", "ENV", "ARG", "RUN", "COPY", "WORKDIR", "ENTRYPOINT", "CMD"}


def instructions(path: Path) -> list[tuple[str, str]]:
    """(instruction, its whole text) in order, comments and continuations resolved."""
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
    text = "\n".join(lines).replace("\\\n", " ")
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in text.splitlines()]


def texts(path: Path, kind: str) -> list[str]:
    return [text for name, text in instructions(path) if name == kind]


def copied(path: Path) -> list[tuple[str, str]]:
    """(source, destination folder) of every COPY."""
    pairs = []
    for text in texts(path, "COPY"):
        *sources, destination = text.split()
        pairs += [(source, destination) for source in sources]
    return pairs


def versions(path: Path) -> dict[str, str]:
    """What an image's first comment says that it holds."""
    head = path.read_text().split("\n#\n")[0]
    pattern = {
        "jetpack": r"JetPack (\d+)",
        "ubuntu": r"Ubuntu (\d+\.\d+)",
        "python": r"Python (\d+\.\d+)",
        "cuda": r"CUDA (\d+\.\d+)",
        "tensorrt": r"TensorRT (\d+\.\d+)",
        "ros": r"ROS 2 (\w+)",
    }
    found = {name: re.search(each, head) for name, each in pattern.items()}
    return {name: match[1] for name, match in found.items() if match}


def asked_of_pip(path: Path) -> dict[str, Requirement]:
    commands = [c for text in texts(path, "RUN") for c in text.split("&&") if "pip install" in c]
    words = [word.strip("\"'") for command in commands for word in command.split("pip install")[1].split()]
    names = [word for word in words if re.fullmatch(r"[A-Za-z][\w-]*([<>=!~].*)?", word)]
    found: dict[str, Requirement] = {}
    for requirement in map(Requirement, names):
        known = found.setdefault(canonicalize_name(requirement.name), requirement)
        known.specifier &= requirement.specifier
    return found


def ranges() -> dict[str, SpecifierSet]:
    source = (ROOT / "setup.py").read_text()
    block = re.search(r"^REQUIRES = (\[.*?^\])", source, re.DOTALL | re.MULTILINE)
    assert block is not None
    found = [Requirement(each) for each in re.findall(r'"([^"]+)"', block[1])]
    return {canonicalize_name(requirement.name): requirement.specifier for requirement in found}


def test_both_jetpacks_have_an_image() -> None:
    assert set(IMAGES) == {"Dockerfile.jetpack6", "Dockerfile.jetpack7"}


@pytest.mark.parametrize("path", IMAGES.values(), ids=IMAGES)
def test_instructions_are_dockers_and_exec_forms_are_json(path: Path) -> None:
    assert instructions(path)[0][0] == "FROM"
    assert {name for name, _ in instructions(path)} <= KNOWN
    for kind in ("SHELL", "ENTRYPOINT", "CMD"):
        for text in texts(path, kind):
            assert all(isinstance(word, str) for word in json.loads(text)), text


@pytest.mark.parametrize("path", IMAGES.values(), ids=IMAGES)
def test_everything_that_is_built_is_copied(path: Path) -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a git checkout: what belongs to the package is not known")
    wanted = {name.split("/")[0] for name in tracked.stdout.splitlines()} - LEFT_OUT
    wanted = {name for name in wanted if not name.startswith(".")}
    into_package = {source for source, to in copied(path) if to.startswith("src/gr00t_ros/")}
    assert into_package == wanted
    for source, destination in copied(path):
        assert (ROOT / source).exists(), f"{source} does not exist"
        if (ROOT / source).is_dir():
            # COPY of a folder copies what is in it.
            assert destination == f"src/gr00t_ros/{source}", f"{source} would lose its name"


@pytest.mark.parametrize("path", IMAGES.values(), ids=IMAGES)
def test_what_ubuntu_has_too_old_comes_from_pip(path: Path) -> None:
    allowed, asked = ranges(), asked_of_pip(path)
    system = UBUNTU[versions(path)["ubuntu"]]
    for name, version in system.items():
        if not allowed[name].contains(version):
            assert name in asked, f"{name} {version} of Ubuntu is outside {allowed[name]}"
    for name, requirement in asked.items():
        kept = {str(bound) for bound in requirement.specifier}
        for bound in allowed.get(name, SpecifierSet()):
            exact = [s.version for s in requirement.specifier if s.operator == "=="]
            fits = all(bound.contains(v) for v in exact) if exact else str(bound) in kept
            assert fits, f"{requirement} does not keep setup.py's {bound}"
    # Both distributions' compiled ROS packages were built against numpy 1.
    assert "<2" in {str(bound) for bound in asked["numpy"].specifier}
    assert "-r /tmp/robot.txt" in path.read_text()
    assert ("requirements/robot.txt", "/tmp/robot.txt") in copied(path)


@pytest.mark.parametrize("path", IMAGES.values(), ids=IMAGES)
def test_one_ros_distribution_for_one_ubuntu(path: Path) -> None:
    said = versions(path)
    distro, codename = said["ros"].lower(), CODENAMES[said["ubuntu"]]
    text = "\n".join(f"{name} {rest}" for name, rest in instructions(path))
    assert set(re.findall(r"(humble|jazzy|kilted)", text)) == {distro}
    assert set(re.findall(r"(jammy|noble)", text)) == {codename}
    assert f"ros-{distro}-ros-base" in text
    assert f"ROS_DISTRO={distro}" in text


@pytest.mark.parametrize("path", IMAGES.values(), ids=IMAGES)
def test_the_package_supports_the_images_python(path: Path) -> None:
    required = re.search(r'python_requires="([^"]+)"', (ROOT / "setup.py").read_text())
    assert required is not None
    assert SpecifierSet(required[1]).contains(Version(versions(path)["python"]))


@pytest.mark.parametrize("path", IMAGES.values(), ids=IMAGES)
def test_the_page_says_the_same_versions(path: Path) -> None:
    said = versions(path)
    assert len(said) == 6, said
    rows = [
        line for line in PAGE.read_text().splitlines() if line.startswith(f"| JetPack {said['jetpack']} ")
    ]
    assert rows, f"{PAGE.name} has no row for JetPack {said['jetpack']}"
    cells = [cell.strip() for cell in rows[0].split("|")]
    for name in ("ubuntu", "python", "cuda", "tensorrt", "ros"):
        value = said[name]
        assert any(re.search(rf"\b{re.escape(value)}$", cell) for cell in cells), f"{name} {value}: {cells}"
    assert path.name in rows[0]


@pytest.mark.parametrize("path", [*IMAGES.values(), PAGE], ids=lambda p: p.name)
def test_what_was_not_run_is_labelled_at_the_top(path: Path) -> None:
    assert "not executed on the device yet" in "\n".join(path.read_text().splitlines()[:6]).lower()
