# SPDX-License-Identifier: Apache-2.0
"""Finds ROS 2 and compiles the interfaces of this package with CMake and rosidl.

Used by setup.py alone, in every kind of build: ``pip install .`` with and without build isolation,
``colcon build`` and ``colcon build --symlink-install``. Only the standard library, because build isolation
leaves nothing else.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "gr00t_ros"
HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
INTERFACE_FOLDERS = ("msg", "srv", "action")
WITHOUT_ROS = "GR00T_ROS_WITHOUT_ROS"
"""Environment variable: set to 1 to leave out the nodes and interfaces even where ROS 2 is installed."""

# What an underlay must hold so that interfaces can be generated.
_GENERATORS = "rosidl_default_generators"
_RUNTIME = "rclpy"
# Entries that a front end puts on PYTHONPATH for its own Python only. CMake starts other Pythons, which must
# see the environment that ROS 2 lives in: pip's build isolation hides it, colcon's override moves sys.prefix.
_FOREIGN_PYTHONPATH = ("pip-build-env-", "prefix_override", "colcon_distutils_commands")
# Index entries that CMake installs and that go along. Environment hooks do not: the front end makes its own.
_SHARE_INDEX = ("package_run_dependencies", "rosidl_interfaces")


class InterfaceBuildError(Exception):
    """The interfaces cannot be built; the message says what to do."""


@dataclass(frozen=True)
class Ros:
    """A ROS 2 installation to build against: its prefixes in order of precedence."""

    prefixes: tuple[Path, ...]

    @property
    def key(self) -> str:
        """Names the builds of this installation and this Python apart from all others in one source tree."""
        words = "\n".join([*map(str, self.prefixes), sys.executable, sysconfig.get_platform()])
        digest = hashlib.sha256(words.encode()).hexdigest()
        return f"py{sys.version_info[0]}{sys.version_info[1]}-{digest[:8]}"


def find_ros() -> Ros | None:
    """The ROS 2 that is sourced or installed beside this Python; None where there is none.

    Raises InterfaceBuildError where ROS 2 is there but lacks what generates interfaces.
    """
    if os.environ.get(WITHOUT_ROS, "") not in ("", "0"):
        return None
    prefixes: list[Path] = []
    for entry in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
        if entry and Path(entry).is_dir() and Path(entry) not in prefixes:
            prefixes.append(Path(entry))
    # ROS 2 from PyPI lies in the environment's own prefix. colcon moves sys.prefix and keeps the true one.
    python_prefix = Path(getattr(sys, "real_prefix", sys.prefix))
    if python_prefix not in prefixes and _has(python_prefix, _RUNTIME):
        prefixes.append(python_prefix)
    # An earlier build of this very package is not part of what it is built against.
    prefixes = [prefix for prefix in prefixes if prefix == python_prefix or not _only_this_package(prefix)]
    if any(_has(prefix, _GENERATORS) and _has_config(prefix, _GENERATORS) for prefix in prefixes):
        return Ros(tuple(prefixes))
    if any(_has(prefix, _RUNTIME) for prefix in prefixes):
        raise InterfaceBuildError(
            f"ROS 2 was found in {', '.join(map(str, prefixes))}, but not what generates interfaces. "
            "Install them (apt: ros-<distro>-rosidl-default-generators and ros-<distro>-ament-cmake; "
            "pip: pip install -r requirements/ros-jazzy.txt), "
            f"or set {WITHOUT_ROS}=1 to install without nodes and interfaces."
        )
    return None


def why_without_ros() -> str:
    """One sentence that says why this build has no ROS part, and what to do about it."""
    if os.environ.get(WITHOUT_ROS, "") not in ("", "0"):
        return f"{WITHOUT_ROS} is set"
    found = sorted(path.parent for path in Path("/opt/ros").glob("*/setup.bash"))
    if found:
        return f"ROS 2 is not sourced: run `source {found[-1]}/setup.bash` first"
    return "no ROS 2 was found (neither sourced nor installed from PyPI beside this Python)"


def build(ros: Ros, work: Path) -> Path:
    """Compiles the interfaces in the folder `work` and returns the prefix that they were installed into.

    The second build of unchanged interfaces takes a second, because sources are staged by content.
    """
    source, binary, prefix = work / "source", work / "cmake", work / "prefix"
    _stage(source)
    environment = _environment(ros)
    for tool in ("cmake", "c++"):
        if shutil.which(tool, path=environment["PATH"]) is None:
            raise InterfaceBuildError(f"{tool} was not found: apt-get install cmake g++ python3-dev")
    ninja = shutil.which("ninja", path=environment["PATH"])
    shutil.rmtree(prefix, ignore_errors=True)
    if not (binary / "CMakeCache.txt").is_file():
        shutil.rmtree(binary, ignore_errors=True)
    configure = ["cmake", "-S", str(source), "-B", str(binary), *(["-G", "Ninja"] if ninja else [])]
    if (binary / "CMakeCache.txt").is_file():
        configure = ["cmake", str(binary)]
    configure += [
        f"-DCMAKE_INSTALL_PREFIX={prefix}",
        "-DCMAKE_BUILD_TYPE=Release",
        "-DBUILD_TESTING=OFF",
        f"-DPython3_EXECUTABLE={sys.executable}",
        f"-DPYTHON_EXECUTABLE={sys.executable}",
        "-DPython3_FIND_VIRTUALENV=STANDARD",
    ]
    jobs = os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL") or str(os.cpu_count() or 1)
    _run(configure, environment, "configure")
    _run(["cmake", "--build", str(binary), "--parallel", jobs], environment, "compile")
    _run(["cmake", "--install", str(binary)], environment, "install")
    return prefix


def python_files(prefix: Path) -> dict[str, Path]:
    """What belongs into the Python package: path inside ``gr00t_ros/`` -> built file."""
    roots = [path.parent.parent for path in prefix.glob(f"**/{PACKAGE}/msg/__init__.py")]
    if len(roots) != 1:
        raise InterfaceBuildError(f"expected one generated Python package below {prefix}, found {len(roots)}")
    files = {}
    for path in sorted(roots[0].rglob("*")):
        inside = path.relative_to(roots[0])
        # The package's own __init__.py is the one in the source tree; generated C files are of no use.
        if path.is_file() and inside != Path("__init__.py") and path.suffix in (".py", ".so"):
            files[inside.as_posix()] = path
    return files


def data_files(prefix: Path) -> list[tuple[str, list[str]]]:
    """What belongs below the installation prefix, in the form of setup()'s ``data_files``."""
    taken: dict[str, list[str]] = {}
    for path in sorted(prefix.rglob("*")):
        inside = path.relative_to(prefix)
        parts = inside.parts
        if not path.is_file() or (PACKAGE not in path.name and PACKAGE not in parts):
            continue
        library = len(parts) == 2 and parts[0] == "lib"
        header = parts[0] == "include"
        share = parts[:2] == ("share", PACKAGE) and parts[2] in (*INTERFACE_FOLDERS, "cmake")
        index = parts[:3] == ("share", "ament_index", "resource_index") and parts[3] in _SHARE_INDEX
        if library or header or share or index:
            taken.setdefault(inside.parent.as_posix(), []).append(str(path))
    return sorted(taken.items())


def _stage(source: Path) -> None:
    """Mirrors CMake files, package.xml and interfaces into `source`, touching only what changed."""
    wanted = {path.name: path for path in HERE.iterdir() if path.suffix in (".txt", ".cmake")}
    wanted["package.xml"] = ROOT / "package.xml"
    wanted["LICENSE"] = ROOT / "LICENSE"
    for folder in INTERFACE_FOLDERS:
        for path in sorted((ROOT / folder).glob("*.*")):
            wanted[f"{folder}/{path.name}"] = path
    for old in [path for path in source.rglob("*") if path.is_file()]:
        if old.relative_to(source).as_posix() not in wanted:
            old.unlink()
    for name, origin in wanted.items():
        target = source / name
        if origin.is_file() and not (target.is_file() and target.read_bytes() == origin.read_bytes()):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(origin, target)


def _environment(ros: Ros) -> dict[str, str]:
    """The environment for CMake: all prefixes of `ros`, nothing of the front end's own."""
    environment = dict(os.environ)
    prefixes = [str(prefix) for prefix in ros.prefixes]
    environment["AMENT_PREFIX_PATH"] = os.pathsep.join(prefixes)
    cmake_path = environment.get("CMAKE_PREFIX_PATH", "").split(os.pathsep)
    environment["CMAKE_PREFIX_PATH"] = _joined(prefixes, cmake_path)
    python_path = [
        entry
        for entry in environment.get("PYTHONPATH", "").split(os.pathsep)
        if entry and not any(word in entry for word in _FOREIGN_PYTHONPATH)
    ]
    # pip's build isolation replaces PYTHONPATH, so what the sourced ROS 2 had on it is put back.
    own = Path(getattr(sys, "real_prefix", sys.prefix))
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    for prefix in ros.prefixes:
        if prefix != own:
            for place in (f"lib/{version}/site-packages", f"local/lib/{version}/dist-packages"):
                if (prefix / place).is_dir():
                    python_path.append(str(prefix / place))
    environment.pop("PYTHONPATH", None)
    if python_path:
        environment["PYTHONPATH"] = _joined(python_path)
    environment.pop("PYTHONNOUSERSITE", None)
    # Tools from pip (cmake, ninja) lie beside the interpreter.
    path = environment.get("PATH", "").split(os.pathsep)
    environment["PATH"] = _joined([str(Path(sys.executable).parent)], path)
    return environment


def _joined(*lists: list[str]) -> str:
    return os.pathsep.join(dict.fromkeys(entry for entries in lists for entry in entries if entry))


def _has(prefix: Path, package: str) -> bool:
    return (prefix / "share" / package / "package.xml").is_file()


def _has_config(prefix: Path, package: str) -> bool:
    return (prefix / "share" / package / "cmake" / f"{package}Config.cmake").is_file()


def _only_this_package(prefix: Path) -> bool:
    """Whether `prefix` is an isolated colcon prefix of this package."""
    index = prefix / "share" / "ament_index" / "resource_index" / "packages"
    return index.is_dir() and [path.name for path in index.iterdir()] == [PACKAGE]


def _run(command: list[str], environment: dict[str, str], step: str) -> None:
    result = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if result.returncode:
        log = result.stdout[-8000:]
        raise InterfaceBuildError(f"building the interfaces failed ({step}): {' '.join(command)}\n{log}")
