// Continuous bag of words with negative sampling (Mikolov et al. 2013).
#pragma once
#include "kernels/groups.h"

namespace hotrow {
namespace HOTROW_ISA {
namespace {

// Registers of a block of columns: twice as many are in use, of h and of its gradient.
constexpr int kBagBlock = kBlock / 2;

// h = factor sum_a contexts[a]. Order: contexts as they stand.
template <class F>
void pool_bag(F* const* contexts, int64_t m, F factor, int64_t cols, F* h) {
    for_blocks<F, kBagBlock>(cols, [=](auto width, int64_t d, Tail<F> tail) HOTROW_INLINE_LAMBDA {
        constexpr int N = decltype(width)::value;
        pack<F> sum[N];
        HOTROW_UNROLL
        for (int k = 0; k < N; ++k) sum[k] = load_block<N>(contexts[0] + d, k, tail);
        for (int64_t a = 1; a < m; ++a) {
            const F* const row = contexts[a] + d;
            HOTROW_UNROLL
            for (int k = 0; k < N; ++k) sum[k] += load_block<N>(row, k, tail);
        }
        HOTROW_UNROLL
        for (int k = 0; k < N; ++k) store_block<N>(h + d, k, sum[k] * factor, tail);
    });
}

// rows[a] += step in the block of N registers from column d on.
template <int N, class F>
HOTROW_INLINE void add_to_rows(F* const* rows, int64_t m, const pack<F>* step, int64_t d, Tail<F> tail) {
    for (int64_t a = 0; a < m; ++a) {
        F* const row = rows[a] + d;
        HOTROW_UNROLL
        for (int k = 0; k < N; ++k) store_block<N>(row, k, load_block<N>(row, k, tail) + step[k], tail);
    }
}

// contexts[a] += share step, once for each time a row stands there.
template <class F>
void spread_bag(F* const* contexts, int64_t m, F share, const F* step, int64_t cols) {
    for_blocks<F, kBagBlock>(cols, [=](auto width, int64_t d, Tail<F> tail) HOTROW_INLINE_LAMBDA {
        constexpr int N = decltype(width)::value;
        pack<F> part[N];
        HOTROW_UNROLL
        for (int k = 0; k < N; ++k) part[k] = load_block<N>(step + d, k, tail) * share;
        add_to_rows<N>(contexts, m, part, d, tail);
    });
}

// With the pooled contexts h as the input of a window and o[b] as its outputs: contexts[a] += share sum_b
// coefficient[b] o[b], once for each time a row stands there, and o[b] += coefficient[b] h, from the values before the
// update. Order: outputs as they stand.
template <class F>
void update_bag(F* const* contexts, int64_t m, F share, Window<F>& w, int64_t cols) {
    const auto update = [=, n = w.n, h = w.inputs[0], outputs = w.outputs, coefficients = w.coefficients.numbers](
                            auto width, int64_t d, Tail<F> tail) HOTROW_OWN_FUNCTION {
        constexpr int N = decltype(width)::value;
        pack<F> pooled[N], step[N];
        HOTROW_UNROLL
        for (int k = 0; k < N; ++k) {
            pooled[k] = load_block<N>(h + d, k, tail);
            step[k] = zero<F>();
        }
        for (int64_t b = 0; b < n; ++b) {
            F* const row = outputs[b] + d;
            const pack<F> c = broadcast(coefficients[b]);
            HOTROW_UNROLL
            for (int k = 0; k < N; ++k) {
                const pack<F> o = load_block<N>(row, k, tail);
                step[k] = fma(c, o, step[k]);
                store_block<N>(row, k, fma(c, pooled[k], o), tail);
            }
        }
        HOTROW_UNROLL
        for (int k = 0; k < N; ++k) step[k] *= share;
        add_to_rows<N>(contexts, m, step, d, tail);
    };
    for_blocks<F, kBagBlock>(cols, update);
}

// For each batch of windows of for_groups and train_group, with C[a] the m contexts of one, o[b] its outputs and
// h = sum_a C[a], over m if cbow_mean: the scores of all, then window after window
//   loss = softplus(-h . o[0]) + sum_b softplus(h . o[b]);   o[b] -= lr d loss / d o[b]
//   C[a] -= lr d loss / d h, over m unless cbow_mean: as gensim has it
// from the values before it, repeated rows added up; but h is as it was before the group.
template <class F>
void cbow_epoch(const Epoch& job, bool cbow_mean, Range range, void* memory, Mat<F> in_table, Mat<F> out_table,
                Loss& loss) {
    Scratch scratch{static_cast<char*>(memory)};
    const int64_t cols = in_table.cols, line = 64 / int64_t(sizeof(F)), stride = (cols + line - 1) / line * line;
    Window<F> window(scratch, 1, 1 + job.negative, cols);
    Group<F> group(scratch, 1, job.negative);
    F** const contexts = scratch.take<F*>(kGroup * 2 * job.window + kCopied);
    F** bags[kGroup];
    int64_t sizes[kGroup];
    F* steps[kGroup];
    for (int s = 0; s < kGroup; ++s) {
        group.inputs[s] = scratch.take<F>(stride);
        steps[s] = scratch.take<F>(stride);
    }
    SoftplusSum<F> sum;
    const auto share = [&](int s) HOTROW_INLINE_LAMBDA { return cbow_mean ? F(1) : F(1) / F(sizes[s]); };
    const auto add = [&](F** bag, int64_t m, bool, F* own) HOTROW_INLINE_LAMBDA {
        const int s = group.windows;
        bags[s] = bag;
        sizes[s] = m;
        pool_bag(bag, m, cbow_mean ? F(1) / F(m) : F(1), cols, group.inputs[s]);
        group.add(1, false, own);
        ++loss.terms;
    };
    const auto together = [&](auto width, int begin, int end) HOTROW_INLINE_LAMBDA {
        update_outputs<decltype(width)::value, false>(group, begin, end, steps, cols);
        for (int s = begin; s < end; ++s) spread_bag(bags[s], sizes[s], share(s), steps[s], cols);
    };
    const auto alone = [&](int s) HOTROW_INLINE_LAMBDA {
        group.take(s, window);
        update_bag(bags[s], sizes[s], share(s), window, cols);
    };
    const auto train = [&](int at_once, F lr, bool clash, const auto& meanwhile) HOTROW_INLINE_LAMBDA {
        train_group(group, at_once, cols, lr, clash, sum, together, alone, meanwhile);
    };
    for_groups(job, range, scratch, in_table, out_table, group, contexts, add, train);
    sum.flush();
    loss.sum += sum.total;
}

}  // namespace
}  // namespace HOTROW_ISA
}  // namespace hotrow
