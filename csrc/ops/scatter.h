// Plans of the gradient operators: lookups sorted into runs of equal rows, see runtime/partition.h.
// Both move N D reads of `grads` (B D with offsets) and, for each of U distinct rows, a row: scatter_add in and out,
// coalesce out. N D flops. Sorting adds about 3 ns a lookup and thread.
#pragma once
#include "runtime/partition.h"

namespace hotrow {
namespace plan {

// body(index type, threads): int32_t where rows and positions fit it. row_bytes: what a lookup moves for each column.
template <class F, class X, class Body>
auto with_runs(const Pooled<F, X>& pooled, uint64_t rows, int64_t matrices, int threads, const Body& body) {
    constexpr int64_t limit = std::numeric_limits<int32_t>::max();
    const int used = useful_threads(matrices * pooled.lookups * pooled.grads.cols * int64_t(sizeof(F)), threads);
    if (pooled.lookups <= limit && rows <= uint64_t(limit)) return body(Runs<F, int32_t>(pooled, rows, used), int32_t{});
    return body(Runs<F, int64_t>(pooled, rows, used), int64_t{});
}

template <class E, class X, class F = real<E>>
void scatter_add(const Pooled<F, X>& pooled, double scale, Mat<E> table, int threads) {
    with_runs(pooled, uint64_t(table.rows), 3, threads, [&](auto&& runs, auto type) {
        const auto kernel = kernels().get<E, decltype(type)>().scatter_add;
        runs.each([&](const auto* lookups, const Gradient<F>& gradient, Range range, int64_t, F* scratch) {
            kernel(lookups, gradient, F(scale), range, scratch, table);
        });
    });
}

// Calls allocate(U), which returns where to write the ascending rows [U] and their values [U, D].
template <class F, class X, class Allocate>
void coalesce(const Pooled<F, X>& pooled, const Allocate& allocate, int threads) {
    uint64_t highest = 0;
    pooled.each({0, pooled.lookups}, [&](X row, int64_t, int64_t) { highest |= uint64_t(row); });
    with_runs(pooled, highest + 1, 2, threads, [&](auto&& runs, auto type) {
        const auto kernel = kernels().get<F, decltype(type)>().coalesce;
        const std::pair<X*, Mat<F>> out = allocate(runs.number());
        runs.each([&](const auto* lookups, const Gradient<F>& gradient, Range range, int64_t u, F*) {
            Mat<F> values = out.second;
            values.data = values.row(u);
            for (int64_t i = range.begin; i < range.end; ++i)
                if (i == range.begin || lookups[i].row != lookups[i - 1].row) out.first[u++] = X(lookups[i].row);
            kernel(lookups, gradient, range, values);
        });
    });
}

}  // namespace plan
}  // namespace hotrow
