# SPDX-License-Identifier: Apache-2.0
"""Recordings: LeRobot datasets and rosbag2, read without ROS."""
