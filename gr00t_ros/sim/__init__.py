# SPDX-License-Identifier: Apache-2.0
"""A simulated robot that stands in for a real one in the demo and in tests. No ROS in here."""
