// Plan of gather: lookups split evenly.
// Moves N D reads and N D writes, no flops: the floor is 2 N D sizeof(E) over the copy rate.
#pragma once
#include "runtime/cpu.h"
#include "runtime/parallel.h"

namespace hotrow {
namespace plan {

// Outputs of this size leave the caches anyway.
constexpr int64_t kStreamBytes = 32 << 20;

template <class E, class I>
void gather(Mat<const E> table, const I* indices, int64_t n, Mat<E> out, int threads) {
    if (n == 0) return;
    const auto& ops = kernels().get<E, I>();
    const auto kernel = n * table.cols * int64_t(sizeof(E)) < kStreamBytes ? ops.gather : ops.gather_streaming;
    parallel_ranges(n, 2 * n * table.cols * int64_t(sizeof(E)), threads,
                    [&](Range range) { kernel(table, indices, range, out); });
}

}  // namespace plan
}  // namespace hotrow
