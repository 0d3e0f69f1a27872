# SPDX-License-Identifier: Apache-2.0
"""What a person sees of the policy: the robot's model, forward kinematics, predicted paths, shapes to draw.

Nothing here knows ROS types; ``nodes/action_visualizer.py`` turns shapes into markers.
"""
