# SPDX-License-Identifier: Apache-2.0
"""Node parameters: what each node declares, and how a wrong value is answered.

Both lifecycle nodes describe their parameters as a tuple of :class:`ParameterSpec` and hand it to
:class:`Parameters`, the one place that declares, checks and reads them. Three habits of plain rclpy are
made kinder here: a whole number is taken where a real one is expected (``rate: 20``, at the start and by
``ros2 param set``), a misspelt name is pointed out instead of ignored, and a parameter that is read at
configure time refuses a change that would have no effect.
"""

from __future__ import annotations

import array
import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from gr00t_ros.errors import Gr00tRosError

# The robot description (config/robots/*.yaml) arrives as parameters below this name.
ROBOT_PREFIX = "robot"
# Parameters that rclpy itself declares on a node, in one distribution or another.
_FOREIGN = ("use_sim_time", "start_type_description_service", "qos_overrides.")


class ParameterError(Gr00tRosError):
    """A node parameter has a wrong type or value."""


@dataclass(frozen=True, slots=True)
class ParameterSpec:
    """One parameter of a node.

    ``runtime`` parameters act at once; all others are read by configure, and refuse a change while the node
    is configured. ``minimum`` and ``maximum`` are inclusive and in ``unit``. ``verify`` refuses a value of
    the right type by raising a Gr00tRosError.
    """

    name: str
    default: bool | int | float | str
    description: str
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    runtime: bool = False
    read_only: bool = False
    verify: Callable[[Any], Any] | None = None

    def descriptor(self) -> ParameterDescriptor:
        """The ROS description: text with the unit and, for numbers, the range."""
        text = self.description + (f" [{self.unit}]" if self.unit else "")
        extra = f"one of: {', '.join(self.choices)}" if self.choices else ""
        descriptor = ParameterDescriptor(
            description=text, additional_constraints=extra, read_only=self.read_only
        )
        if self.minimum is not None and self.maximum is not None:
            if isinstance(self.default, float):
                descriptor.floating_point_range = [
                    FloatingPointRange(from_value=float(self.minimum), to_value=float(self.maximum), step=0.0)
                ]
            else:
                descriptor.integer_range = [
                    IntegerRange(from_value=int(self.minimum), to_value=int(self.maximum), step=0)
                ]
        return descriptor

    def check(self, value: Any) -> bool | int | float | str:
        """``value`` as this parameter's type; raises ParameterError that says what was expected."""
        kind = type(self.default)
        if isinstance(value, bool) and {"on", "off"} <= set(self.choices):
            value = "on" if value else "off"  # as YAML reads these two words without quotes
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not kind:
            raise ParameterError(f"parameter {self.name}: got {value!r}, expected {self._expected()}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ParameterError(f"parameter {self.name}: got {value!r}, expected {self._expected()}")
        if self.choices and value not in self.choices:
            raise ParameterError(f"parameter {self.name}: got {value!r}, expected {self._expected()}")
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            too_small = self.minimum is not None and value < self.minimum
            too_large = self.maximum is not None and value > self.maximum
            if too_small or too_large:
                raise ParameterError(f"parameter {self.name}: got {value!r}, expected {self._expected()}")
        if self.verify is not None:
            try:
                self.verify(value)
            except Gr00tRosError as error:
                raise ParameterError(f"parameter {self.name}: {error}") from error
        return value  # type: ignore[no-any-return]

    def _expected(self) -> str:
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        noun = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}[
            type(self.default)
        ]
        if self.minimum is not None and self.maximum is not None:
            noun += f" from {self.minimum:g} to {self.maximum:g}"
        return noun + (f" {self.unit}" if self.unit else "")


class Parameters:
    """The declared parameters of one node.

    The node must have been created with ``automatically_declare_parameters_from_overrides`` and
    ``allow_undeclared_parameters``, since the keys of a robot description cannot be declared in advance.
    ``frozen`` is true while the node is configured. ``on_runtime`` is called with name and value when a
    runtime parameter is set.
    """

    def __init__(self, node: Node, specs: tuple[ParameterSpec, ...]) -> None:
        """Declares ``specs`` on ``node``; raises ParameterError for an override of a wrong type or value."""
        self.frozen = False
        self.on_runtime: Callable[[str, Any], None] | None = None
        self._node = node
        self._specs = {spec.name: spec for spec in specs}
        for spec in specs:
            value = spec.default
            if node.has_parameter(spec.name):
                value = spec.check(node.get_parameter(spec.name).value)
                node.undeclare_parameter(spec.name)
            node.declare_parameter(spec.name, value, spec.descriptor(), ignore_override=True)
        for name in sorted(node.get_parameters_by_prefix("")):
            hint = self._unknown(name)
            if hint:
                node.get_logger().warning(hint)
        node.add_on_set_parameters_callback(self._on_set)

    def __getitem__(self, name: str) -> Any:
        return self._node.get_parameter(self._specs[name].name).value

    def widened(self, parameters: list[Parameter]) -> list[Parameter]:
        """``parameters`` with whole numbers as real ones where those are declared.

        For the node to call before rclpy compares types. ``dynamic_typing`` would let them through as well,
        but then the parameter could be deleted, and ``ros2 param describe`` would know no type.
        """
        return [
            Parameter(p.name, Parameter.Type.DOUBLE, float(p.value))
            if p.type_ == Parameter.Type.INTEGER
            and p.name in self._specs
            and isinstance(self._specs[p.name].default, float)
            else p
            for p in parameters
        ]

    def robot(self) -> dict[str, Any]:
        """The robot description as flat keys without the prefix: ``{"video.front.topic": "/camera/front",
        ...}``."""
        values = {}
        for name, parameter in self._node.get_parameters_by_prefix(ROBOT_PREFIX).items():
            value = parameter.value
            if value is not None:
                values[name] = list(value) if isinstance(value, (array.array, tuple)) else value
        return values

    def _unknown(self, name: str) -> str:
        """A sentence about ``name`` when it is none of this node's parameters, else an empty text."""
        if name in self._specs or name.startswith(ROBOT_PREFIX + ".") or name.startswith(_FOREIGN):
            return ""
        near = difflib.get_close_matches(name, self._specs, 1)
        return (
            f"parameter {name!r} is not known to this node and has no effect"
            + (f"; did you mean {near[0]!r}?" if near else "")
            + f" (known: {', '.join(self._specs)}, and {ROBOT_PREFIX}.*)"
        )

    def _on_set(self, parameters: list[Parameter]) -> SetParametersResult:
        for parameter in parameters:
            unknown = self._unknown(parameter.name)
            if unknown:
                return SetParametersResult(successful=False, reason=unknown)
            spec = self._specs.get(parameter.name)
            if parameter.type_ == Parameter.Type.NOT_SET:
                continue
            if spec is not None:
                try:
                    spec.check(parameter.value)
                except ParameterError as error:
                    return SetParametersResult(successful=False, reason=str(error))
            late = parameter.name.startswith(ROBOT_PREFIX + ".") or (spec is not None and not spec.runtime)
            if self.frozen and late:
                reason = f"{parameter.name} is read at configure time: clean up the node before setting it"
                return SetParametersResult(successful=False, reason=reason)
        for parameter in parameters:
            if parameter.name in self._specs and self._specs[parameter.name].runtime and self.on_runtime:
                self.on_runtime(parameter.name, parameter.value)
        return SetParametersResult(successful=True)
