// Plan of gather: lookups split evenly.
// Moves N D reads and N D writes, no flops: the floor is 2 N D sizeof(F) over the copy rate.
#pragma once
#include "runtime/cpu.h"
#include "runtime/parallel.h"

namespace hotrow {
namespace plan {

template <class F, class I>
void gather(Mat<const F> table, const I* indices, int64_t n, Mat<F> out, int threads) {
    if (n == 0) return;
    const auto kernel = kernels().get<F, I>().gather;
    parallel_ranges(n, 2 * n * table.cols * int64_t(sizeof(F)), threads,
                    [&](Range range) { kernel(table, indices, range, out); });
}

}  // namespace plan
}  // namespace hotrow
