# SPDX-License-Identifier: Apache-2.0
"""The starting noise of an action chunk, as a function of a seed and the observation's time.

A robot's log holds the seed and every chunk's stamp, so any chunk can be computed again offline, bit for
bit the same starting point. The policy calls this once a chunk; tests and offline evaluation call it with
the logged numbers.
"""

import numpy as np

_WORD = 1 << 64


def chunk_noise(seed: int, t_obs_ns: int, horizon: int, width: int) -> np.ndarray:
    """Standard normal noise for one chunk.

    Philox is counter based and its raw stream is fixed by its paper (Salmon et al. 2011), unlike
    ``Generator.standard_normal``, whose stream NumPy may change between releases. Normals come from it by the
    Box-Muller transform.

    Args:
        seed: any integer; taken modulo 2**64.
        t_obs_ns: stamp of the newest camera frame used, in nanoseconds; taken modulo 2**64.
        horizon: action steps H in the chunk.
        width: padded action width D of the checkpoint.

    Returns:
        float32 [1, H, D].
    """
    stream = np.random.Philox(key=np.array([seed % _WORD, t_obs_ns % _WORD], dtype=np.uint64))
    count = horizon * width
    pairs = (count + 1) // 2
    # 53 bits fill a double's mantissa; the half step keeps the logarithm's argument above zero.
    uniform = ((stream.random_raw(2 * pairs) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    radius = np.sqrt(-2.0 * np.log(uniform[:pairs]))
    angle = 2.0 * np.pi * uniform[pairs:]
    normal = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]
    return normal.astype(np.float32).reshape(1, horizon, width)
