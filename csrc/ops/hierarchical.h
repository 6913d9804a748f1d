// Plans of skip-gram and CBOW with hierarchical softmax: those of their epochs with negative sampling.
#pragma once
#include "ops/skipgram.h"

namespace hotrow {
namespace plan {

template <class F, class I>
Loss skipgram_hs_epoch(const Epoch<I>& job, const Paths& paths, Range range, Mat<F> in_table, Mat<F> out_table) {
    const auto kernel = kernels().get<F, I>().skipgram_hs_epoch;
    return epoch(range, path_scratch_bytes(job.window, paths.longest, in_table.cols), job.threads,
                 [&](Range tokens, void* scratch, Loss& loss) {
                     kernel(job, paths, tokens, scratch, in_table, out_table, loss);
                 });
}

template <class F, class I>
Loss cbow_hs_epoch(const Epoch<I>& job, const Paths& paths, bool cbow_mean, Range range, Mat<F> in_table,
                   Mat<F> out_table) {
    const auto kernel = kernels().get<F, I>().cbow_hs_epoch;
    return epoch(range, path_scratch_bytes(job.window, paths.longest, in_table.cols), job.threads,
                 [&](Range tokens, void* scratch, Loss& loss) {
                     kernel(job, paths, cbow_mean, tokens, scratch, in_table, out_table, loss);
                 });
}

}  // namespace plan
}  // namespace hotrow
