#pragma once
#include "kernels/simd.h"

namespace hotrow {
namespace HOTROW_ISA {
namespace {

// How many lookups ahead a row is fetched: as many as fit 8 KiB, at least 4, at most 32. On a Zen 5 with two channels,
// 32 was best for rows of 256 B, 16 for 512 B and 8 to 16 for 1 KiB.
template <class F>
HOTROW_INLINE int64_t lookahead(int64_t cols) {
    const int64_t fit = 8192 / (cols * int64_t(sizeof(F)) + 1);
    return fit < 4 ? 4 : fit > 32 ? 32 : fit;
}

// out[i, :] = table[indices[i], :]
template <class F, class I>
void gather(Mat<const F> table, const I* indices, Range range, Mat<F> out) {
    const int64_t ahead = lookahead<F>(table.cols), last = range.end - 1;
    for_blocks<F>(table.cols, [=](auto width, int64_t d, Tail<F> tail) HOTROW_OWN_FUNCTION {
        constexpr int N = decltype(width)::value;
        for (int64_t i = range.begin; i < range.end; ++i) {
            prefetch_block<N>(table.row(indices[i + ahead < last ? i + ahead : last]) + d, tail);
            const F* const source = table.row(indices[i]) + d;
            F* const target = out.row(i) + d;
            pack<F> block[N];
            HOTROW_UNROLL
            for (int k = 0; k < N; ++k) block[k] = load_block<N>(source, k, tail);
            HOTROW_UNROLL
            for (int k = 0; k < N; ++k) store_block<N>(target, k, block[k], tail);
        }
    });
}

}  // namespace
}  // namespace HOTROW_ISA
}  // namespace hotrow
