// Counter-based random draws: a pure function of (seed, stream, index), so that neither threads nor ISA change them.
// The output function is SplitMix64's (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
// Kernels include this file too: integers only, always inlined. Python twins: reference/skipgram.py and _numba/random.py.
#pragma once
#include <cstdint>

#include "view.h"

namespace hotrow {

enum class Stream : uint64_t { keep = 1, window = 2, negative = 3 };

HOTROW_INLINE uint64_t mix(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}

// One stream of draws.
struct Draws {
    uint64_t key;
    HOTROW_INLINE Draws(uint64_t seed, Stream stream) : key(mix(seed + uint64_t(stream) * 0x9E3779B97F4A7C15ull)) {}
    HOTROW_INLINE uint64_t operator[](uint64_t index) const {
        return mix(key + (index + 1) * 0x9E3779B97F4A7C15ull);
    }
};

// The upper half of a draw as an integer in [0, n), n < 2^32.
HOTROW_INLINE uint64_t scale_high(uint64_t draw, uint64_t n) { return ((draw >> 32) * n) >> 32; }
HOTROW_INLINE uint32_t low(uint64_t draw) { return uint32_t(draw); }

}  // namespace hotrow
