// Tables of 16-bit elements: widened to float32 in registers, rounded where they are stored. The rounding is written in
// integers and exact arithmetic, so that every ISA and backend gives the same bits; so does the processor's to nearest.
#pragma once
#include "kernels/simd.h"
#include "runtime/random.h"

namespace hotrow {
namespace HOTROW_ISA {
namespace {

typedef uint16_t halves __attribute__((vector_size(lanes<float> * 2)));
using words = pack<uint32_t>;

HOTROW_INLINE halves load_bits(const void* p, int count) {
    halves h{};
    if (count == lanes<float>) {
        __builtin_memcpy(&h, p, sizeof h);
    } else {
#if defined(__AVX512F__)
        h = halves(_mm256_maskz_loadu_epi16(__mmask16((1u << count) - 1), p));
#else
        const uint16_t* const bits = static_cast<const uint16_t*>(p);
        for (int i = 0; i < lanes<float>; ++i)
            if (i < count) h[i] = bits[i];
#endif
    }
    return h;
}
HOTROW_INLINE void store_bits(void* p, words x, int count) {
    const halves h = __builtin_convertvector(x, halves);
    if (count == lanes<float>) {
        __builtin_memcpy(p, &h, sizeof h);
    } else {
#if defined(__AVX512F__)
        _mm256_mask_storeu_epi16(p, __mmask16((1u << count) - 1), __m256i(h));
#else
        uint16_t* const bits = static_cast<uint16_t*>(p);
        for (int i = 0; i < lanes<float>; ++i)
            if (i < count) bits[i] = h[i];
#endif
    }
}

HOTROW_INLINE words widen_bits(halves h) {
#if defined(__AVX512F__)
    return words(_mm512_maskz_cvtepu16_epi32(0xFFFF, __m256i(h)));  // GCC 12 makes five of __builtin_convertvector
#else
    return __builtin_convertvector(h, words);
#endif
}
HOTROW_INLINE pack<float> widen(halves h, const BFloat*) { return pack<float>(widen_bits(h) << 16); }
// Exponent and significand move to their places in a float32; a subnormal number then lacks its leading one.
HOTROW_INLINE pack<float> widen(halves h, const Half*) {
#if defined(__AVX512F__)
    return pack<float>(_mm512_maskz_cvtph_ps(0xFFFF, __m256i(h)));
#elif defined(__F16C__)
    return pack<float>(_mm256_cvtph_ps(__m128i(h)));
#else
    const words x = widen_bits(h), sign = (x & 0x8000u) << 16, exponent = x & 0x7c00u;
    const words magnitude = ((x & 0x7fffu) << 13) + (112u << 23);
    const pack<float> subnormal = pack<float>(magnitude + (1u << 23)) - 0x1p-14f;
    const words special = magnitude + (112u << 23);
    const words found = exponent == 0 ? words(subnormal) : exponent == 0x7c00u ? special : magnitude;
    return pack<float>(found | sign);
#endif
}

// The draws of a row: 32 bits for each column (the hash is Wellons' lowbias32, 2018).
struct RowRounding {
    bool stochastic;
    uint32_t key;
    HOTROW_INLINE RowRounding(const Rounding& rounding, int64_t row)
        : stochastic(rounding.stochastic), key(uint32_t(mix(rounding.key + uint64_t(row) * 0x9E3779B97F4A7C15ull))) {}
    HOTROW_INLINE words draw(int64_t d) const {
        words x;
        for (int i = 0; i < lanes<float>; ++i) x[i] = uint32_t(i);
        x = (x + uint32_t(d)) * 0x9E3779B9u + key;
        x ^= x >> 16;
        x *= 0x7feb352du;
        x ^= x >> 15;
        x *= 0x846ca68bu;
        return x ^ (x >> 16);
    }
};

// Upper half of the bits, after adding what carries if the lower half exceeds a draw, or half of its range, or is just
// that half and the number would be odd.
HOTROW_INLINE words narrow(pack<float> x, const BFloat*, const RowRounding& rounding, int64_t d) {
    const words bits = words(x), kept = bits >> 16;
    const words carry = rounding.stochastic ? 0xffffu - (rounding.draw(d) >> 16) : 0x7fffu + (kept & 1u);
    return x != x ? kept | 0x40u : (bits + carry) >> 16;
}
// |x| counts steps of the half-precision numbers around it; n of them, n <= 2048, are its bits if the exponent is added.
HOTROW_INLINE words narrow(pack<float> x, const Half*, const RowRounding& rounding, int64_t d) {
    const words bits = words(x), nan = 0x7e00u | bits >> 31 << 15;
#if defined(__AVX512F__)
    if (!rounding.stochastic) return x != x ? nan : widen_bits(halves(_mm512_maskz_cvtps_ph(0xFFFF, __m512(x), 0)));
#elif defined(__F16C__)
    if (!rounding.stochastic) return x != x ? nan : widen_bits(halves(_mm256_cvtps_ph(__m256(x), 0)));
#endif
    const words magnitude = bits & 0x7fffffffu, raw = magnitude >> 23;
    const words exponent = raw < 113u ? words{} + 113u : raw > 143u ? words{} + 143u : raw;
    const pack<float> steps = pack<float>(magnitude) * pack<float>((264u - exponent) << 23);  // exact: a power of two
    const pack<float> at_most = steps < 4096.0f ? steps : broadcast<float>(4096.0f);
    const pack<int32_t> whole = __builtin_convertvector(at_most, pack<int32_t>);
    const pack<float> rest = at_most - __builtin_convertvector(whole, pack<float>);
    const pack<float> draw = __builtin_convertvector(pack<int32_t>(rounding.draw(d) >> 8), pack<float>) * 0x1p-24f;
    const pack<int32_t> nearest = (rest > 0.5f) | ((rest == 0.5f) & ((whole & 1) != 0));
    const words up = words(rounding.stochastic ? pack<int32_t>(rest > draw) : nearest) & 1u;
    const words found = ((exponent - 113u) << 10) + words(whole) + up;
    const words finite = found < 0x7c00u ? found : words{} + 0x7c00u;
    return x != x ? nan : finite | bits >> 31 << 15;
}

HOTROW_INLINE pack<float> load(const Half* p) { return widen(load_bits(p, lanes<float>), p); }
HOTROW_INLINE pack<float> load(const BFloat* p) { return widen(load_bits(p, lanes<float>), p); }
template <class End>
HOTROW_INLINE pack<float> load(const Half* p, End tail) { return widen(load_bits(p, tail.count), p); }
template <class End>
HOTROW_INLINE pack<float> load(const BFloat* p, End tail) { return widen(load_bits(p, tail.count), p); }

// Stores columns d and on of a table's row.
template <class F, class End>
HOTROW_INLINE void store_row(F* row, int64_t d, pack<F> x, End tail, const RowRounding&) { store(row + d, x, tail); }
template <class End>
HOTROW_INLINE void store_row(Half* row, int64_t d, pack<float> x, End tail, const RowRounding& rounding) {
    store_bits(row + d, narrow(x, row, rounding, d), tail.count);
}
template <class End>
HOTROW_INLINE void store_row(BFloat* row, int64_t d, pack<float> x, End tail, const RowRounding& rounding) {
    store_bits(row + d, narrow(x, row, rounding, d), tail.count);
}

// out[r, :] = rows[r, :], to nearest
template <class E, class F = real<E>>
void round_rows(Mat<const F> rows, Mat<E> out) {
    for (int64_t r = 0; r < rows.rows; ++r) {
        const F* const source = rows.row(r);
        E* const target = out.row(r);
        for_registers<F>(rows.cols, [=](int64_t d, auto tail) HOTROW_INLINE_LAMBDA {
            store_row(target, d, load(source + d, tail), tail, RowRounding({}, 0));
        });
    }
}

}  // namespace
}  // namespace HOTROW_ISA
}  // namespace hotrow
