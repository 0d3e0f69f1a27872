# SPDX-License-Identifier: Apache-2.0
"""Dataset units to SI and back are inverses, with the formula that the robot YAML documents."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gr00t_ros.units import SI, JointUnit, rates_to_dataset, to_dataset, to_si

UNITS = st.builds(
    JointUnit,
    scale=st.floats(1e-4, 1e3),
    offset=st.floats(-10.0, 10.0),
    sign=st.sampled_from([1, -1]),
)


def test_the_documented_formula() -> None:
    unit = JointUnit(scale=0.01, offset=0.5, sign=-1)
    assert to_si([[30.0]], [unit])[0, 0] == -1 * 0.01 * 30.0 + 0.5


def test_degrees() -> None:
    degrees = JointUnit(scale=np.pi / 180)
    np.testing.assert_allclose(to_si([180.0, 1.0], [degrees, SI]), [np.pi, 1.0])
    np.testing.assert_allclose(to_dataset([np.pi, 1.0], [degrees, SI]), [180.0, 1.0])


def test_si_is_left_alone_to_the_last_bit() -> None:
    values = np.random.default_rng(0).normal(size=(5, 2))
    assert np.array_equal(to_si(values, [SI, SI]), values)
    assert np.array_equal(to_dataset(values, [SI, SI]), values)


@given(units=st.lists(UNITS, min_size=1, max_size=4), seed=st.integers(0, 99))
def test_both_ways_are_inverse(units: list[JointUnit], seed: int) -> None:
    values = np.random.default_rng(seed).uniform(-100, 100, (3, len(units)))
    scale = np.array([unit.scale for unit in units])
    np.testing.assert_allclose(
        to_dataset(to_si(values, units), units), values, atol=1e-9 / scale.min(), rtol=1e-9
    )


@given(unit=UNITS, position=st.floats(-5, 5), speed=st.floats(-5, 5))
def test_rates_are_the_derivative_of_positions(unit: JointUnit, position: float, speed: float) -> None:
    before, after = to_dataset([position], [unit]), to_dataset([position + speed], [unit])
    np.testing.assert_allclose(
        rates_to_dataset([speed], [unit]), after - before, rtol=1e-6, atol=1e-9 / unit.scale
    )
