# SPDX-License-Identifier: Apache-2.0
"""The robot side of GR00T: topics to observations, action chunks to safe commands.

``__path__`` is extended so that the compiled interfaces (``gr00t_ros.msg``), which live in the installation,
are found also when the source tree comes first on ``sys.path``.
"""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
