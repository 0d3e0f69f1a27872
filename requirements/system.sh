#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Prints the Debian and Ubuntu packages that are missing here, in one line; prints nothing when all are there.
# Used by the Makefile, which names them to people, and by .ci/run, which installs them. PYTHON: the Python to use.
PYTHON=${PYTHON:-python3}
missing=

need() { missing="$missing $*"; }

command -v c++ >/dev/null || need g++
command -v cmake >/dev/null || need cmake
if command -v "$PYTHON" >/dev/null; then
    "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || need python3-venv
    "$PYTHON" -c 'import os, sys, sysconfig
sys.exit(not os.path.isfile(os.path.join(sysconfig.get_path("include"), "Python.h")))' || need python3-dev
    # The simulated cameras render off screen: through EGL (also without a GPU), or through OSMesa.
    "$PYTHON" -c 'import ctypes
for names in (("libEGL.so.1", "libGL.so.1"), ("libOSMesa.so.8",), ("libOSMesa.so.6",)):
    try:
        for name in names:
            ctypes.CDLL(name)
        break
    except OSError:
        continue
else:
    raise SystemExit(1)' || need libegl1 libgl1
else
    need python3 python3-venv python3-dev libegl1 libgl1
fi
echo $missing
