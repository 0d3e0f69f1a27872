# SPDX-License-Identifier: Apache-2.0
"""The part of a URDF that drawing needs: a tree of links, and what is said about one that is none."""

import re

import numpy as np
import pytest

from gr00t_ros.urdf import UrdfError
from gr00t_ros.visualization.description import read_description
from gr00t_ros.visualization.robot_model import read_model, rpy_matrix
from support_two_arms import two_arms_urdf

FREE = """<robot name="r"><link name="world"/><link name="pelvis"/><link name="arm"/>
  <joint name="base" type="floating"><parent link="world"/><child link="pelvis"/></joint>
  <joint name="turn" type="revolute"><parent link="pelvis"/><child link="arm"/><origin xyz="1 0 0"/></joint>
</robot>"""


def test_links_come_in_order_of_the_tree() -> None:
    model = read_model(two_arms_urdf())
    assert model.root == model.links[0] == "base_link"
    for link in model.links[1:]:
        assert model.links.index(model.above[link].parent) < model.links.index(link)
    names = [joint.name for joint in model.chain("left_tcp")]
    assert names == ["waist", "left_shoulder", "left_elbow", "left_wrist", "left_roll", "left_tool"]
    assert model.below(["right_wrist"]) == (
        "right_wrist", "right_hand", "right_tcp", "right_finger", "right_thumb"
    )  # fmt: skip
    assert model.followed(model.joints["left_follow"]) == "left_grip"


def test_below_a_floating_joint_another_frame_begins() -> None:
    model = read_model(FREE)
    assert model.frame_of("arm") == "pelvis" == model.frame_of("pelvis")
    assert [joint.name for joint in model.chain("arm")] == ["turn"]


def test_visible_parts_have_their_sizes() -> None:
    model = read_model(two_arms_urdf())
    sizes = {(part.link, part.shape): part.size for part in model.visuals}
    assert sizes["head", "sphere"] == (0.14, 0.14, 0.14)
    assert sizes["left_fore", "cylinder"] == (0.07, 0.07, 0.24)
    assert sizes["torso", "box"] == (0.12, 0.22, 0.40)


def test_angles_turn_about_fixed_axes() -> None:
    turned = rpy_matrix(0.0, 0.0, np.pi / 2) @ rpy_matrix(np.pi / 2, 0.0, 0.0)
    np.testing.assert_allclose(rpy_matrix(np.pi / 2, 0.0, np.pi / 2), turned, atol=1e-12)
    np.testing.assert_allclose(
        rpy_matrix(0.3, -0.4, 0.5) @ rpy_matrix(0.3, -0.4, 0.5).T, np.eye(3), atol=1e-12
    )


LINKS = '<link name="a"/><link name="b"/>'
JOINT = '<joint name="j" type="revolute"><parent link="a"/><child link="b"/>{}</joint>'


@pytest.mark.parametrize(
    ("inside", "said"),
    [
        ("", "found no link"),
        (LINKS, "links without a joint above them: a, b; expected exactly one"),
        ('<link name="a"/><link name="a"/>', "found link 'a' twice"),
        ("<link/>", "found a link without a name"),
        (LINKS + JOINT.format("") * 2, "a joint name twice"),
        (LINKS + '<joint name="j" type="fixed"><parent link="a"/></joint>', "found no <child link=...>"),
        (LINKS + JOINT.format("").replace('"b"', '"c"'), "found link 'c', which does not exist"),
        (LINKS + JOINT.format("").replace("revolute", "bent"), "found type 'bent'"),
        (LINKS + JOINT.format('<axis xyz="0 0 0"/>'), "found an axis of length 0"),
        (LINKS + JOINT.format('<origin xyz="0 0"/>'), "found xyz='0 0', expected 3 finite numbers"),
        (LINKS + JOINT.format('<origin xyz="${x} 0 0"/>'), "run xacro on the file first"),
        (LINKS + JOINT.format('<origin rpy="nan 0 0"/>'), "expected 3 finite numbers"),
        (LINKS + JOINT.format('<mimic joint="ghost"/>'), "it mimics 'ghost'"),
        (LINKS + JOINT.format('<mimic joint="j"/>'), "it mimics 'j'"),
        (
            '<link name="r"/>' + LINKS + JOINT.format("")
            + '<joint name="k" type="fixed"><parent link="b"/><child link="a"/></joint>',
            "found links in a loop: a, b",
        ),
        (
            LINKS + JOINT.format("") + JOINT.format("").replace('"j"', '"k"'),
            "link 'b': found two joints above it",
        ),
        ('<link name="a"><visual><geometry><box/></geometry></visual></link>', "found no size in <box>"),
    ],
)  # fmt: skip
def test_a_wrong_model_is_refused_with_the_place(inside: str, said: str) -> None:
    with pytest.raises(UrdfError, match=f"^here: .*{re.escape(said)}"):
        read_model(f"<robot>{inside}</robot>", "here")


def test_shapes_of_a_dialect_are_left_out() -> None:
    inside = "<visual><geometry>{}</geometry></visual>"
    text = f'<robot><link name="a">{inside.format("<capsule/>")}{inside.format("")}<visual/></link></robot>'
    assert read_model(text).visuals == ()


def test_meshes_beside_the_file_get_an_address(tmp_path) -> None:
    inside = '<visual><geometry><mesh filename="{}"/></geometry></visual>'
    names = ("assets/a part.stl", "package://robot/b.stl")
    file = tmp_path / "robot.urdf"
    file.write_text(f'<robot><link name="a">{"".join(map(inside.format, names))}</link></robot>')
    meshes = [part.mesh for part in read_model(read_description(file)).visuals]
    assert meshes == [f"{tmp_path.resolve().as_uri()}/assets/a%20part.stl", names[1]]
    with pytest.raises(UrdfError, match=r"none.urdf: cannot be read .* expected a URDF file"):
        read_description(tmp_path / "none.urdf")
