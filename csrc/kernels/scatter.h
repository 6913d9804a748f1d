// The gradient of a lookup. Lookups name a gradient row each; see runtime/partition.h for how they are ordered.
#pragma once
#include "kernels/simd.h"

namespace hotrow {
namespace HOTROW_ISA {
namespace {

// table[row, :] += scale * grads[position, :] for each lookup, in the order given (ascending position per row).
template <class F, class I>
void scatter_add(const Lookup<I>* lookups, Mat<const F> grads, F scale, Range range, Mat<F> table) {
    const int64_t ahead = lookahead<F>(table.cols), last = range.end - 1;
    for_blocks<F>(table.cols, [=](auto width, int64_t d, Tail<F> tail) HOTROW_OWN_FUNCTION {
        constexpr int N = decltype(width)::value;
        for (int64_t i = range.begin; i < range.end; ++i) {
            const Lookup<I> next = lookups[i + ahead < last ? i + ahead : last];
            prefetch_block<N>(grads.row(next.position) + d, tail);
            prefetch_block<N, true>(table.row(next.row) + d, tail);
            const F* const grad = grads.row(lookups[i].position) + d;
            F* const row = table.row(lookups[i].row) + d;
            pack<F> sum[N];
            HOTROW_UNROLL
            for (int k = 0; k < N; ++k)
                sum[k] = load_block<N>(static_cast<const F*>(row), k, tail) + load_block<N>(grad, k, tail) * scale;
            HOTROW_UNROLL
            for (int k = 0; k < N; ++k) store_block<N>(row, k, sum[k], tail);
        }
    });
}

// Walks runs of equal rows in sorted lookups and sums the gradients of each in registers, ascending position:
// use(row, width, d, tail, sums). With Write, rows of `table` are fetched to be written.
template <bool Write, class F, class I, class Use>
HOTROW_INLINE void for_run_sums(const Lookup<I>* lookups, Mat<const F> grads, Range range, Mat<F> table, Use&& use) {
    const int64_t ahead = lookahead<F>(grads.cols), last = range.end - 1;
    for_blocks<F>(grads.cols, [=, &use](auto width, int64_t d, Tail<F> tail) HOTROW_OWN_FUNCTION {
        constexpr int N = decltype(width)::value;
        const auto arrive = [&](int64_t i) HOTROW_INLINE_LAMBDA {
            const Lookup<I> next = lookups[i + ahead < last ? i + ahead : last];
            prefetch_block<N>(grads.row(next.position) + d, tail);
            if constexpr (Write) prefetch_block<N, true>(table.row(next.row) + d, tail);
            return grads.row(lookups[i].position) + d;
        };
        for (int64_t i = range.begin; i < range.end;) {
            const I row = lookups[i].row;
            const F* grad = arrive(i);
            pack<F> sum[N];
            HOTROW_UNROLL
            for (int k = 0; k < N; ++k) sum[k] = load_block<N>(grad, k, tail);
            while (++i < range.end && lookups[i].row == row) {
                grad = arrive(i);
                HOTROW_UNROLL
                for (int k = 0; k < N; ++k) sum[k] += load_block<N>(grad, k, tail);
            }
            use(row, width, d, tail, sum);
        }
    });
}

// values[u, :] = sum of grads[position, :] over the u-th run of equal rows
template <class F, class I>
void coalesce(const Lookup<I>* lookups, Mat<const F> grads, Range range, Mat<F> values) {
    int64_t u = 0, block = 0;
    for_run_sums<false>(lookups, grads, range, values,
                        [&](I, auto width, int64_t d, Tail<F> tail, const pack<F>* sum) HOTROW_INLINE_LAMBDA {
                            constexpr int N = decltype(width)::value;
                            if (d != block) {
                                block = d;
                                u = 0;
                            }
                            F* const value = values.row(u++) + d;
                            HOTROW_UNROLL
                            for (int k = 0; k < N; ++k) store_block<N>(value, k, sum[k], tail);
                        });
}

}  // namespace
}  // namespace HOTROW_ISA
}  // namespace hotrow
