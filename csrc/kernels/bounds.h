#pragma once
#include "kernels/simd.h"

namespace hotrow {
namespace HOTROW_ISA {
namespace {

// Whether 0 <= indices[i] < rows for all i. The sign of x | (rows - 1 - x) is set just for x < 0 and x >= rows, which
// every ISA can compute on a whole register. Four sums, because one would wait for itself.
template <class I>
bool all_below(const I* indices, Range range, uint64_t rows) {
    using U = typename unsigned_of<I>::type;  // wraps; each operand's sign bit is what counts
    constexpr uint64_t highest = U(-1) >> 1;
    const U last = rows <= highest ? U(rows - 1) : U(highest);
    const U* const x = reinterpret_cast<const U*>(indices);
    constexpr int N = 4;
    pack<U> signs[N] = {};
    int64_t i = range.begin;
    for (; i + N * lanes<U> <= range.end; i += N * lanes<U>)
        for (int k = 0; k < N; ++k) {
            const pack<U> a = load(x + i + k * lanes<U>);
            signs[k] |= a | (last - a);
        }
    const pack<U> sign = (signs[0] | signs[1]) | (signs[2] | signs[3]);
    U any = 0;
    for (int k = 0; k < lanes<U>; ++k) any |= sign[k];
    for (; i < range.end; ++i) any |= x[i] | (last - x[i]);
    return any >> (sizeof(U) * 8 - 1) == 0;
}

}  // namespace
}  // namespace HOTROW_ISA
}  // namespace hotrow
