#pragma once
#include "kernels/simd.h"

namespace hotrow {
namespace HOTROW_ISA {
namespace {

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
