// Plan of gather: lookups split evenly.
// Moves N D reads and N D writes, no flops: the floor is 2 N D sizeof(E) over the copy rate. Of an int8 table N (D + 4)
// bytes are read and 4 N D written, with N D flops.
#pragma once
#include "runtime/cpu.h"
#include "runtime/parallel.h"

namespace hotrow {
namespace plan {

// Outputs of this size leave the caches anyway.
constexpr int64_t kStreamBytes = 32 << 20;

template <class E, class I>
void gather(Mat<const E> table, const I* indices, const float* scales, int64_t n, Mat<gathered<E>> out, int threads) {
    if (n == 0) return;
    const auto& ops = kernels().get<E, I>();
    const int64_t read = n * table.cols * int64_t(sizeof(E)), written = n * table.cols * int64_t(sizeof(gathered<E>));
    const auto kernel = written < kStreamBytes ? ops.gather : ops.gather_streaming;
    parallel_ranges(n, read + written, threads, [&](Range range) { kernel(table, indices, scales, range, out); });
}

}  // namespace plan
}  // namespace hotrow
