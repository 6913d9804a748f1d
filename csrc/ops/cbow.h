// Plan of continuous bag of words: that of skip-gram's epochs.
#pragma once
#include "ops/skipgram.h"

namespace hotrow {
namespace plan {

template <class F>
Loss cbow_epoch(const Epoch& job, bool cbow_mean, Range range, Mat<F> in_table, Mat<F> out_table) {
    const auto kernel = kernels().get<F, int32_t>().cbow_epoch;
    return epoch(range, negatives_scratch_bytes(job, in_table.cols), job.threads,
                 [&](Range tokens, void* scratch, Loss& loss) {
                     kernel(job, cbow_mean, tokens, scratch, in_table, out_table, loss);
                 });
}

}  // namespace plan
}  // namespace hotrow
