# SPDX-License-Identifier: Apache-2.0
"""The trainable network, one module a file, under the published checkpoint's parameter names."""

from gr00t_model.network.model import Gr00tN1d6

__all__ = ["Gr00tN1d6"]
