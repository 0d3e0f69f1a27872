# SPDX-License-Identifier: Apache-2.0
"""What can go wrong on the model side, as types a caller can tell apart.

Every message says what was wrong, where, what was expected and what to do. Commands print the message as
one line.
"""


class Gr00tError(Exception):
    """Base of every error that a user of ``gr00t_model`` can cause or should handle."""


class CheckpointError(Gr00tError):
    """A checkpoint is missing, incomplete, damaged or not of this architecture."""


class ConfigError(Gr00tError):
    """A configuration holds an unknown, impossible or contradictory value."""


class ObservationError(Gr00tError):
    """An observation lacks a key, has a wrong shape or type, or holds non-finite values."""


class EmbodimentError(Gr00tError):
    """An embodiment tag is unknown to the checkpoint, or has no statistics."""


class BackendError(Gr00tError):
    """The asked-for backend, device or precision is not available on this machine."""
