# SPDX-License-Identifier: Apache-2.0
"""What a caller or a file gives for an array, as an array of numbers or as one kind of error."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class NotNumbersError(Exception):
    """The value is no array of real numbers; its text says why. Callers name the key and what they expect."""


def as_array(value: Any) -> NDArray[Any]:
    """``np.asarray`` of lists, arrays and CPU tensors.

    Raises:
        NotNumbersError: lists of unequal length, a tensor that needs a gradient or lies on a device.
    """
    try:
        return np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        raise NotNumbersError(str(error)) from None


def as_floats(value: Any) -> NDArray[np.float64]:
    """Real numbers as float64; None becomes NaN.

    Raises:
        NotNumbersError: as :func:`as_array`; or text, complex numbers, integers beyond float64.
    """
    array = as_array(value)
    if array.dtype.kind not in "biufO":  # O: integers beyond 64 bits come as objects
        raise NotNumbersError(f"found type {array.dtype}")
    try:
        return array.astype(np.float64, copy=False)
    except (ValueError, TypeError, OverflowError) as error:
        raise NotNumbersError(str(error)) from None
