// Skip-gram with negative sampling (Mikolov et al. 2013). The negatives of a centre are shared by its contexts, and by
// some other windows, see groups.h, or drawn for each pair of centre and context, as in word2vec.c.
#pragma once
#include "kernels/groups.h"

namespace hotrow {
namespace HOTROW_ISA {
namespace {

// For each pair i in turn, with h = in_table[centers[i]], o[0] = out_table[contexts[i]] and o[k] =
// out_table[negatives[i, k]] (those equal to contexts[i] are left out, repeated ones add up):
//   loss = softplus(-h . o[0]) + sum_k softplus(h . o[k]);   h -= lr d loss / d h;   o[k] -= lr d loss / d o[k]
template <class F, class I>
void skipgram_step(const I* centers, const I* contexts, Mat<const I> negatives, F lr, Range range, void* memory,
                   Mat<F> in_table, Mat<F> out_table, Loss& loss) {
    Scratch scratch{static_cast<char*>(memory)};
    Window<F> w(scratch, 1, 1 + negatives.cols, in_table.cols);
    SoftplusSum<F> sum;
    for (int64_t i = range.begin; i < range.end; ++i) {
        w.m = w.n = 1;
        w.inputs[0] = in_table.row(centers[i]);
        w.outputs[0] = out_table.row(contexts[i]);
        for (int64_t k = 0; k < negatives.cols; ++k)
            if (negatives.row(i)[k] != contexts[i]) w.outputs[w.n++] = out_table.row(negatives.row(i)[k]);
        train_window(w, in_table.cols, lr, true, [] {}, sum);
    }
    sum.flush();
    loss.sum += sum.total;
    loss.terms += range.end - range.begin;
}

// The pairs of the centres and contexts of for_contexts, in turn: negative k of context number a of the centre at p is
// draw (p * 2 * window + a) * negative + k. train(input, n, lr, meanwhile) gets n rows in outputs.
template <int32_t Ahead, class F, class Fetch, class Train>
HOTROW_INLINE void for_pairs(const Epoch& job, Range range, Scratch& scratch, Mat<F> in_table, Mat<F> out_table,
                             F** outputs, const Fetch& fetch, const Train& train) {
    static_assert(Ahead < kDrawnWindows, "draws of the window at work must outlive those ahead");
    const KeptWords kept(job, range, scratch);
    const Windows windows(job, kept, scratch);
    const Draws draws(job.seed, Stream::negative);
    const int64_t most = 2 * job.window * job.negative;
    int32_t* const drawn = scratch.take<int32_t>(kDrawnWindows * most);
    const auto drawn_of = [=](int32_t t) HOTROW_INLINE_LAMBDA { return drawn + t % kDrawnWindows * most; };
    const auto fetch_outputs = [&](int32_t t) HOTROW_INLINE_LAMBDA {
        fetch(out_table.row(kept.word[t]));
        int32_t* const words = drawn_of(t);
        const int64_t count = windows.contexts(t) * job.negative;
        const int64_t first = kept.position[t] * most;
        for (int64_t j = 0; j < count; ++j) words[j] = word_drawn(job, draws[uint64_t(first + j)]);
        for (int64_t j = 0; j < count; ++j) fetch(out_table.row(words[j]));
    };
    const auto each = [&](int32_t t, F** inputs, int64_t m, F lr, const auto& meanwhile) HOTROW_INLINE_LAMBDA {
        const int32_t* negatives = drawn_of(t);
        const int32_t center = kept.word[t];
        outputs[0] = out_table.row(center);
        for (int64_t a = 0; a < m; ++a, negatives += job.negative) {
            int64_t n = 1;
            for (int64_t k = 0; k < job.negative; ++k)
                if (negatives[k] != center) outputs[n++] = out_table.row(negatives[k]);
            train(inputs + a, n, lr, [&]() HOTROW_INLINE_LAMBDA {
                if (a == 0) meanwhile();
            });
        }
    };
    for_contexts<Ahead>(job, kept, windows, scratch, in_table, fetch, fetch_outputs, each);
}

// A step as in skipgram_step for each pair of for_pairs.
template <class F>
HOTROW_OWN_FUNCTION void skipgram_pairs(const Epoch& job, Range range, void* memory, Mat<F> in_table,
                                        Mat<F> out_table, Loss& loss) {
    Scratch scratch{static_cast<char*>(memory)};
    Window<F> w(scratch, 1, 1 + job.negative, in_table.cols);
    SoftplusSum<F> sum;
    const auto fetch = [cols = in_table.cols](const F* row) HOTROW_INLINE_LAMBDA { prefetch_row(row, cols); };
    const auto train = [&](F** input, int64_t n, F lr, const auto& meanwhile) HOTROW_INLINE_LAMBDA {
        w.set_inputs(input, 1, false);
        w.n = n;
        ++loss.terms;
        train_window(w, in_table.cols, lr, true, meanwhile, sum);
    };
    for_pairs<2>(job, range, scratch, in_table, out_table, w.outputs, fetch, train);
    sum.flush();
    loss.sum += sum.total;
}

// For each batch of windows of for_groups and train_group: the scores of all pairs of an input h[a] and an output o[b],
// then window after window the step of skipgram_step on all of its pairs at once, from the values before it, repeated
// rows added up. Without shared negatives: skipgram_pairs.
template <class F>
void skipgram_epoch(const Epoch& job, Range range, void* memory, Mat<F> in_table, Mat<F> out_table, Loss& loss) {
    if (!job.shared_negatives) return skipgram_pairs(job, range, memory, in_table, out_table, loss);
    Scratch scratch{static_cast<char*>(memory)};
    const int64_t cols = in_table.cols;
    Window<F> window(scratch, 2 * job.window, 1 + job.negative, cols);
    Group<F> group(scratch, 2 * job.window, job.negative);
    SoftplusSum<F> sum;
    const auto add = [&](F**, int64_t m, bool repeats, F* own) HOTROW_INLINE_LAMBDA {
        group.add(m, repeats, own);
        loss.terms += m;
    };
    const auto together = [&](auto width, int begin, int end) HOTROW_INLINE_LAMBDA {
        for (int s = begin; s < end; ++s) group.merge_inputs(s);
        update_outputs<decltype(width)::value, true>(group, begin, end, group.inputs, cols);
    };
    const auto alone = [&](int s) HOTROW_INLINE_LAMBDA {
        group.take(s, window);
        update_rows(window, cols);
    };
    const auto train = [&](int at_once, F lr, bool clash, const auto& meanwhile) HOTROW_INLINE_LAMBDA {
        train_group(group, at_once, cols, lr, clash, sum, together, alone, meanwhile);
    };
    for_groups(job, range, scratch, in_table, out_table, group, group.inputs, add, train);
    sum.flush();
    loss.sum += sum.total;
}

}  // namespace
}  // namespace HOTROW_ISA
}  // namespace hotrow
