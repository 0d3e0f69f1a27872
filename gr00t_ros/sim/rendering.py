# SPDX-License-Identifier: Apache-2.0
"""Pictures of the simulated scene: which OpenGL to use where there is no display, and the cameras' renderer.

Used by ``so101.py``. Nothing here may import mujoco at module level: mujoco reads ``MUJOCO_GL`` when it is
imported, and ``choose_renderer`` must have set it by then.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gr00t_ros.errors import SimulationError

HOW_TO_INSTALL = (
    "install one: apt-get install libegl1 libgl1 (EGL, also without a GPU), or apt-get install libosmesa6"
)
# One core for the software rasterizer: the others belong to the network. A GPU driver ignores it.
_RASTERIZER_THREADS = "1"


def choose_renderer() -> str:
    """Sets and returns MUJOCO_GL: what the user has set, else ``egl`` where it has a device, else ``osmesa``.

    Call before the first ``import mujoco`` of the process. Raises SimulationError that names the Debian
    packages when there is neither.
    """
    os.environ.setdefault("LP_NUM_THREADS", _RASTERIZER_THREADS)
    chosen = os.environ.get("MUJOCO_GL", "").lower()
    if not chosen:
        if _egl_devices() > 0:
            chosen = "egl"
        elif ctypes.util.find_library("OSMesa"):
            chosen = "osmesa"
        else:
            raise SimulationError(f"no off-screen OpenGL for the simulated cameras; {HOW_TO_INSTALL}")
        os.environ["MUJOCO_GL"] = chosen
    return chosen


def _egl_devices() -> int:
    """How many devices EGL offers (the software one counts); 0 where the library is missing or broken."""
    try:
        egl = ctypes.CDLL("libEGL.so.1")
        egl.eglGetProcAddress.restype = ctypes.c_void_p
        address = egl.eglGetProcAddress(b"eglQueryDevicesEXT")
    except (OSError, AttributeError):
        return 0
    if not address:
        return 0
    query = ctypes.CFUNCTYPE(ctypes.c_uint, ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int))(
        address
    )
    count = ctypes.c_int(0)
    return count.value if query(0, None, ctypes.byref(count)) else 0


class CameraRenderer:
    """Renders the cameras of one model from joint positions, with a physics state of its own.

    An OpenGL context belongs to the thread that made it: create, use and close a renderer in one thread. It
    shares only the constant model with the simulation, so that thread never waits for the physics.
    """

    def __init__(self, model: Any, width: int, height: int, shadows: bool = False) -> None:
        import mujoco

        self._mujoco = mujoco
        self._model = model
        self._data = mujoco.MjData(model)
        try:
            self._renderer = mujoco.Renderer(model, height, width)
        except Exception as error:  # PyOpenGL, EGL and OSMesa each raise types of their own
            raise SimulationError(
                f"MUJOCO_GL={os.environ.get('MUJOCO_GL', '')} gives no off-screen OpenGL context ({error}); "
                f"unset MUJOCO_GL or {HOW_TO_INSTALL}"
            ) from error
        flags = self._renderer.scene.flags
        # Shadows cost a software renderer 20 ms a picture, three times the picture itself.
        flags[mujoco.mjtRndFlag.mjRND_SHADOW] = int(shadows)
        flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0

    def render(self, positions: NDArray[np.float64], cameras: Sequence[str]) -> list[NDArray[np.uint8]]:
        """Pictures [H, W, 3] RGB of ``cameras`` with the scene at ``positions`` (the model's qpos)."""
        mujoco = self._mujoco
        self._data.qpos[:] = positions
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_comPos(self._model, self._data)
        mujoco.mj_camlight(self._model, self._data)
        pictures = []
        for camera in cameras:
            self._renderer.update_scene(self._data, camera)
            pictures.append(np.array(self._renderer.render()))
        return pictures

    def close(self) -> None:
        """Gives the OpenGL context back; call in the thread that made the renderer."""
        self._renderer.close()
