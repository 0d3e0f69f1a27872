# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning and open-loop evaluation. Nothing here knows ROS."""
