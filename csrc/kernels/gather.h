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
    for (int64_t i = range.begin; i < range.end; ++i) {
        const F* const next = table.row(indices[i + ahead < last ? i + ahead : last]);
        const F* const source = table.row(indices[i]);
        F* const target = out.row(i);
        for_blocks<F>(table.cols, [&](auto width, int64_t d, Tail<F> tail) HOTROW_INLINE_LAMBDA {
            constexpr int N = decltype(width)::value;
            prefetch_block<N>(next + d, tail);
            pack<F> block[N];
            for (int k = 0; k < N; ++k) block[k] = load_block<N>(source + d, k, tail);
            for (int k = 0; k < N; ++k) store_block<N>(target + d, k, block[k], tail);
        });
    }
}

}  // namespace
}  // namespace HOTROW_ISA
}  // namespace hotrow
