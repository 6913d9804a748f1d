// Plans of the optimizer steps: sorted lookups, one pass over the touched rows.
// Each moves N D reads of `grads` and U D reads and writes of the table, N D flops and a few per touched element.
#pragma once
#include "ops/scatter.h"

namespace hotrow {
namespace plan {

template <class F, class X>
void sgd_step(const X* indices, int64_t n, Mat<const F> grads, double lr, Mat<F> table, int threads) {
    with_lookup_type(n, uint64_t(table.rows), [&](auto type) {
        using I = decltype(type);
        const auto kernel = kernels().get<F, I>().sgd_step;
        const auto lookups =
            partition_sorted<I>(indices, n, useful_threads(2 * n * table.cols * int64_t(sizeof(F)), threads));
        parallel(lookups.threads(), [&](int t) { kernel(lookups.entries.get(), grads, F(lr), lookups.of(t), table); });
    });
}

}  // namespace plan
}  // namespace hotrow
