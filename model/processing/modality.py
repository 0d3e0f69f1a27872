# SPDX-License-Identifier: Apache-2.0
"""What an embodiment feeds the policy and what it gets back: keys, time steps and how each key is scaled.

One :class:`ModalityConfig` a modality ("video", "state", "action", "language"), four of them an embodiment.
They are read from ``processor_config.json`` of a checkpoint or written in Python for a new robot; everything
else in this package, and the robot side's observation builder, asks them which keys exist and in which order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gr00t_model.errors import ConfigError
from gr00t_model.sizes import is_int

MODALITIES = ("video", "state", "action", "language")

# RELATIVE is expressed against the last state step. ABSOLUTE and DELTA reach the network as the dataset holds
# them (DELTA only says what the numbers mean to the controller).
REPRESENTATIONS = ("ABSOLUTE", "RELATIVE", "DELTA")
ACTION_TYPES = ("NON_EEF", "EEF")
# Layout of an end-effector pose: xyz followed by two rotation matrix rows, or by a rotation vector.
ACTION_FORMATS = ("DEFAULT", "XYZ_ROT6D", "XYZ_ROTVEC")


@dataclass(frozen=True)
class ActionConfig:
    """How one action key is represented.

    Args:
        rep: one of ``REPRESENTATIONS``.
        type: ``EEF`` for an end-effector pose, else ``NON_EEF``.
        format: layout of the pose, one of ``ACTION_FORMATS``.
        state_key: the state key a RELATIVE action is expressed against; ``None`` means the key of the same
            name.
    """

    rep: str = "ABSOLUTE"
    type: str = "NON_EEF"
    format: str = "DEFAULT"
    state_key: str | None = None

    def __post_init__(self) -> None:
        for field, allowed in (("rep", REPRESENTATIONS), ("type", ACTION_TYPES), ("format", ACTION_FORMATS)):
            value = getattr(self, field)
            if value not in allowed:
                raise ConfigError(
                    f"action config: {field} is {value!r}, expected one of {', '.join(allowed)}"
                )
        if self.relative and self.type == "EEF" and self.format == "DEFAULT":
            raise ConfigError(
                "action config: a RELATIVE end-effector action needs format XYZ_ROT6D or "
                "XYZ_ROTVEC, found DEFAULT"
            )

    @property
    def relative(self) -> bool:
        """Whether the action is expressed against a state."""
        return self.rep == "RELATIVE"


@dataclass(frozen=True)
class ModalityConfig:
    """The keys of one modality, in the order the network sees them.

    Args:
        delta_indices: time steps relative to the observation, e.g. ``(0,)`` for now, ``(0, ..., 15)`` for 16
            actions.
        modality_keys: names of cameras, state groups, action groups or of the instruction.
        sin_cos_embedding_keys: state keys given as sines and cosines instead of being normalised.
        mean_std_embedding_keys: keys scaled by mean and standard deviation; the others by their range.
        action_configs: one entry an action key, in order; empty means ABSOLUTE for all.
    """

    delta_indices: tuple[int, ...]
    modality_keys: tuple[str, ...]
    sin_cos_embedding_keys: tuple[str, ...] = ()
    mean_std_embedding_keys: tuple[str, ...] = ()
    action_configs: tuple[ActionConfig, ...] = ()

    def __post_init__(self) -> None:
        for field in ("delta_indices", "modality_keys"):
            if not getattr(self, field):
                raise ConfigError(f"modality config: {field} is empty, expected at least one entry")
        if len(set(self.modality_keys)) != len(self.modality_keys):
            raise ConfigError(f"modality config: a key appears twice in {list(self.modality_keys)}")
        for field in ("sin_cos_embedding_keys", "mean_std_embedding_keys"):
            unknown = [key for key in getattr(self, field) if key not in self.modality_keys]
            if unknown:
                raise ConfigError(
                    f"modality config: {field} names {', '.join(unknown)}, expected keys of "
                    f"{list(self.modality_keys)}"
                )
        if self.action_configs and len(self.action_configs) != len(self.modality_keys):
            raise ConfigError(
                f"modality config: {len(self.action_configs)} action_configs for "
                f"{len(self.modality_keys)} keys, "
                "expected one a key"
            )

    @property
    def horizon(self) -> int:
        """Number of time steps."""
        return len(self.delta_indices)

    def action_config(self, key: str) -> ActionConfig:
        """The representation of one action key."""
        if not self.action_configs:
            return ActionConfig()
        return self.action_configs[self.modality_keys.index(key)]

    @classmethod
    def from_mapping(cls, data: Mapping[str, Any], where: str = "modality config") -> ModalityConfig:
        """Parse the form stored in ``processor_config.json``; errors name ``where``."""
        if not isinstance(data, Mapping):
            raise ConfigError(f"{where}: expected a mapping, found {type(data).__name__}")
        unknown = set(data) - set(cls.__dataclass_fields__)
        if unknown:
            raise ConfigError(
                f"{where}: unknown entries {sorted(unknown)}, expected {sorted(cls.__dataclass_fields__)}"
            )
        try:
            return cls(
                delta_indices=_integers(data.get("delta_indices"), "delta_indices"),
                modality_keys=_strings(data.get("modality_keys"), "modality_keys"),
                sin_cos_embedding_keys=_strings(
                    data.get("sin_cos_embedding_keys") or (), "sin_cos_embedding_keys"
                ),
                mean_std_embedding_keys=_strings(
                    data.get("mean_std_embedding_keys") or (), "mean_std_embedding_keys"
                ),
                action_configs=_action_configs(data.get("action_configs") or ()),
            )
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None

    def to_mapping(self) -> dict[str, Any]:
        """The form stored in ``processor_config.json``."""
        return {
            "delta_indices": list(self.delta_indices),
            "modality_keys": list(self.modality_keys),
            "sin_cos_embedding_keys": list(self.sin_cos_embedding_keys) or None,
            "mean_std_embedding_keys": list(self.mean_std_embedding_keys) or None,
            "action_configs": [asdict(entry) for entry in self.action_configs] or None,
        }


def parse_modality_configs(data: Mapping[str, Any]) -> dict[str, dict[str, ModalityConfig]]:
    """Parse ``{tag: {modality: config}}``; entries may already be :class:`ModalityConfig`.

    Raises:
        ConfigError: a tag lacks a modality, or one of its configs is wrong.
    """
    parsed: dict[str, dict[str, ModalityConfig]] = {}
    for tag, modalities in data.items():
        if not isinstance(modalities, Mapping):
            raise ConfigError(
                f"modality_configs.{tag}: expected a mapping, found {type(modalities).__name__}"
            )
        missing = [name for name in MODALITIES if name not in modalities]
        if missing:
            raise ConfigError(
                f"modality_configs.{tag}: missing {', '.join(missing)}, expected {', '.join(MODALITIES)}"
            )
        parsed[tag] = {
            name: entry
            if isinstance(entry, ModalityConfig)
            else ModalityConfig.from_mapping(entry, f"modality_configs.{tag}.{name}")
            for name, entry in modalities.items()
        }
        _check_references(tag, parsed[tag])
    return parsed


def _check_references(tag: str, modalities: Mapping[str, ModalityConfig]) -> None:
    action, state = modalities["action"], modalities["state"]
    for key in action.modality_keys:
        config = action.action_config(key)
        wanted = config.state_key or key
        if config.relative and wanted not in state.modality_keys:
            raise ConfigError(
                f"modality_configs.{tag}.action: {key} is RELATIVE to state {wanted!r}, "
                f"expected a state key of {list(state.modality_keys)}"
            )


def _action_configs(value: Any) -> tuple[ActionConfig, ...]:
    if not isinstance(value, list | tuple):
        raise ConfigError(f"action_configs is {value!r}, expected a list of mappings")
    return tuple(_action_config(entry) for entry in value)


def _action_config(data: Any) -> ActionConfig:
    if isinstance(data, ActionConfig):
        return data
    if not isinstance(data, Mapping):
        raise ConfigError(f"action_configs: expected mappings, found {type(data).__name__}")
    unknown = set(data) - set(ActionConfig.__dataclass_fields__)
    if unknown:
        raise ConfigError(
            f"action_configs: unknown entries {sorted(unknown)}, expected "
            f"{sorted(ActionConfig.__dataclass_fields__)}"
        )
    # Names are stored in capitals; the lower-case form with a plus sign ("xyz+rot6d") is in use as well.
    names = {
        field: str(data.get(field) or default).upper().replace("+", "_")
        for field, default in (("rep", "ABSOLUTE"), ("type", "NON_EEF"), ("format", "DEFAULT"))
    }
    state_key = data.get("state_key")
    if state_key is not None and not isinstance(state_key, str):
        raise ConfigError(f"action_configs: state_key is {state_key!r}, expected a state key or null")
    return ActionConfig(**names, state_key=state_key)


def _strings(value: Any, field: str) -> tuple[str, ...]:
    if (
        not isinstance(value, Sequence)
        or isinstance(value, str)
        or not all(isinstance(v, str) for v in value)
    ):
        raise ConfigError(f"{field} is {value!r}, expected a list of names")
    return tuple(value)


def _integers(value: Any, field: str) -> tuple[int, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str) or not all(is_int(v) for v in value):
        raise ConfigError(f"{field} is {value!r}, expected a list of integers")
    return tuple(value)
