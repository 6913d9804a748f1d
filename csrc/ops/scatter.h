// Plans of the gradient operators: rows have owners, see runtime/partition.h.
// scatter_add moves N D reads of `grads` and, per lookup, a row of `table` in and out; N D flops (2 N D with scale).
// coalesce moves N D reads and U D writes, N D flops. Both add some 10 ns of sorting for each lookup.
#pragma once
#include <limits>

#include "runtime/cpu.h"
#include "runtime/partition.h"

namespace hotrow {
namespace plan {

// Calls body(index type) with int32_t where rows and positions fit it: entries of half the size sort faster.
template <class Body>
auto with_lookup_type(int64_t lookups, uint64_t highest_row, Body&& body) {
    constexpr int64_t limit = std::numeric_limits<int32_t>::max();
    if (lookups <= limit && highest_row <= uint64_t(limit)) return body(int32_t{});
    return body(int64_t{});
}

template <class F, class X>
void scatter_add(const X* indices, int64_t n, Mat<const F> grads, double scale, Mat<F> table, int threads) {
    with_lookup_type(n, uint64_t(table.rows), [&](auto type) {
        using I = decltype(type);
        const auto kernel = kernels().get<F, I>().scatter_add;
        const auto lookups = partition_by_owner<I>(
            indices, n, useful_threads(3 * n * table.cols * int64_t(sizeof(F)), threads));
        parallel(lookups.threads(),
                 [&](int t) { kernel(lookups.entries.get(), grads, F(scale), lookups.of(t), table); });
    });
}

// Two steps, because the caller allocates the result in between: which rows there are, then their sums.
template <class I>
class Coalesced {
public:
    template <class X>
    Coalesced(const X* indices, int64_t n, int threads) : lookups_(partition_sorted<I>(indices, n, threads)) {
        first_run_.push_back(0);
        for (int t = 0; t < lookups_.threads(); ++t) {
            const Range range = lookups_.of(t);
            int64_t runs = 0;
            for (int64_t i = range.begin; i < range.end; ++i) runs += starts_run(range, i);
            first_run_.push_back(first_run_.back() + runs);
        }
    }
    int64_t size() const { return first_run_.back(); }

    template <class F, class X>
    void fill(Mat<const F> grads, X* rows, Mat<F> values) const {
        const auto kernel = kernels().get<F, I>().coalesce;
        parallel(lookups_.threads(), [&](int t) {
            const Range range = lookups_.of(t);
            int64_t u = first_run_[size_t(t)];
            Mat<F> mine = values;
            mine.data = values.row(u);
            for (int64_t i = range.begin; i < range.end; ++i)
                if (starts_run(range, i)) rows[u++] = X(lookups_.entries[i].row);
            kernel(lookups_.entries.get(), grads, range, mine);
        });
    }

private:
    bool starts_run(Range range, int64_t i) const {
        return i == range.begin || lookups_.entries[i].row != lookups_.entries[i - 1].row;
    }
    Partition<I> lookups_;
    std::vector<int64_t> first_run_;
};

}  // namespace plan
}  // namespace hotrow
