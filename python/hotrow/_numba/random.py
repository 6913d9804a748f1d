"""Counter-based random draws: as csrc/runtime/random.h."""

from __future__ import annotations

import numpy as np

from hotrow._numba.views import inline, jit

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@inline
def mix(z):
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@jit
def draw(seed, stream, index):
    return mix(mix(seed + stream * GOLDEN) + (np.uint64(index) + np.uint64(1)) * GOLDEN)
