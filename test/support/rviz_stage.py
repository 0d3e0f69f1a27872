# SPDX-License-Identifier: Apache-2.0
"""Puts recorded messages before RViz 1.14. Runs under Debian's own Python, which has ROS 1.

    /usr/bin/python3 rviz_stage.py FILE

FILE (JSON) holds ``description``, ``transforms`` (TransformStamped), ``markers`` and ``path``, each message
as nested mappings of its ROS 2 fields. They are published until the process is ended.
"""

import json
import sys
import time
from pathlib import Path

import roslib.message
import rospy
from nav_msgs.msg import Path as PathMessage
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import MarkerArray


def filled(kind, values):
    """A ROS 1 message with the fields that both have. Stamps stay zero: what holds now."""
    message = kind()
    for name, type_name in zip(message.__slots__, message._slot_types, strict=True):
        value = values.get(name)
        if value is None or type_name in ("time", "duration"):
            continue
        plain = type_name.split("[")[0]
        inner = roslib.message.get_message_class(plain) if "/" in plain else None
        if inner is not None:
            value = [filled(inner, one) for one in value] if type_name.endswith("]") else filled(inner, value)
        setattr(message, name, value)
    return message


def main():
    given = json.loads(Path(sys.argv[1]).read_text())
    rospy.set_param("/robot_description", given["description"])
    rospy.init_node("stage", disable_signals=True)
    markers = rospy.Publisher("/gr00t/markers", MarkerArray, queue_size=1, latch=True)
    path = rospy.Publisher("/gr00t/executed_path", PathMessage, queue_size=1, latch=True)
    transforms = rospy.Publisher("/tf", TFMessage, queue_size=1)
    where = filled(TFMessage, {"transforms": given["transforms"]})
    what = filled(MarkerArray, {"markers": given["markers"]})
    way = filled(PathMessage, given["path"])
    while True:
        for transform in where.transforms:
            transform.header.stamp = rospy.Time.now()
        transforms.publish(where)
        markers.publish(what)
        path.publish(way)
        time.sleep(0.3)


main()
