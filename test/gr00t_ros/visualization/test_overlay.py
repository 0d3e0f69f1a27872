# SPDX-License-Identifier: Apache-2.0
"""Words and paths on a camera's picture."""

import numpy as np

from gr00t_ros.visualization.overlay import overlay, project

K = (200.0, 0.0, 80.0, 0.0, 210.0, 60.0, 0.0, 0.0, 1.0)


def test_points_are_where_a_pinhole_camera_sees_them() -> None:
    camera = np.eye(4)
    # Looks along x of the world: its x is -y of the world, its y is -z.
    camera[:3, :3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]
    camera[:3, 3] = [-1.0, 0.0, 0.5]
    points = np.array([[1.0, 0.0, 0.5], [1.0, -0.2, 0.6], [-2.0, 0.0, 0.5]])
    found = project(points, camera, K)
    np.testing.assert_allclose(found[:2], [[80.0, 60.0], [80.0 + 200 * 0.1, 60.0 - 210 * 0.05]])
    assert np.isnan(found[2]).all(), "what is behind the camera is nowhere in the picture"


def test_paths_and_words_are_drawn_and_the_picture_is_left_alone() -> None:
    picture = np.full((120, 160, 3), 90, np.uint8)
    colors = np.array([[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 1.0], [0.0, 0.0, 1.0, 1.0]])
    track = np.array([[60.0, 80.0], [100.0, 80.0], [np.nan, np.nan]])
    far = np.array([[1e9, 0.0], [60.0, 110.0], [-1e12, 4.0]])
    drawn = overlay(picture, ["policy running", "Größe"], [(track, colors), (far, colors)])
    assert (picture == 90).all()
    np.testing.assert_array_equal(drawn[80, 60], [255, 0, 0])
    np.testing.assert_allclose(drawn[80, 80], [0, 255, 0], atol=20)  # a piece has the colour of its end
    assert (drawn[:30] > 200).all(axis=-1).any(), "no white letter"
    assert (drawn[90:105] == 90).all(), "something is drawn where nothing should be"
    many = overlay(picture, [f"line {i}" for i in range(50)], [])
    assert (many[60:] == 90).all(), "the text leaves no room for the picture"
