// The gradient of a lookup. Lookups name a gradient row each; see runtime/partition.h for how they are ordered.
#pragma once
#include "kernels/gather.h"
#include "kernels/simd.h"

namespace hotrow {
namespace HOTROW_ISA {
namespace {

// table[row, :] += scale * grads[position, :] for each lookup, in the order given (ascending position per row).
template <class F, class I>
void scatter_add(const Lookup<I>* lookups, Mat<const F> grads, F scale, Range range, Mat<F> table) {
    const int64_t ahead = lookahead<F>(table.cols), last = range.end - 1;
    for (int64_t i = range.begin; i < range.end; ++i) {
        const Lookup<I> next = lookups[i + ahead < last ? i + ahead : last];
        const F* const next_grad = grads.row(next.position);
        const F* const next_row = table.row(next.row);
        const F* const grad = grads.row(lookups[i].position);
        F* const row = table.row(lookups[i].row);
        for_blocks<F>(table.cols, [&](auto width, int64_t d, Tail<F> tail) HOTROW_INLINE_LAMBDA {
            constexpr int N = decltype(width)::value;
            prefetch_block<N>(next_grad + d, tail);
            prefetch_block<N, true>(next_row + d, tail);
            for (int k = 0; k < N; ++k)
                store_block<N>(row + d, k,
                               load_block<N>(static_cast<const F*>(row) + d, k, tail) +
                                   load_block<N>(grad + d, k, tail) * scale,
                               tail);
        });
    }
}

// Walks runs of equal rows in sorted lookups: each(row, first lookup, past the last).
template <class I, class Each>
HOTROW_INLINE void for_runs(const Lookup<I>* lookups, Range range, Each&& each) {
    for (int64_t i = range.begin; i < range.end;) {
        const int64_t first = i;
        const I row = lookups[i].row;
        while (i < range.end && lookups[i].row == row) ++i;
        each(row, first, i);
    }
}

// Sums the gradients of one run in registers, ascending position, block by block: use(width, d, tail, sums).
template <class F, class I, class Use>
HOTROW_INLINE void sum_run(const Lookup<I>* lookups, Mat<const F> grads, int64_t first, int64_t last, int64_t end,
                           Use&& use) {
    const int64_t ahead = lookahead<F>(grads.cols);
    for_blocks<F>(grads.cols, [&](auto width, int64_t d, Tail<F> tail) HOTROW_INLINE_LAMBDA {
        constexpr int N = decltype(width)::value;
        pack<F> sum[N];
        for (int k = 0; k < N; ++k) sum[k] = load_block<N>(grads.row(lookups[first].position) + d, k, tail);
        for (int64_t i = first; i < last; ++i) {
            prefetch_block<N>(grads.row(lookups[i + ahead < end ? i + ahead : end - 1].position) + d, tail);
            if (i == first) continue;
            const F* grad = grads.row(lookups[i].position) + d;
            for (int k = 0; k < N; ++k) sum[k] += load_block<N>(grad, k, tail);
        }
        use(width, d, tail, sum);
    });
}

// values[u, :] = sum of grads[position, :] over the u-th run of equal rows
template <class F, class I>
void coalesce(const Lookup<I>* lookups, Mat<const F> grads, Range range, Mat<F> values) {
    int64_t u = 0;
    for_runs(lookups, range, [&](I, int64_t first, int64_t last) HOTROW_INLINE_LAMBDA {
        F* value = values.row(u++);
        sum_run(lookups, grads, first, last, range.end, [&](auto width, int64_t d, Tail<F> tail, const pack<F>* sum) HOTROW_INLINE_LAMBDA {
            constexpr int N = decltype(width)::value;
            for (int k = 0; k < N; ++k) store_block<N>(value + d, k, sum[k], tail);
        });
    });
}

}  // namespace
}  // namespace HOTROW_ISA
}  // namespace hotrow
