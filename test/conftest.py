# SPDX-License-Identifier: Apache-2.0
"""Says at the top of every test run which copy of the package is tested; no example has a deadline."""

import importlib.util
from pathlib import Path

from hypothesis import settings

# How long an example takes says how busy the machine is.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


def pytest_report_header() -> str:
    places = []
    for name in ("gr00t_ros", "gr00t_model"):
        spec = importlib.util.find_spec(name)
        places.append(f"{name} from {Path(spec.origin).parent if spec and spec.origin else 'nowhere'}")
    return ", ".join(places)
