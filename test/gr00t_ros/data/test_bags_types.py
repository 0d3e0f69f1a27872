# SPDX-License-Identifier: Apache-2.0
"""Messages whose bytes are not quite those of the message."""

from __future__ import annotations

import numpy as np
import pytest
from rosbags.typesys import Stores, get_typestore

from gr00t_ros.data.bags_types import Types
from gr00t_ros.errors import MessageError

STORE = get_typestore(Stores.ROS2_JAZZY)
KIND = "std_msgs/msg/Float64MultiArray"


def encoded(values: list[float]) -> bytes:
    dimensions = STORE.types["std_msgs/msg/MultiArrayLayout"](dim=[], data_offset=0)
    return bytes(STORE.serialize_cdr(STORE.types[KIND](layout=dimensions, data=np.array(values)), KIND))


@pytest.mark.parametrize("behind", [0, 3, 8, 160])
def test_bytes_behind_a_message_mean_nothing(behind: int) -> None:
    data = memoryview(encoded([1.0, 2.0]) + b"\xa5" * behind)
    assert Types({}).decode(KIND, data, "/commands").data.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("length", [0, 3, 4, 11, 17, 30])
def test_a_message_that_is_cut_off_is_none(length: int) -> None:
    with pytest.raises(MessageError, match=r"/commands: a std_msgs/msg/Float64MultiArray cannot be decoded"):
        Types({}).decode(KIND, memoryview(encoded([1.0, 2.0]))[:length], "/commands")


def test_another_encapsulation_is_told() -> None:
    with pytest.raises(MessageError, match="no CDR encapsulation"):
        Types({}).decode(KIND, memoryview(b"\0\x07" + encoded([1.0])[2:]), "/commands")
