# SPDX-License-Identifier: Apache-2.0
"""The build finds the ROS 2 that is there, and says what to do where it is missing or incomplete."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def interfaces(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """cmake/interfaces.py in a process that has no ROS 2 at all."""
    spec = importlib.util.spec_from_file_location("interfaces_under_test", ROOT / "cmake" / "interfaces.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "no_ros_here"))
    for name in ("AMENT_PREFIX_PATH", "CMAKE_PREFIX_PATH", module.WITHOUT_ROS):
        monkeypatch.delenv(name, raising=False)
    return module


def underlay(prefix: Path, *packages: str) -> Path:
    for package in packages:
        share = prefix / "share" / package
        (share / "cmake").mkdir(parents=True)
        (share / "package.xml").write_text("<package/>")
        (share / "cmake" / f"{package}Config.cmake").write_text("")
        index = prefix / "share" / "ament_index" / "resource_index" / "packages"
        index.mkdir(parents=True, exist_ok=True)
        (index / package).write_text("")
    return prefix


def test_a_sourced_ros_is_found_with_its_overlays_in_order(
    interfaces: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ros = underlay(tmp_path / "ros", "rclpy", "rosidl_default_generators")
    overlay = underlay(tmp_path / "overlay", "some_msgs")
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{overlay}{os.pathsep}{ros}{os.pathsep}/does/not/exist")
    assert interfaces.find_ros().prefixes == (overlay, ros)


def test_an_earlier_build_of_this_package_is_not_built_against(
    interfaces: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ros = underlay(tmp_path / "ros", "rclpy", "rosidl_default_generators")
    own = underlay(tmp_path / "install" / "gr00t_ros", "gr00t_ros")
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{own}{os.pathsep}{ros}")
    assert interfaces.find_ros().prefixes == (ros,)


def test_ros_from_pypi_is_found_beside_the_interpreter(
    interfaces: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    prefix = underlay(tmp_path / "venv", "rclpy", "rosidl_default_generators")
    monkeypatch.setattr(sys, "prefix", str(prefix))
    assert interfaces.find_ros().prefixes == (prefix,)
    # colcon points sys.prefix at the install folder and keeps the true one in real_prefix
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "install"))
    monkeypatch.setattr(sys, "real_prefix", str(prefix), raising=False)
    assert interfaces.find_ros().prefixes == (prefix,)


def test_ros_without_generators_is_an_error_that_says_what_to_install(
    interfaces: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(underlay(tmp_path / "ros", "rclpy")))
    with pytest.raises(interfaces.InterfaceBuildError, match="rosidl-default-generators"):
        interfaces.find_ros()


def test_without_ros_there_is_none_and_the_switch_hides_one(
    interfaces: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert interfaces.find_ros() is None
    ros = underlay(tmp_path / "ros", "rclpy", "rosidl_default_generators")
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(ros))
    monkeypatch.setenv(interfaces.WITHOUT_ROS, "1")
    assert interfaces.find_ros() is None
    assert interfaces.WITHOUT_ROS in interfaces.why_without_ros()
    monkeypatch.setenv(interfaces.WITHOUT_ROS, "0")
    assert interfaces.find_ros() is not None


def test_cmake_sees_ros_and_nothing_of_the_front_end(
    interfaces: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ros = underlay(tmp_path / "ros", "rclpy", "rosidl_default_generators")
    packages = ros / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    packages.mkdir(parents=True)
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(ros))
    monkeypatch.setenv("PYTHONPATH", f"/tmp/pip-build-env-x/site{os.pathsep}/w/gr00t_ros/prefix_override")
    env = interfaces._environment(interfaces.find_ros())
    assert env["PYTHONPATH"] == str(packages)
    assert env["CMAKE_PREFIX_PATH"].split(os.pathsep)[0] == str(ros)


def test_missing_system_packages_are_named_in_one_line(tmp_path: Path) -> None:
    for tool in ("sh", "true"):
        (tmp_path / tool).symlink_to(f"/bin/{tool}")
    (tmp_path / "python3").symlink_to(sys.executable)
    done = subprocess.run(
        ["/bin/sh", str(ROOT / "requirements" / "system.sh")],
        env={"PATH": str(tmp_path), "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.count("\n") == 1
    assert done.stdout.split()[:2] == ["g++", "cmake"], done.stdout + done.stderr
