# SPDX-License-Identifier: Apache-2.0
"""The nodes: thin, they wire the rest of the package to rclpy. Nothing outside ``nodes/`` and ``cli/``
imports rclpy."""
