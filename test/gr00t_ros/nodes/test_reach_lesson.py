# SPDX-License-Identifier: Apache-2.0
"""The reaching task through topics: what is recorded is what the expert meant, row for row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from support_processes import REPO, ProcessStarter, RosGraph

pytest.importorskip("rclpy", reason="needs ROS 2")

from sensor_msgs.msg import JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger

from gr00t_ros.data.bag_rows import BagRows
from gr00t_ros.data.bags import Bag
from gr00t_ros.data.rows import Row
from gr00t_ros.demonstrating import demonstration_programs
from gr00t_ros.errors import Gr00tRosError
from gr00t_ros.nodes.sim_task import STATE, TOPIC
from gr00t_ros.robot import RobotConfig
from gr00t_ros.sim.reaching import ReachingTask
from gr00t_ros.sim.reaching_samples import generate
from support_simulator import NEEDS_SIMULATOR

pytestmark = [
    pytest.mark.ros,
    NEEDS_SIMULATOR,
]
ROBOT = REPO / "config/robots/so101_reach.yaml"
SEED, KINDS = 40, ("static", "swapped")


def test_demonstrations_are_the_expert_s_row_for_row(processes: ProcessStarter, tmp_path: Path) -> None:
    arguments = {"task": "reach", "episodes": "2", "seed": str(SEED), "kinds": ",".join(KINDS), "size": "48"}
    programs = demonstration_programs({**arguments, "output": str(tmp_path)})
    nodes = {program.name: processes.program(program) for program in programs}
    assert nodes["so101_teacher"].wait() == 0, nodes["so101_teacher"].output

    robot, task = RobotConfig.from_file(ROBOT), ReachingTask(width=48, height=48)
    for number, kind in enumerate(KINDS):
        expected = generate(task, SEED + number, kind)
        with Bag(tmp_path / f"episode_{number:06d}") as bag:
            rows = [row for row in BagRows(bag, robot, fps=robot.step_rate) if isinstance(row, Row)]
        assert [row.t_obs_ns - rows[0].t_obs_ns for row in rows] == [
            place * robot.step_ns for place in range(len(expected.state))
        ]
        actions = [np.concatenate([row.action["arm"], row.action["gripper"]]) for row in rows]
        np.testing.assert_allclose(actions, expected.action, atol=5e-3)
        where = [row.state["named_object"] for row in rows]
        np.testing.assert_allclose(where, expected.where, atol=5e-3)
        assert tuple(row.instruction for row in rows) == expected.instruction
        assert len({row.instruction for row in rows}) == (2 if kind == "swapped" else 1)


def test_the_task_s_state_comes_with_every_picture_and_reset_begins_the_next_episode(
    processes: ProcessStarter, graph: RosGraph
) -> None:
    states = graph.collect(TOPIC, JointState)
    texts = graph.collect("/gr00t/instruction", String)
    settings = ("task:=reach", "width:=32", "height:=32", "seed:=7", "kinds:=static,moved")
    words = [word for setting in settings for word in ("-p", setting)]
    node = processes("gr00t_ros.nodes.so101_sim", "--ros-args", "--params-file", str(ROBOT), *words)
    graph.wait_until(lambda: len(states) > 3, "states of the task")
    assert tuple(states[-1].name) == STATE
    values = dict(zip(STATE, states[-1].position, strict=True))
    assert (values["episode"], values["kind"], values["outcome"]) == (1.0, 0.0, 0.0)
    assert 0.0 < values["named_object_u"] < 1.0
    answer = graph.call("/so101_sim/reset", Trigger)
    assert answer.success
    assert "episode 2 (seed 8, moved)" in answer.message

    def begun() -> bool:
        return dict(zip(STATE, states[-1].position, strict=True))["episode"] == 2.0

    graph.wait_until(begun, "a state of the second episode")
    graph.wait_until(lambda: bool(texts) and texts[-1].data in answer.message, "the second instruction")
    assert node.stop() == 0, node.output


def test_a_kind_or_a_task_that_does_not_exist_is_named(processes: ProcessStarter) -> None:
    node = processes(
        "gr00t_ros.nodes.so101_sim", "--ros-args", "-p", "task:=reach", "-p", "kinds:=static,flying"
    )
    assert node.wait() == 2
    assert "kinds: found 'flying', expected static, moved, swapped" in node.lines[-1]
    with pytest.raises(Gr00tRosError, match=r"task is 'juggle'.*reach"):
        demonstration_programs({"task": "juggle"})
