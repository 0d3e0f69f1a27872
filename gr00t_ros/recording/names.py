# SPDX-License-Identifier: Apache-2.0
"""What the recorder calls what it leaves; the converter knows it by these names."""

from __future__ import annotations

# Behind the name of an episode's folder while it is written.
RECORDING = ".recording"
# Behind the name of one that is on its way out: from here on nobody takes it for an episode, even if deleting
# is interrupted.
DISCARDED = ".discarded"
# What is known about an episode beside its messages, in its folder.
RECORD_FILE = "episode.json"
# The topic of the marks, in the recorder's namespace, and their type.
EVENTS = "episode_recorder/events"
EVENT_TYPE = "gr00t_ros/msg/EpisodeEvent"
