// Skip-gram with negative sampling (Mikolov et al. 2013). The negatives of a centre are shared by its contexts, so
// that a window is three small matrix products (HogBatch: Ji et al., "Parallelizing Word2Vec in Shared and
// Distributed Memory", 2016), or drawn for each pair of centre and context, as in word2vec.c.
#pragma once
#include "kernels/math.h"
#include "kernels/pool.h"

namespace hotrow {
namespace HOTROW_ISA {
namespace {

constexpr int kOutputs = 6;  // output rows held in registers at a time: one positive and the usual five negatives

// The input rows (contexts) and output rows (the positive first, then negatives) of one window. Outputs form groups of
// kOutputs; the coefficients of two inputs with a group stand in a tile of whole registers, kStride apart, that of input a
// and output b at(a, b).
template <class F>
struct Window {
    static constexpr int kTile = (2 * kOutputs + lanes<F> - 1) / lanes<F> * lanes<F>, kStride = kTile / 2;
    F** own;  // where inputs can stand
    F** inputs;
    F** outputs;
    F** moving;  // rows that hold the inputs on their way when there are several groups
    F* coefficients;
    int64_t m = 0, n = 0, group_stride = 0;

    HOTROW_INLINE Window(Scratch& scratch, int64_t max_inputs, int64_t max_outputs, int64_t cols)
        : own(scratch.take<F*>(max_inputs)),
          inputs(own),
          outputs(scratch.take<F*>(max_outputs)),
          moving(scratch.take<F*>(max_inputs)),
          coefficients(scratch.take<F>((max_inputs + 1) / 2 * ((max_outputs + kOutputs - 1) / kOutputs) * kTile)) {
        F* const rows = scratch.take<F>(max_inputs * cols);
        for (int64_t a = 0; a < max_inputs; ++a) moving[a] = rows + a * cols;
    }
    // Takes m inputs that stand in a row elsewhere; repeats among them will be merged, so that they move.
    HOTROW_INLINE void set_inputs(F** rows, int64_t count, bool repeats) {
        m = count;
        inputs = repeats ? own : rows;
        for (int64_t a = 0; a < m && repeats; ++a) own[a] = rows[a];
    }
    HOTROW_INLINE F* group(int64_t first_output) { return coefficients + first_output / kOutputs * group_stride; }
    HOTROW_INLINE F& at(int64_t a, int64_t b) { return group(b)[a * kStride + b % kOutputs]; }
};

// The score of lanes without a coefficient: it adds exactly nothing to the loss. A much lower one would make denormal
// coefficients, which are slow.
constexpr int kNoScore = -60;

// -1 for outputs that are positive, 1 for negatives, of the register that begins at place `first` of a tile of the
// group that begins with output q: here the first output is the positive.
struct FirstIsPositive {
    template <class F>
    HOTROW_INLINE pack<F> of_tile(int64_t q, int first) const {
        pack<F> s = broadcast<F>(1);
        if (q > 0) return s;
        for (int i = 0; i < lanes<F>; ++i)
            if ((first + i) % Window<F>::kStride == 0) s[i] = -1;
        return s;
    }
};

// acc[a * kStride + b] += h[a] o[b] of A inputs and B outputs, at column d.
template <int A, int B, class F, class Part, class V>
HOTROW_INLINE void add_products(F* const* inputs, F* const* outputs, int64_t d, Part part, V* acc) {
    constexpr int S = Window<F>::kStride;
    V h[A];
    for (int a = 0; a < A; ++a) h[a] = load(inputs[a] + d, part);
    for (int b = 0; b < B; ++b) {
        const V o = load(outputs[b] + d, part);
        for (int a = 0; a < A; ++a) acc[a * S + b] = fma(h[a], o, acc[a * S + b]);
    }
}

// x[a, b] = sign[b] h[a] . o[b] of A inputs and the B outputs from q on.
// Order: lane sums over columns, those in short registers first, then reduce().
template <int A, int B, class F, class Signs>
HOTROW_INLINE void scores_of_tile(F* const* inputs, F* const* outputs, int64_t cols, int64_t q, const Signs& signs,
                                  F* x) {
    constexpr int L = lanes<F>, S = Window<F>::kStride, N = (A - 1) * S + B;
    short_pack<F> rest[N];
    for (int i = 0; i < N; ++i) rest[i] = short_pack<F>{};
    for_short_registers<F>(cols, [&](int64_t d, auto part)
                                     HOTROW_INLINE_LAMBDA { add_products<A, B>(inputs, outputs, d, part, rest); });
    pack<F> acc[N];
    for (int i = 0; i < N; ++i) acc[i] = widen(rest[i]);
    for_long_registers<F>(cols, [&](int64_t d, auto part)
                                    HOTROW_INLINE_LAMBDA { add_products<A, B>(inputs, outputs, d, part, acc); });
    reduce_all<N, F>(acc, [&](int first, pack<F> dots) HOTROW_INLINE_LAMBDA {
        pack<F> unused{};
        for (int i = 0; i < L; ++i) unused[i] = first + i < N && (first + i) % S < B ? F(0) : F(kNoScore);
        store(x + first, fma(dots, signs.template of_tile<F>(q, first), unused));
    });
    for (int i = (N + L - 1) / L * L; i < Window<F>::kTile; i += L) store(x + i, broadcast<F>(kNoScore));
}

// The loss is sum_ab softplus(x[a, b]) and
// coefficient[a, b] = -lr d loss / d (h[a] . o[b]) = -sign[b] lr sigmoid(x[a, b]).
template <class F, class Signs>
HOTROW_INLINE void coefficients_of(Window<F>& w, int64_t cols, F lr, const Signs& signs, SoftplusSum<F>& loss) {
    w.group_stride = (w.m + 1) / 2 * w.kTile;
    for (int64_t q = 0; q < w.n; q += kOutputs) {
        F* const x = w.group(q);
        with_width<kOutputs>(int(w.n - q < kOutputs ? w.n - q : kOutputs), [&](auto width) HOTROW_INLINE_LAMBDA {
            constexpr int B = decltype(width)::value;
            F* group[B];
            for (int b = 0; b < B; ++b) group[b] = w.outputs[q + b];
            int64_t a = 0;
            for (; a + 2 <= w.m; a += 2) scores_of_tile<2, B>(w.inputs + a, group, cols, q, signs, x + a * w.kStride);
            if (a < w.m) scores_of_tile<1, B>(w.inputs + a, group, cols, q, signs, x + a * w.kStride);
        });
        for (int64_t i = 0; i < w.group_stride; i += w.kTile)
            for (int k = 0; k < w.kTile; k += lanes<F>)
                store(x + i + k, sigmoid(load(x + i + k), loss) * (signs.template of_tile<F>(q, k) * -lr));
    }
}

// Keeps one of rows that are equal: join(e, b) adds the coefficients of row b to those of row e, move(b, last) fills
// the gap.
template <class F, class Join, class Move>
HOTROW_INLINE void merge_repeats(F** rows, int64_t& count, const Join& join, const Move& move) {
    for (int64_t b = 1; b < count; ++b)
        for (int64_t e = 0; e < b; ++e)
            if (rows[e] == rows[b]) {
                --count;
                rows[b] = rows[count];
                join(e, b);
                move(b, count);
                --b;
                break;
            }
}

// A row that stands in a window twice has the same coefficients twice: add them up and keep one.
template <class F>
HOTROW_INLINE void merge_repeats(Window<F>& w) {
    merge_repeats(
        w.inputs, w.m,
        [&](int64_t e, int64_t a) HOTROW_INLINE_LAMBDA {
            for (int64_t b = 0; b < w.n; ++b) w.at(e, b) += w.at(a, b);
        },
        [&](int64_t a, int64_t last) HOTROW_INLINE_LAMBDA {
            for (int64_t b = 0; b < w.n; ++b) w.at(a, b) = w.at(last, b);
        });
    merge_repeats(
        w.outputs, w.n,
        [&](int64_t e, int64_t b) HOTROW_INLINE_LAMBDA {
            for (int64_t a = 0; a < w.m; ++a) w.at(a, e) += w.at(a, b);
        },
        [&](int64_t b, int64_t last) HOTROW_INLINE_LAMBDA {
            for (int64_t a = 0; a < w.m; ++a) w.at(a, b) = w.at(a, last);
        });
}

// to[a, :] = from[a, :] + sum_b coefficient[a, b] o[b, :] and o[b, :] += sum_a coefficient[a, b] h[a, :] for a group of
// B outputs. One pass over the columns: each row is loaded and stored once. `Alone`: from and to are h.
template <int B, bool Alone, class F>
void update_group(F* const* h, F* const* from, F* const* to, int64_t m, F* const* outputs, int64_t cols,
                  const F* coefficient) {
    F* o[B];
    for (int b = 0; b < B; ++b) o[b] = outputs[b];
    const auto columns = [&](int64_t d, auto part) HOTROW_INLINE_LAMBDA {
        using V = decltype(load(o[0] + d, part));
        V before[B], after[B];
        for (int b = 0; b < B; ++b) after[b] = before[b] = load(o[b] + d, part);
        for (int64_t a = 0; a < m; ++a) {
            const V x = load(h[a] + d, part);
            V moved = Alone ? x : load(from[a] + d, part);
            for (int b = 0; b < B; ++b) {
                const V c = broadcast<F, V>(coefficient[a * Window<F>::kStride + b]);
                moved = fma(c, before[b], moved);
                after[b] = fma(c, x, after[b]);
            }
            store(to[a] + d, moved, part);
        }
        for (int b = 0; b < B; ++b) store(o[b] + d, after[b], part);
    };
    for_long_registers<F>(cols, columns);
    for_short_registers<F>(cols, columns);
}

// h[a, :] += sum_b coefficient[a, b] o[b, :] and o[b, :] += sum_a coefficient[a, b] h[a, :], both from the values
// before the update: the inputs stay as they are until the last group of outputs.
template <class F>
HOTROW_INLINE void update_rows(Window<F>& w, int64_t cols) {
    const bool alone = w.n <= kOutputs;
    for (int64_t q = 0; q < w.n; q += kOutputs)
        with_width<kOutputs>(int(w.n - q < kOutputs ? w.n - q : kOutputs), [&](auto width) HOTROW_INLINE_LAMBDA {
            constexpr int B = decltype(width)::value;
            F** const from = q == 0 ? w.inputs : w.moving;
            F** const to = q + kOutputs >= w.n ? w.inputs : w.moving;
            if (alone) update_group<B, true>(w.inputs, from, to, w.m, w.outputs + q, cols, w.group(q));
            else update_group<B, false>(w.inputs, from, to, w.m, w.outputs + q, cols, w.group(q));
        });
}

template <class F, class Signs, class Meanwhile>
HOTROW_INLINE void train_window(Window<F>& w, int64_t cols, F lr, const Signs& signs, bool repeats,
                                const Meanwhile& meanwhile, SoftplusSum<F>& loss) {
    coefficients_of(w, cols, lr, signs, loss);
    meanwhile();
    if (repeats) merge_repeats(w);
    update_rows(w, cols);
}

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
        train_window(w, in_table.cols, lr, FirstIsPositive{}, true, [] {}, sum);
    }
    sum.flush();
    loss.sum += sum.total;
    loss.terms += range.end - range.begin;
}

// The centres and contexts of for_contexts for tokens `range`; train(inputs, m, n, repeats, lr, meanwhile) gets n rows
// in outputs too, out_table[centre] and those of its negatives that differ from it; `repeats` says whether a row may be
// there twice.
template <int32_t Ahead, class F, class I, class Fetch, class Train>
HOTROW_INLINE void for_windows(const Epoch<I>& job, Range range, Scratch& scratch, Mat<F> in_table, Mat<F> out_table,
                               F** outputs, const Fetch& fetch, const Train& train) {
    const KeptWords<I> kept(job, range, scratch);
    const Windows<I> windows(job, kept, scratch);
    const OutputRows<F, I> rows(job, windows, out_table, scratch);
    const auto fetch_outputs = [&](int32_t t) HOTROW_INLINE_LAMBDA { fetch(out_table.row(kept.word[t])); };
    const auto with_outputs = [&](int32_t t, F** inputs, int64_t m, F lr, const auto& meanwhile) HOTROW_INLINE_LAMBDA {
        int64_t n = 0;
        outputs[n++] = rows.row(kept.word[t]);
        F* const* const negatives = rows.of_pool + windows.first_negative[t];
        for (int64_t k = 0; k < job.negative; ++k)
            if (negatives[k] != outputs[0]) outputs[n++] = negatives[k];
        train(inputs, m, n, windows.repeats[t] != 0, lr, meanwhile);
    };
    for_contexts<Ahead>(job, kept, windows, scratch, in_table, fetch, fetch_outputs, with_outputs);
    rows.finish();
}

// The pairs of the centres and contexts of for_contexts, in turn: negative k of context number a of the centre at p is
// draw (p * 2 * window + a) * negative + k. train(input, n, lr, meanwhile) gets n rows in outputs, as for for_windows.
template <int32_t Ahead, class F, class I, class Fetch, class Train>
HOTROW_INLINE void for_pairs(const Epoch<I>& job, Range range, Scratch& scratch, Mat<F> in_table, Mat<F> out_table,
                             F** outputs, const Fetch& fetch, const Train& train) {
    static_assert(Ahead < kDrawnWindows, "draws of the window at work must outlive those ahead");
    const KeptWords<I> kept(job, range, scratch);
    const Windows<I> windows(job, kept, scratch);
    const Draws draws(job.seed, Stream::negative);
    const int64_t most = 2 * job.window * job.negative;
    I* const drawn = scratch.take<I>(kDrawnWindows * most);
    const auto drawn_of = [=](int32_t t) HOTROW_INLINE_LAMBDA { return drawn + t % kDrawnWindows * most; };
    const auto fetch_outputs = [&](int32_t t) HOTROW_INLINE_LAMBDA {
        fetch(out_table.row(kept.word[t]));
        I* const words = drawn_of(t);
        const int64_t count = windows.contexts(t) * job.negative;
        const int64_t first = kept.position[t] * most;
        for (int64_t j = 0; j < count; ++j) words[j] = word_drawn(job, draws[uint64_t(first + j)]);
        for (int64_t j = 0; j < count; ++j) fetch(out_table.row(words[j]));
    };
    const auto each = [&](int32_t t, F** inputs, int64_t m, F lr, const auto& meanwhile) HOTROW_INLINE_LAMBDA {
        const I* negatives = drawn_of(t);
        const I center = kept.word[t];
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
template <class F, class I>
HOTROW_OWN_FUNCTION void skipgram_pairs(const Epoch<I>& job, Range range, void* memory, Mat<F> in_table,
                                        Mat<F> out_table, Loss& loss) {
    Scratch scratch{static_cast<char*>(memory)};
    Window<F> w(scratch, 1, 1 + job.negative, in_table.cols);
    SoftplusSum<F> sum;
    const auto fetch = [cols = in_table.cols](const F* row) HOTROW_INLINE_LAMBDA { prefetch_row(row, cols); };
    const auto train = [&](F** input, int64_t n, F lr, const auto& meanwhile) HOTROW_INLINE_LAMBDA {
        w.set_inputs(input, 1, false);
        w.n = n;
        ++loss.terms;
        train_window(w, in_table.cols, lr, FirstIsPositive{}, true, meanwhile, sum);
    };
    for_pairs<2>(job, range, scratch, in_table, out_table, w.outputs, fetch, train);
    sum.flush();
    loss.sum += sum.total;
}

// With h[a] and o[b] the inputs and outputs of for_windows: one step as in skipgram_step on all pairs (a, b) at once,
// from the values before it, repeated rows added up. Without shared negatives: skipgram_pairs.
template <class F, class I>
void skipgram_epoch(const Epoch<I>& job, Range range, void* memory, Mat<F> in_table, Mat<F> out_table, Loss& loss) {
    if (job.pool == 0) return skipgram_pairs(job, range, memory, in_table, out_table, loss);
    Scratch scratch{static_cast<char*>(memory)};
    Window<F> w(scratch, 2 * job.window, 1 + job.negative, in_table.cols);
    SoftplusSum<F> sum;
    const auto fetch = [cols = in_table.cols](const F* row) HOTROW_INLINE_LAMBDA { prefetch_row(row, cols); };
    const auto train = [&](F** inputs, int64_t m, int64_t n, bool repeats, F lr, const auto& meanwhile)
                           HOTROW_INLINE_LAMBDA {
        w.set_inputs(inputs, m, repeats);
        w.n = n;
        loss.terms += m;
        train_window(w, in_table.cols, lr, FirstIsPositive{}, repeats, meanwhile, sum);
    };
    for_windows<2>(job, range, scratch, in_table, out_table, w.outputs, fetch, train);
    sum.flush();
    loss.sum += sum.total;
}

}  // namespace
}  // namespace HOTROW_ISA
}  // namespace hotrow
