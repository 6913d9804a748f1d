// Optimizer steps fused with de-duplication: lookups come sorted by row, each row is read and written once.
#pragma once
#include "kernels/scatter.h"

namespace hotrow {
namespace HOTROW_ISA {
namespace {

// table[row, :] -= lr * sum of grads[position, :] over the lookups of that row, ascending position
template <class F, class I>
void sgd_step(const Lookup<I>* lookups, Mat<const F> grads, F lr, Range range, Mat<F> table) {
    const int64_t ahead = lookahead<F>(table.cols), row_bytes = table.cols * int64_t(sizeof(F));
    for_runs(lookups, range, [&](I index, int64_t first, int64_t last) HOTROW_INLINE_LAMBDA {
        for (int64_t i = first + ahead; i < last + ahead && i < range.end; ++i)
            prefetch<true>(table.row(lookups[i].row), row_bytes);
        F* row = table.row(index);
        sum_run(lookups, grads, first, last, range.end, [&](auto width, int64_t d, Tail<F> tail, const pack<F>* sum) HOTROW_INLINE_LAMBDA {
            constexpr int N = decltype(width)::value;
            for (int k = 0; k < N; ++k)
                store_block<N>(row + d, k, load_block<N>(static_cast<const F*>(row) + d, k, tail) - sum[k] * lr, tail);
        });
    });
}

}  // namespace
}  // namespace HOTROW_ISA
}  // namespace hotrow
