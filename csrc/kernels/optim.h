// Optimizer steps fused with de-duplication: lookups come sorted by row, each row is read and written once.
#pragma once
#include "kernels/scatter.h"

namespace hotrow {
namespace HOTROW_ISA {
namespace {

// table[row, :] -= lr * sum of grads[position, :] over the lookups of that row, ascending position
template <class F, class I>
void sgd_step(const Lookup<I>* lookups, Mat<const F> grads, F lr, Range range, Mat<F> table) {
    for_run_sums<true>(lookups, grads, range, table,
                       [&](I index, auto width, int64_t d, Tail<F> tail, const pack<F>* sum) HOTROW_INLINE_LAMBDA {
                           constexpr int N = decltype(width)::value;
                           F* const row = table.row(index) + d;
                           HOTROW_UNROLL
                           for (int k = 0; k < N; ++k)
                               store_block<N>(row, k,
                                              load_block<N>(static_cast<const F*>(row), k, tail) - sum[k] * lr, tail);
                       });
}

}  // namespace
}  // namespace HOTROW_ISA
}  // namespace hotrow
