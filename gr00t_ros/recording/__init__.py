# SPDX-License-Identifier: Apache-2.0
"""Recording of episodes: what is written, what is expected of it, and how good it turned out. No ROS."""
