# SPDX-License-Identifier: Apache-2.0
"""The package builds in every way that it promises, and C++ packages find what was built."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from support_processes import claim_domain, ros_environment

pytestmark = [pytest.mark.ros, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
CONSUMER = Path(__file__).parent / "cpp_consumer"
PUBLISH_AND_HEAR = """
import time
import rclpy
from gr00t_ros.msg import ActionChunk
rclpy.init()
node = rclpy.create_node("packaging_test")
heard = []
node.create_subscription(ActionChunk, "chunk", heard.append, 10)
publisher = node.create_publisher(ActionChunk, "chunk", 10)
end = time.monotonic() + 30
while not heard and time.monotonic() < end:
    publisher.publish(ActionChunk(sequence=42))
    rclpy.spin_once(node, timeout_sec=0.1)
rclpy.shutdown()
assert heard and heard[0].sequence == 42, heard
import gr00t_ros.msg
print(gr00t_ros.msg.__file__)
"""


def environment(**extra: str) -> dict[str, str]:
    """What a user's shell has before anything is sourced, with the environment's tools on PATH."""
    hidden = ("AMENT_", "CMAKE_PREFIX", "COLCON_", "PYTHONPATH", "MAKE", "MFLAGS", "PYTEST_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env["PATH"]])
    return {**env, **extra}


def run(command: list[str], cwd: Path, env: Mapping[str, str]) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-6000:]}"
    return done.stdout


def sourced(prefix: Path, command: str, cwd: Path, **extra: str) -> str:
    """Runs a shell command after `source install/setup.bash`."""
    return run(["bash", "-c", f"source {prefix}/setup.bash && {command}"], cwd, environment(**extra))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workspace")


def colcon(workspace: Path, install: str, *arguments: str) -> Path:
    run(
        [
            *(
                "colcon",
                "--log-base",
                "log",
                "build",
                "--base-paths",
                str(ROOT),
                "--packages-select",
                "gr00t_ros",
            ),
            *("--install-base", install, "--event-handlers", "console_direct+", *arguments),
        ],
        workspace,
        environment(),
    )
    return workspace / install


@pytest.fixture(scope="module", params=["copied", "linked"])
def prefix(request: pytest.FixtureRequest, workspace: Path) -> Path:
    """The install folder; the second build switches the first to links in place, as people do."""
    return colcon(workspace, "install", *(["--symlink-install"] if request.param == "linked" else []))


def test_colcon_leaves_everything_where_ros2_looks(prefix: Path, tmp_path: Path) -> None:
    package = prefix / "gr00t_ros"
    for command in (ROOT / "setup.py").read_text().split('": "gr00t_ros.')[:-1]:
        name = command.rsplit('"', 1)[-1]
        script = package / "lib" / "gr00t_ros" / name
        assert os.access(script, os.X_OK), f"`ros2 run gr00t_ros {name}` finds nothing at {script}"
    share = package / "share" / "gr00t_ros"
    for path in [
        *(ROOT / "launch").glob("*.py"),
        *(ROOT / "config").rglob("*.*"),
        *(ROOT / "msg").glob("*.msg"),
    ]:
        assert (share / path.relative_to(ROOT)).is_file(), f"{path.relative_to(ROOT)} is not in {share}"
    code = "from ament_index_python import get_package_share_directory as find; print(find('gr00t_ros'))"
    assert sourced(prefix, f'python -P -c "{code}"', tmp_path).split()[-1] == str(share)
    assert "usage" in sourced(prefix, f"{package}/lib/gr00t_ros/random_checkpoint --help", tmp_path)


def test_colcon_builds_interfaces_that_publish(prefix: Path, tmp_path: Path) -> None:
    (tmp_path / "talk.py").write_text(PUBLISH_AND_HEAR)
    domain, lock = claim_domain()
    with lock:
        heard = sourced(prefix, "python -P talk.py", tmp_path, **ros_environment(domain))
    assert heard.split()[-1].startswith(str(prefix)), f"the messages came from {heard.split()[-1]}"


@pytest.mark.parametrize("prefix", ["linked"], indirect=True)
def test_links_lead_to_the_source_tree(prefix: Path, tmp_path: Path) -> None:
    """With --symlink-install an edited module or launch file counts without another build."""
    code = "import gr00t_ros.errors as r, gr00t_model.errors as m; print(r.__file__); print(m.__file__)"
    robot, model = sourced(prefix, f'python -P -c "{code}"', tmp_path).split()[-2:]
    assert Path(robot).resolve() == ROOT / "gr00t_ros" / "errors.py"
    assert Path(model).resolve() == ROOT / "model" / "errors.py"
    for path in (ROOT / "launch").glob("*.py"):
        assert (prefix / "gr00t_ros" / "share" / "gr00t_ros" / "launch" / path.name).resolve() == path


def build_consumer(prefixes: list[str], folder: Path) -> None:
    """Configures, compiles and runs cpp_consumer against the prefixes."""
    env = environment(
        CMAKE_PREFIX_PATH=os.pathsep.join(prefixes), AMENT_PREFIX_PATH=os.pathsep.join(prefixes)
    )
    python = f"-DPython3_EXECUTABLE={sys.executable}"
    run(["cmake", "-S", str(CONSUMER), "-B", "build", python, "-DCMAKE_BUILD_TYPE=Debug"], folder, env)
    run(["cmake", "--build", "build", "--parallel", "2"], folder, env)
    libraries = os.pathsep.join([*(f"{prefix}/lib" for prefix in prefixes), env.get("LD_LIBRARY_PATH", "")])
    for program in ("print_chunk", "print_chunk_all"):
        printed = run([f"build/{program}"], folder, {**env, "LD_LIBRARY_PATH": libraries}).replace('"', "")
        for line in ("sequence: 42", "instruction: pick up the cube", "key: arm", "- shoulder_pan"):
            assert line in printed, printed


def test_a_cpp_package_finds_the_interfaces_that_colcon_built(prefix: Path, tmp_path: Path) -> None:
    build_consumer([str(prefix / "gr00t_ros"), sys.prefix], tmp_path)


def test_a_cpp_package_finds_the_interfaces_that_pip_built(tmp_path: Path) -> None:
    build_consumer([sys.prefix], tmp_path)


def test_without_ros_the_rest_installs_and_says_what_is_left_out(tmp_path: Path) -> None:
    env = environment(GR00T_ROS_WITHOUT_ROS="1")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    log = run(
        [*pip, "wheel", "-v", "--no-deps", "--no-build-isolation", "-w", "wheels", str(ROOT)], tmp_path, env
    )
    assert "the nodes and the compiled interfaces (gr00t_ros.msg) are left out" in log
    (wheel,) = (tmp_path / "wheels").glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl"), "without compiled parts the wheel fits every platform"
    run(
        [*pip, "install", "--no-deps", "--no-index", "--ignore-installed", "--prefix", "env", str(wheel)],
        tmp_path,
        env,
    )
    (packages,) = (tmp_path / "env").glob("lib/*/site-packages")
    assert not (packages / "gr00t_ros" / "msg").exists()
    done = subprocess.run(
        [tmp_path / "env" / "bin" / "policy_node"],
        env={**env, "PYTHONPATH": str(packages)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("policy_node: not available"), done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
