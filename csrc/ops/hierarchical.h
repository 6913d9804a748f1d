// Plans of skip-gram and CBOW with hierarchical softmax: those of their epochs with negative sampling.
#pragma once
#include "ops/skipgram.h"

namespace hotrow {
namespace plan {

// kernel(paths, tokens, scratch, loss) on blocks, as epoch(); paths with locks, all open.
template <class Kernel>
Loss epoch_of_paths(const Epoch& job, Paths paths, Range range, int64_t cols, const Kernel& kernel) {
    Buffer<bool> locks(kSharedNodes * kLockBytes);
    paths.locks = locks.get();
    std::fill(paths.locks, paths.locks + kSharedNodes * kLockBytes, false);
    return epoch(range, path_scratch_bytes(job.window, paths.longest, cols), job.threads,
                 [&](Range tokens, void* scratch, Loss& loss) { kernel(paths, tokens, scratch, loss); });
}

template <class F>
Loss skipgram_hs_epoch(const Epoch& job, const Paths& paths, Range range, Mat<F> in_table, Mat<F> out_table) {
    const auto kernel = kernels().get<F, int32_t>().skipgram_hs_epoch;
    return epoch_of_paths(job, paths, range, in_table.cols,
                          [&](const Paths& locked, Range tokens, void* scratch, Loss& loss) {
                              kernel(job, locked, tokens, scratch, in_table, out_table, loss);
                          });
}

template <class F>
Loss cbow_hs_epoch(const Epoch& job, const Paths& paths, bool cbow_mean, Range range, Mat<F> in_table,
                   Mat<F> out_table) {
    const auto kernel = kernels().get<F, int32_t>().cbow_hs_epoch;
    return epoch_of_paths(job, paths, range, in_table.cols,
                          [&](const Paths& locked, Range tokens, void* scratch, Loss& loss) {
                              kernel(job, locked, cbow_mean, tokens, scratch, in_table, out_table, loss);
                          });
}

}  // namespace plan
}  // namespace hotrow
