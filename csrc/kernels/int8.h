// Tables of 8-bit elements, read only: widened to float32 in registers, which is exact; their row's scale comes after.
#pragma once
#include "kernels/simd.h"

namespace hotrow {
namespace HOTROW_ISA {
namespace {

typedef int8_t bytes __attribute__((vector_size(16)));  // the first lanes<float> of them count
#if !defined(__AVX512F__)
HOTROW_INLINE bytes of_word(uint64_t word) {
    typedef uint64_t two __attribute__((vector_size(16)));
    return bytes(two{word, 0});
}
// The word whose bytes stand so many places further on in memory.
HOTROW_INLINE uint64_t later(uint64_t word, int places) {
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    return word << 8 * places;
#else
    return word >> 8 * places;
#endif
}
#endif

// GCC 12 converts vectors of bytes one by one: 64 instructions for 16 of them.
HOTROW_INLINE pack<float> widen(bytes b) {
#if defined(__AVX512F__)
    const pack<int32_t> x = pack<int32_t>(_mm512_maskz_cvtepi8_epi32(0xFFFF, __m128i(b)));
#elif defined(__AVX2__)
    const pack<int32_t> x = pack<int32_t>(_mm256_cvtepi8_epi32(__m128i(b)));
#elif defined(__SSE2__)
    const __m128i pairs = _mm_unpacklo_epi8(__m128i(b), __m128i(b));
    const pack<int32_t> x = pack<int32_t>(_mm_unpacklo_epi16(pairs, pairs)) >> 24;
#else
    const pack<int32_t> x =
        pack<int32_t>(__builtin_shufflevector(b, b, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3)) >> 24;
#endif
    return __builtin_convertvector(x, pack<float>);
}

HOTROW_INLINE pack<float> load(const int8_t* p) {
#if defined(__AVX512F__)
    bytes b;
    __builtin_memcpy(&b, p, sizeof b);
    return widen(b);
#else
    uint64_t word = 0;
    __builtin_memcpy(&word, p, lanes<float>);
    return widen(of_word(word));
#endif
}
HOTROW_INLINE pack<float> load(const int8_t* p, Whole<float>) { return load(p); }
HOTROW_INLINE pack<float> load(const int8_t* p, Tail<float> tail) {
#if defined(__AVX512F__)
    return widen(bytes(_mm_maskz_loadu_epi8(tail.mask, p)));
#else
    if (tail.count == lanes<float>) return load(p);
    uint64_t four = 0, two = 0, one = 0;
    if (tail.count & 4) __builtin_memcpy(&four, p, 4);
    if (tail.count & 2) __builtin_memcpy(&two, p + (tail.count & 4), 2);
    if (tail.count & 1) __builtin_memcpy(&one, p + (tail.count & 6), 1);
    return widen(of_word(four | later(two, tail.count & 4) | later(one, tail.count & 6)));
#endif
}

}  // namespace
}  // namespace HOTROW_ISA
}  // namespace hotrow
