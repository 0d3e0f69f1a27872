# SPDX-License-Identifier: Apache-2.0
"""``random_checkpoint``: a checkpoint with random weights that fits a robot YAML.

For the demo, for tests, and for trying topics, timing and memory before a trained checkpoint exists.
Its actions stay around the middle of the joints' ranges, so that a simulated arm sways instead of folding up;
``--relative`` makes them relative to the present joints, as fine-tuned checkpoints often have them.
"""

import argparse
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

from gr00t_model.checkpoint import write_random_checkpoint
from gr00t_model.config import Gr00tN1d6Config
from gr00t_model.errors import Gr00tError
from gr00t_model.presets import SMALL_IMAGE_TOKEN_ID
from gr00t_model.processing import ActionConfig, Gr00tProcessor, ModalityConfig
from gr00t_model.processing.small_tokenizer import small_tokenizer
from gr00t_ros.errors import Gr00tRosError
from gr00t_ros.group_values import to_checkpoint
from gr00t_ros.robot import ActionGroupConfig, RobotConfig
from gr00t_ros.robot_types import JOINT_VELOCITY, LINEAR_COLUMNS, VELOCITIES, PoseLimits
from gr00t_ros.rotations import from_quaternion
from gr00t_ros.share import robot_file
from gr00t_ros.units import to_dataset

PRESETS = ("tiny", "mini", "demo", "small", "seed", "released")
# Steps in a chunk: 0.8 s at 20 Hz, long enough to be smooth and short enough to be inferred on a laptop's
# CPU.
HORIZON = 16
# How far actions reach to each side, as a share of a joint's range: visible, and far from the limits.
REACH = 0.08
# Range assumed for joints without limits (rad, m or unitless): statistics need one, and one radian suits
# most joints.
FREE_RANGE = 1.0
# How far columns of a rotation are from those of no rotation at most.
SMALL_TURN = 0.1


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0 when the checkpoint was written."""
    parser = argparse.ArgumentParser(prog="random_checkpoint", description=__doc__.split("\n\n")[0])
    parser.add_argument("--robot", required=True, help="name of a shipped robot description, or a robot YAML")
    parser.add_argument("--output", required=True, type=Path, help="directory to write; must not exist")
    parser.add_argument(
        "--preset", choices=PRESETS, default="tiny", help="network size (default: %(default)s)"
    )
    parser.add_argument("--horizon", type=int, default=HORIZON, help="action steps (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights (default: %(default)s)")
    parser.add_argument(
        "--around",
        type=_joint_value,
        action="append",
        default=[],
        metavar="JOINT=VALUE",
        help="where a joint's actions lie, in SI (default: the middle of its range); repeat for each joint",
    )
    parser.add_argument("--relative", action="store_true", help="actions relative to the present joints")
    options = parser.parse_args(argv)
    try:
        robot = RobotConfig.from_file(robot_file(options.robot))
        write(
            robot,
            options.output,
            preset=options.preset,
            horizon=options.horizon,
            seed=options.seed,
            around=dict(options.around),
            relative=options.relative,
        )
    except (Gr00tError, Gr00tRosError) as error:
        print(f"random_checkpoint: {error}", file=sys.stderr)
        return 1
    print(f"wrote {options.output}: preset {options.preset}, random weights, fits robot {robot.name}")
    return 0


def write(
    robot: RobotConfig,
    output: Path,
    *,
    preset: str = "tiny",
    horizon: int = HORIZON,
    seed: int = 0,
    around: Mapping[str, float] = MappingProxyType({}),
    relative: bool = False,
) -> None:
    """Write a checkpoint in the published format whose keys, widths and ranges are those of ``robot``.

    ``around`` moves the middle of a joint's actions (SI) away from the middle of its range.

    Raises:
        Gr00tRosError: ``output`` exists, or ``around`` names a joint that is not commanded.
        ConfigError: ``horizon`` is below 1 or beyond the preset's.
    """
    strangers = sorted(set(around) - set(robot.joints))
    if strangers:
        raise Gr00tRosError(
            f"{', '.join(strangers)}: not commanded; the joints are {', '.join(robot.joints)}"
        )
    config = getattr(Gr00tN1d6Config, preset)()
    modality = _modality(robot, horizon, relative)
    processor = Gr00tProcessor(
        {robot.embodiment_tag: modality},
        {robot.embodiment_tag: _statistics(robot, modality["action"], around)},
        max_state_dim=config.max_state_dim,
        max_action_dim=config.max_action_dim,
        max_action_horizon=config.action_horizon,
    )
    if output.exists():
        raise Gr00tRosError(f"{output} exists already; choose another directory or remove it")
    # Both halves first, the name last: a checkpoint that was interrupted is never taken for a whole one.
    partial = output.with_name(output.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    write_random_checkpoint(config, partial, seed=seed)
    processor.save_pretrained(partial)
    if config.image_token_id == SMALL_IMAGE_TOKEN_ID:
        small_tokenizer().save(partial)
    partial.rename(output)


def _joint_value(text: str) -> tuple[str, float]:
    joint, _, value = text.partition("=")
    try:
        return joint, float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form JOINT=VALUE") from None


def _modality(robot: RobotConfig, horizon: int, relative: bool) -> dict[str, ModalityConfig]:
    return {
        "video": ModalityConfig((0,), tuple(robot.video)),
        "state": ModalityConfig((0,), tuple(robot.state)),
        "action": ModalityConfig(
            tuple(range(horizon)),
            tuple(robot.action),
            action_configs=tuple(
                _relative(robot, group) if relative else ActionConfig() for group in robot.action.values()
            ),
        ),
        "language": ModalityConfig((0,), ("annotation.human.task_description",)),
    }


def _relative(robot: RobotConfig, group: ActionGroupConfig) -> ActionConfig:
    """Relative to the state group that holds the same joints, absolute where there is none."""
    for key, source in robot.state.items():
        if source.joints == group.joints:
            return ActionConfig(rep="RELATIVE", state_key=key)
    return ActionConfig()


def _statistics(
    robot: RobotConfig, action: ModalityConfig, around: Mapping[str, float]
) -> dict[str, dict[str, dict[str, list]]]:
    absolute, relative = {}, {}
    # A relative chunk leaves the present joints gently.
    growth = np.linspace(1.0 / action.horizon, 1.0, action.horizon)[:, None]
    for key, group in robot.action.items():
        low, high = _action_ranges(robot, group)
        middle, reach = (low + high) / 2, REACH * (high - low)
        for column, joint in enumerate(group.joints):
            if joint in around and group.representation not in VELOCITIES:
                middle[column] = to_dataset([around[joint]], [robot.unit(joint)])[0]
        absolute[key] = _spread(middle - reach, middle + reach)
        if action.action_config(key).relative:
            relative[key] = _spread(-growth * reach, growth * reach)
    return {
        "state": {key: _spread(*_ranges(robot, source.joints)) for key, source in robot.state.items()},
        "action": absolute,
        "relative_action": relative,
    }


def _ranges(robot: RobotConfig, joints: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest value of each joint, in the dataset's units, float64 [D] each."""
    units = [robot.unit(joint) for joint in joints]
    limits = [robot.limits.get(joint) for joint in joints]
    ends = [
        to_dataset([limit.min if limit and limit.has_ends else -FREE_RANGE for limit in limits], units),
        to_dataset([limit.max if limit and limit.has_ends else FREE_RANGE for limit in limits], units),
    ]
    return np.minimum(*ends), np.maximum(*ends)


def _action_ranges(robot: RobotConfig, group: ActionGroupConfig) -> tuple[np.ndarray, np.ndarray]:
    """As :func:`_ranges`, of what a group commands: positions, speeds to both sides, or poses in their box
    that are
    turned little."""
    if group.representation == JOINT_VELOCITY:
        speeds = [robot.limits[joint].velocity for joint in group.joints]
    elif group.joints:
        return _ranges(robot, group.joints)
    else:
        limits = robot.group_limits[group.key]
        if isinstance(limits, PoseLimits):
            straight = from_quaternion((0.0, 0.0, 0.0, 1.0), group.rotation)
            low = to_checkpoint(robot, group, [[*limits.min, 0.0, 0.0, 0.0, 1.0]])[0]
            high = to_checkpoint(robot, group, [[*limits.max, 0.0, 0.0, 0.0, 1.0]])[0]
            low[3:], high[3:] = straight - SMALL_TURN, straight + SMALL_TURN
            return np.minimum(low, high), np.maximum(low, high)
        linear, angular = limits.linear_velocity, limits.angular_velocity
        speeds = [linear if column in LINEAR_COLUMNS else angular for column in group.twist]
    reach = np.abs(to_checkpoint(robot, group, [speeds])[0])
    return -reach, reach


def _spread(low: np.ndarray, high: np.ndarray) -> dict[str, list]:
    """Statistics of values spread evenly between ``low`` and ``high``."""
    span = high - low
    return {
        "min": low.tolist(),
        "max": high.tolist(),
        "mean": (low + span / 2).tolist(),
        "std": (span / np.sqrt(12.0)).tolist(),
        "q01": (low + 0.01 * span).tolist(),
        "q99": (low + 0.99 * span).tolist(),
    }


if __name__ == "__main__":
    sys.exit(main())
