// Plans of the skip-gram and CBOW operators: Hogwild (Niu et al. 2011), threads update shared tables without locks.
// A window of m contexts and K negatives moves (m + 1 + K) D reads and writes; skip-gram costs 6 m (1 + K) D flops, CBOW
// 2 m D + 6 (1 + K) D.
#pragma once
#include <algorithm>
#include <cmath>
#include <vector>

#include "runtime/cpu.h"
#include "runtime/memory.h"
#include "runtime/parallel.h"

namespace hotrow {
namespace plan {

// work(task, scratch, loss) for each task, handed out in order to whichever thread is free. Returns the total loss;
// with one thread, tasks run and losses add up in order.
template <class Work>
Loss hogwild(int64_t tasks, int64_t scratch_bytes, int threads, const Work& work) {
    std::vector<Buffer<char>> scratch;
    scratch.reserve(size_t(threads));
    for (int t = 0; t < threads; ++t) scratch.emplace_back(scratch_bytes);
    std::vector<Loss> losses(static_cast<size_t>(threads));
    parallel_tasks(tasks, threads, [&](int t, int64_t task) {
        Loss mine = losses[size_t(t)];  // in a register, not in a cache line that threads share
        work(task, scratch[size_t(t)].get(), mine);
        losses[size_t(t)] = mine;
    });
    Loss total{};
    for (const Loss& loss : losses) total = {total.sum + loss.sum, total.terms + loss.terms};
    return total;
}

template <class F, class I>
Loss skipgram_step(const I* centers, const I* contexts, int64_t n, Mat<const I> negatives, double lr, Mat<F> in_table,
                   Mat<F> out_table, int threads) {
    const auto kernel = kernels().get<F, I>().skipgram_step;
    const int64_t pair_bytes = 2 * (2 + negatives.cols) * in_table.cols * int64_t(sizeof(F));
    const int parts = useful_threads(n * pair_bytes, threads);
    return hogwild(parts, window_scratch_bytes(1, negatives.cols, in_table.cols), parts, [&](int64_t task, void* scratch, Loss& loss) {
        kernel(centers, contexts, negatives, F(lr), piece(n, int(task), parts), scratch, in_table, out_table, loss);
    });
}

// The blocks of the tokens `range`.
inline Range blocks_of(Range range) {
    return {range.begin / kTokensPerBlock, (range.end + kTokensPerBlock - 1) / kTokensPerBlock};
}

// How many of `threads` have work in the tokens `range`.
inline int epoch_threads(Range range, int threads) {
    const Range blocks = blocks_of(range);
    return int(std::min<int64_t>(threads, std::max<int64_t>(1, blocks.end - blocks.begin)));
}

// Kernels of an epoch are those of int32_t whatever the tokens are: they are compiled for all I.
//
// kernel(tokens, scratch, loss) on blocks of the tokens `range`, whose ends are multiples of kTokensPerBlock or the last
// token. The blocks are the same however an epoch is cut into calls, and so are all draws. Losses of blocks are rounded
// to kLossUnits: their sum is then exact up to 2^33, in whatever order they come and however it is cut.
constexpr double kLossUnits = 1 << 20;
template <class Kernel>
Loss epoch(Range range, int64_t scratch_bytes, int threads, const Kernel& kernel) {
    const Range blocks = blocks_of(range);
    return hogwild(blocks.end - blocks.begin, scratch_bytes, threads,
                   [&](int64_t task, void* scratch, Loss& loss) {
                       const int64_t begin = (blocks.begin + task) * kTokensPerBlock;
                       Loss block{};
                       kernel(Range{begin, std::min(begin + kTokensPerBlock, range.end)}, scratch, block);
                       loss.sum += std::nearbyint(block.sum * kLossUnits) / kLossUnits;
                       loss.terms += block.terms;
                   });
}

inline int64_t negatives_scratch_bytes(const Epoch& job, int64_t cols) {
    return window_scratch_bytes(job.window, job.negative, cols) + group_scratch_bytes(job.window, job.negative, cols);
}

template <class F>
Loss skipgram_epoch(const Epoch& job, Range range, Mat<F> in_table, Mat<F> out_table) {
    const auto kernel = kernels().get<F, int32_t>().skipgram_epoch;
    return epoch(range, negatives_scratch_bytes(job, in_table.cols), job.threads,
                 [&](Range tokens, void* scratch, Loss& loss) {
                     kernel(job, tokens, scratch, in_table, out_table, loss);
                 });
}

}  // namespace plan
}  // namespace hotrow
