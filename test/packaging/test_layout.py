# SPDX-License-Identifier: Apache-2.0
"""Everything that the package names is installed where ROS 2, pip and Python look for it."""

import importlib
import importlib.metadata
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PREFIX = Path(sys.prefix)
SHARE = PREFIX / "share" / "gr00t_ros"
INDEX = PREFIX / "share" / "ament_index" / "resource_index"
# Isolation from the source tree: -P from Python 3.11 on, -I (which includes it) before.
SAFE_PATH = "-P" if sys.version_info >= (3, 11) else "-I"

MANIFEST = ElementTree.parse(ROOT / "package.xml").getroot()
COMMANDS = [
    entry
    for entry in importlib.metadata.distribution("gr00t_ros").entry_points
    if entry.group == "console_scripts"
]
SHARED = [
    path.relative_to(ROOT)
    for folder in ("launch", "config")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.is_file() and "__pycache__" not in path.parts
]
INTERFACES = [
    path.relative_to(ROOT) for kind in ("msg", "srv", "action") for path in sorted((ROOT / kind).glob("*.*"))
]


def texts() -> dict[Path, str]:
    """What people and programs read the package's names from."""
    files = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "launch").glob("*.py")]
    files += [*(ROOT / "gr00t_ros").rglob("*.py"), *(ROOT / "config").rglob("*.yaml")]
    return {path.relative_to(ROOT): path.read_text() for path in files if path.is_file()}


def named(pattern: str) -> dict[str, Path]:
    """Every text that matches the pattern's group in the package's files -> the file that says it."""
    return {found: path for path, text in texts().items() for found in re.findall(pattern, text)}


def test_the_versions_agree() -> None:
    changelog = (ROOT / "CHANGELOG.rst").read_text()
    newest = re.search(r"^(\d+\.\d+\.\d+)", changelog, re.MULTILINE)
    assert newest, "CHANGELOG.rst names no version"
    versions = {
        "package.xml": MANIFEST.findtext("version"),
        "the installed distribution": importlib.metadata.version("gr00t_ros"),
        "CHANGELOG.rst": newest.group(1),
    }
    assert len(set(versions.values())) == 1, versions


@pytest.mark.parametrize("path", SHARED, ids=str)
def test_launch_files_and_configurations_are_installed(path: Path) -> None:
    installed = SHARE / path
    assert installed.is_file(), f"{path} is not installed; setup.py takes what lies in launch/ and config/"
    assert installed.read_bytes() == (ROOT / path).read_bytes(), (
        f"the installed {path} is older: run `make install`"
    )


@pytest.mark.ros
@pytest.mark.parametrize("path", INTERFACES, ids=str)
def test_interfaces_are_installed_registered_and_importable(path: Path) -> None:
    assert (SHARE / path).read_bytes() == (ROOT / path).read_bytes()
    registered = (INDEX / "rosidl_interfaces" / "gr00t_ros").read_text().split()
    assert path.as_posix() in registered
    module = importlib.import_module(f"gr00t_ros.{path.parent}")
    generated = getattr(module, path.stem)
    generated.__class__.__import_type_support__()
    assert generated.__class__._TYPE_SUPPORT is not None


def test_the_ament_index_knows_the_package() -> None:
    assert (INDEX / "packages" / "gr00t_ros").is_file()
    assert (SHARE / "package.xml").read_bytes() == (ROOT / "package.xml").read_bytes()


@pytest.mark.ros
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_commands_lie_where_pip_and_ros2_run_look(command: importlib.metadata.EntryPoint) -> None:
    for place in (PREFIX / "bin", PREFIX / "lib" / "gr00t_ros"):
        assert os.access(place / command.name, os.X_OK), (
            f"{place / command.name} is missing or not executable"
        )
    assert callable(command.load())


@pytest.mark.ros
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_commands_have_help(command: importlib.metadata.EntryPoint, tmp_path: Path) -> None:
    script = PREFIX / "lib" / "gr00t_ros" / command.name
    done = subprocess.run(
        [script, "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.split()) > 5, f"`{command.name} --help` should say what it does: {done.stdout!r}"


def test_launch_files_that_are_named_exist() -> None:
    found = named(r"([\w]+\.launch\.py)")
    assert found, "nothing names a launch file any more: the pattern of this test is out of date"
    missing = {name: str(path) for name, path in found.items() if not (SHARE / "launch" / name).is_file()}
    assert not missing, f"named but not installed: {missing}"


def test_configurations_that_are_named_exist() -> None:
    found = named(r"\bconfig/((?:robots/|rviz/)?[a-z0-9_]+\.(?:yaml|rviz))")
    assert found, "nothing names a configuration any more: the pattern of this test is out of date"
    missing = {name: str(path) for name, path in found.items() if not (SHARE / "config" / name).is_file()}
    assert not missing, f"named but not installed: {missing}"


@pytest.mark.ros
def test_messages_that_are_named_exist() -> None:
    import gr00t_ros.msg

    imported = named(r"from gr00t_ros\.msg import \(?([^)\n]+)")
    names = {
        name.strip(): path for line, path in imported.items() for name in line.split(",") if name.strip()
    }
    names |= named(r"gr00t_ros/msg/([A-Z]\w+)")
    assert names, "nothing names a message any more: the pattern of this test is out of date"
    missing = {
        name: str(path) for name, path in names.items() if not hasattr(gr00t_ros.msg, name.split(" as ")[0])
    }
    assert not missing, f"named but not generated: {missing}"


def test_commands_that_are_named_exist() -> None:
    installed = {command.name for command in COMMANDS}
    found = named(r"ros2 run gr00t_ros ([a-z]\w+)") | named(r'executable="([a-z]\w+)"')
    missing = {name: str(path) for name, path in found.items() if name not in installed | {"rviz2"}}
    assert not missing, f"named but not installed: {missing}"


def test_the_installed_package_needs_no_source_tree(tmp_path: Path) -> None:
    code = "import gr00t_ros, gr00t_model; print(gr00t_ros.__file__); print(gr00t_model.__file__)"
    done = subprocess.run(
        [sys.executable, SAFE_PATH, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    for line in done.stdout.split():
        assert Path(line).is_relative_to(PREFIX), f"{line} is not the installed package"


def test_only_nodes_and_commands_need_ros(tmp_path: Path) -> None:
    """A training cluster has no ROS 2: everything but nodes, commands and launch helpers imports there."""
    code = """
import importlib, pkgutil, sys

class NoRos:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in ("rclpy", "launch", "launch_ros", "builtin_interfaces", "ament_index_python") or (
            top.endswith(("_msgs", "_srvs")) or name.startswith(("gr00t_ros.msg", "gr00t_ros.action"))
        ):
            raise ModuleNotFoundError(f"No module named {name!r} (hidden by this test)", name=name)

sys.meta_path.insert(0, NoRos())
names = ("nodes", "cli", "launching", "msg", "action", "gr00t_ros_s__")
left_out = tuple("gr00t_ros." + name for name in names)
import gr00t_ros, gr00t_model
count = 0
for package in (gr00t_ros, gr00t_model):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".", onerror=lambda name: None):
        if not module.name.startswith(left_out):
            importlib.import_module(module.name)
            count += 1
print(count)
"""
    done = subprocess.run(
        [sys.executable, SAFE_PATH, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) > 20


def test_package_xml_and_cmake_name_the_same_interface_packages() -> None:
    depends = {element.text for element in MANIFEST.findall("depend")}
    listed = re.search(r"set\(interface_packages ([^)]*)\)", (ROOT / "cmake" / "CMakeLists.txt").read_text())
    assert listed
    assert set(listed.group(1).split()) == depends
    used = {
        found
        for path in INTERFACES
        for found in re.findall(r"^\s*([a-z]\w+)/[A-Z]", (ROOT / path).read_text(), re.MULTILINE)
    }
    assert used <= depends | {"gr00t_ros"}, (
        f"interfaces use {sorted(used - depends)}, which package.xml does not name"
    )


def test_package_xml_declares_the_ros_packages_that_the_code_imports() -> None:
    declared = {e.text for tag in ("depend", "exec_depend", "test_depend") for e in MANIFEST.findall(tag)}
    imported = set()
    for path in [*(ROOT / "gr00t_ros").rglob("*.py"), *(ROOT / "launch").glob("*.py")]:
        for name in re.findall(r"^\s*(?:from|import) ([a-z]\w*)", path.read_text(), re.MULTILINE):
            if name in (
                "rclpy",
                "launch",
                "launch_ros",
                "builtin_interfaces",
                "ament_index_python",
                "tf2_ros",
            ) or (name.endswith(("_msgs", "_srvs"))):
                imported.add(name)
    assert imported <= declared, f"package.xml lacks <exec_depend> for {sorted(imported - declared)}"
