// Skip-gram with negative sampling (Mikolov et al. 2013). The negatives of a centre are shared by its contexts, so
// that a window is three small matrix products (HogBatch: Ji et al., "Parallelizing Word2Vec in Shared and
// Distributed Memory", 2016).
#pragma once
#include "kernels/math.h"
#include "kernels/simd.h"
#include "runtime/random.h"

namespace hotrow {
namespace HOTROW_ISA {
namespace {

constexpr int kOutputs = 6;  // output rows held in registers at a time: one positive and the usual five negatives

// Bump allocation from the memory the plan hands in.
struct Scratch {
    char* next;
    template <class T>
    HOTROW_INLINE T* take(int64_t count) {
        T* p = reinterpret_cast<T*>(next);
        next += (count * int64_t(sizeof(T)) + 63) / 64 * 64;
        return p;
    }
};

// The input rows (contexts) and output rows (the positive first, then negatives) of one window. Outputs form groups of
// kOutputs; the coefficient of input a and output b is at(a, b).
template <class F>
struct Window {
    F** inputs;
    F** outputs;
    F** moving;  // rows that hold the inputs on their way when there are several groups
    F* coefficients;
    int64_t m = 0, n = 0, group_stride = 0;

    HOTROW_INLINE Window(Scratch& scratch, int64_t max_inputs, int64_t max_outputs, int64_t cols)
        : inputs(scratch.take<F*>(max_inputs)),
          outputs(scratch.take<F*>(max_outputs)),
          moving(scratch.take<F*>(max_inputs)),
          coefficients(scratch.take<F>(max_inputs * (max_outputs + kOutputs) + lanes<F>)) {
        F* const rows = scratch.take<F>(max_inputs * cols);
        for (int64_t a = 0; a < max_inputs; ++a) moving[a] = rows + a * cols;
    }
    HOTROW_INLINE F* group(int64_t first_output) { return coefficients + first_output / kOutputs * group_stride; }
    HOTROW_INLINE F& at(int64_t a, int64_t b) { return group(b)[a * kOutputs + b % kOutputs]; }
};

// dots[a * kOutputs + b] = inputs[a] . outputs[b]. Order: lane sums over ascending columns, then reduce().
template <int A, int B, class F>
HOTROW_INLINE void dot_tile(F* const* inputs, F* const* outputs, int64_t cols, F* dots) {
    constexpr int L = lanes<F>;
    pack<F> acc[A * B];
    for (int i = 0; i < A * B; ++i) acc[i] = zero<F>();
    const auto add = [&](auto at) HOTROW_INLINE_LAMBDA {
        pack<F> h[A];
        for (int a = 0; a < A; ++a) h[a] = at(inputs[a]);
        for (int b = 0; b < B; ++b) {
            const pack<F> o = at(outputs[b]);
            for (int a = 0; a < A; ++a) acc[a * B + b] = fma(h[a], o, acc[a * B + b]);
        }
    };
    int64_t d = 0;
    for (; d + L <= cols; d += L) add([d](const F* row) HOTROW_INLINE_LAMBDA { return load(row + d); });
    if (d < cols) {
        const Tail<F> tail(int(cols - d));
        add([d, tail](const F* row) HOTROW_INLINE_LAMBDA { return load(row + d, tail); });
    }
    F sums[A * B + L];
    reduce_all<A * B>(acc, sums);
    for (int a = 0; a < A; ++a)
        for (int b = 0; b < B; ++b) dots[a * kOutputs + b] = sums[a * B + b];
}

// The dots of all m inputs with a group of B outputs; where B < kOutputs, what is left over comes out as `filler`.
template <int B, class F>
void dot_group(F* const* inputs, int64_t m, F* const* outputs, int64_t cols, F filler, F* dots) {
    F* group[B];
    for (int b = 0; b < B; ++b) group[b] = outputs[b];
    int64_t a = 0;
    for (; a + 2 <= m; a += 2) dot_tile<2, B>(inputs + a, group, cols, dots + a * kOutputs);
    if (a < m) dot_tile<1, B>(inputs + a, group, cols, dots + a * kOutputs);
    for (a = 0; a < m; ++a)
        for (int b = B; b < kOutputs; ++b) dots[a * kOutputs + b] = filler;
}

// x[a, b] = h[a] . o[b], and so small where a group has no output b that its sigmoid vanishes. Returns how many there
// are; what is left of the last register is small too.
template <class F>
HOTROW_INLINE int64_t dot_products(Window<F>& w, int64_t cols) {
    const int64_t m = w.m;
    w.group_stride = m * kOutputs;
    for (int64_t q = 0; q < w.n; q += kOutputs)
        with_width<kOutputs>(int(w.n - q < kOutputs ? w.n - q : kOutputs), [&](auto width) HOTROW_INLINE_LAMBDA {
            dot_group<decltype(width)::value>(w.inputs, m, w.outputs + q, cols, ExpConstants<F>::lowest, w.group(q));
        });
    const int64_t count = (w.n + kOutputs - 1) / kOutputs * w.group_stride;
    store(w.coefficients + count, broadcast<F>(ExpConstants<F>::lowest));
    return count;
}

// x[a, b] = -h[a] . o[0] for the positive, h[a] . o[b] for negatives: the loss is sum_ab softplus(x[a, b]) and
// coefficient[a, b] = -lr d loss / d (h[a] . o[b]) = -+ lr sigmoid(x[a, b]).
template <class F>
HOTROW_INLINE void coefficients_of(Window<F>& w, int64_t cols, F lr, SoftplusSum<F>& loss) {
    const int64_t m = w.m, count = dot_products(w, cols);
    F* const x = w.coefficients;
    for (int64_t a = 0; a < m; ++a) x[a * kOutputs] = -x[a * kOutputs];
    for (int64_t i = 0; i < count; i += lanes<F>) store(x + i, sigmoid(load(x + i), loss) * -lr);
    for (int64_t a = 0; a < m; ++a) x[a * kOutputs] = -x[a * kOutputs];
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
HOTROW_INLINE void merge_inputs(Window<F>& w) {
    merge_repeats(
        w.inputs, w.m,
        [&](int64_t e, int64_t a) HOTROW_INLINE_LAMBDA {
            for (int64_t b = 0; b < w.n; ++b) w.at(e, b) += w.at(a, b);
        },
        [&](int64_t a, int64_t last) HOTROW_INLINE_LAMBDA {
            for (int64_t b = 0; b < w.n; ++b) w.at(a, b) = w.at(last, b);
        });
}
template <class F>
HOTROW_INLINE void merge_outputs(Window<F>& w) {
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
    const auto columns = [&](auto load_at, auto store_at) HOTROW_INLINE_LAMBDA {
        pack<F> before[B], after[B];
        for (int b = 0; b < B; ++b) after[b] = before[b] = load_at(o[b]);
        for (int64_t a = 0; a < m; ++a) {
            const pack<F> x = load_at(h[a]);
            pack<F> moved = Alone ? x : load_at(from[a]);
            for (int b = 0; b < B; ++b) {
                const pack<F> c = broadcast(coefficient[a * kOutputs + b]);
                moved = fma(c, before[b], moved);
                after[b] = fma(c, x, after[b]);
            }
            store_at(to[a], moved);
        }
        for (int b = 0; b < B; ++b) store_at(o[b], after[b]);
    };
    int64_t d = 0;
    for (; d + lanes<F> <= cols; d += lanes<F>)
        columns([d](const F* row) HOTROW_INLINE_LAMBDA { return load(row + d); },
                [d](F* row, pack<F> x) HOTROW_INLINE_LAMBDA { store(row + d, x); });
    if (d < cols) {
        const Tail<F> tail(int(cols - d));
        columns([d, tail](const F* row) HOTROW_INLINE_LAMBDA { return load(row + d, tail); },
                [d, tail](F* row, pack<F> x) HOTROW_INLINE_LAMBDA { store(row + d, x, tail); });
    }
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

template <class F>
HOTROW_INLINE void train_window(Window<F>& w, int64_t cols, F lr, SoftplusSum<F>& loss) {
    coefficients_of(w, cols, lr, loss);
    merge_inputs(w);
    merge_outputs(w);
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
        train_window(w, in_table.cols, lr, sum);
    }
    sum.flush();
    loss.sum += sum.total;
    loss.terms += range.end - range.begin;
}

// The words of a token range that survive subsampling, the centres, each with the bounds of its sentence among them; up
// to `window` words on either side of the range serve as contexts only, and are looked for only if there are centres.
template <class I>
struct KeptWords {
    I* word;
    int64_t* position;
    int32_t* sentence_begin;
    int32_t* sentence_end;
    int32_t centers_begin, centers_end, count;

    HOTROW_INLINE KeptWords(const Epoch<I>& job, Range range, Scratch& scratch) {
        const int64_t room = kTokensPerBlock + 2 * job.window;
        word = scratch.take<I>(room);
        position = scratch.take<int64_t>(room);
        sentence_begin = scratch.take<int32_t>(room);
        sentence_end = scratch.take<int32_t>(room);
        const Draws draws(job.seed, Stream::keep);
        const auto kept = [&](int64_t p) { return low(draws[uint64_t(p)]) <= job.keep[job.tokens[p]]; };

        count = centers_begin = int32_t(job.window);
        const int64_t first = sentence_of(job, range.begin);
        int32_t first_end = count, last_begin = count;  // centres of the first and of the last sentence
        int64_t p = range.begin, s = first;
        for (; p < range.end; ++s) {
            last_begin = count;
            for (; p < job.offsets[s + 1] && p < range.end; ++p)
                if (kept(p)) push(job, p);
            if (s == first) first_end = count;
            set_bounds(last_begin, count, last_begin, count);
        }
        centers_end = count;
        if (last_begin < centers_end) {  // the last sentence may go on
            for (; p < job.offsets[s] && count < centers_end + job.window; ++p)
                if (kept(p)) push(job, p);
            set_bounds(last_begin, centers_end, last_begin, count);
        }
        if (centers_begin < first_end) {  // the first one may have begun before
            int32_t begin = centers_begin;
            for (p = range.begin - 1; p >= job.offsets[first] && begin > 0; --p)
                if (kept(p)) word[--begin] = job.tokens[p];
            for (int32_t i = centers_begin; i < first_end; ++i) sentence_begin[i] = begin;
        }
    }
    HOTROW_INLINE void set_bounds(int32_t i, int32_t end, int32_t sentence_from, int32_t sentence_to) {
        for (; i < end; ++i) {
            sentence_begin[i] = sentence_from;
            sentence_end[i] = sentence_to;
        }
    }
    HOTROW_INLINE void push(const Epoch<I>& job, int64_t p) {
        word[count] = job.tokens[p];
        position[count++] = p;
    }
    // The sentence that token p belongs to: the last one that starts at or before p.
    static HOTROW_INLINE int64_t sentence_of(const Epoch<I>& job, int64_t p) {
        int64_t low = 0, high = job.sentences;
        while (high - low > 1) {
            const int64_t middle = low + (high - low) / 2;
            (job.offsets[middle] <= p ? low : high) = middle;
        }
        return low;
    }
};

// For each kept word of a range in turn, the centre t: its contexts are the kept words of its sentence within a drawn
// window. Of centres that have any, train(t, m, lr) gets m rows in inputs, in_table[context]. lr falls linearly
// from lr_begin to lr_end over all tokens. prepare(t) is called `Ahead` centres before; fetch(row) brings a row near.
template <int32_t Ahead, class F, class I, class Fetch, class Prepare, class Train>
HOTROW_INLINE void for_contexts(const Epoch<I>& job, const KeptWords<I>& kept, Mat<F> in_table, F** inputs,
                                const Fetch& fetch, const Prepare& prepare, const Train& train) {
    const Draws windows(job.seed, Stream::window);
    const double lr_slope = (job.lr_end - job.lr_begin) / double(job.offsets[job.sentences]);
    for (int32_t t = kept.centers_begin; t < kept.centers_end && t < kept.centers_begin + Ahead; ++t) prepare(t);
    for (int32_t t = kept.centers_begin; t < kept.centers_end; ++t) {
        if (t + Ahead < kept.centers_end) prepare(t + Ahead);
        const int64_t arrival = t + job.window + Ahead;
        if (arrival < kept.count) fetch(in_table.row(kept.word[arrival]));

        const int64_t position = kept.position[t];
        const int64_t reach = job.shrink_windows
                                  ? 1 + int64_t(scale_high(windows[uint64_t(position)], uint64_t(job.window)))
                                  : job.window;
        const int64_t begin = t - reach > kept.sentence_begin[t] ? t - reach : kept.sentence_begin[t];
        const int64_t end = t + reach < kept.sentence_end[t] ? t + reach + 1 : kept.sentence_end[t];
        int64_t m = 0;
        for (int64_t c = begin; c < end; ++c)
            if (c != t) inputs[m++] = in_table.row(kept.word[c]);
        if (m > 0) train(t, m, F(job.lr_begin + lr_slope * double(position)));
    }
}

// The centres and contexts of for_contexts; train(m, n, lr) gets n rows in outputs too, out_table[centre] and
// out_table[drawn negative != centre]. `Ahead` is a power of 2.
template <int32_t Ahead, class F, class I, class Fetch, class Train>
HOTROW_INLINE void for_windows(const Epoch<I>& job, Range range, Scratch& scratch, Mat<F> in_table, Mat<F> out_table,
                               F** inputs, F** outputs, const Fetch& fetch, const Train& train) {
    constexpr int32_t ring = 2 * Ahead;
    const KeptWords<I> kept(job, range, scratch);
    I* const drawn = scratch.take<I>(ring * job.negative);
    const Draws negatives(job.seed, Stream::negative);
    const auto draw = [&](int32_t t) HOTROW_INLINE_LAMBDA {
        I* const row = drawn + t % ring * job.negative;
        fetch(out_table.row(kept.word[t]));
        for (int64_t k = 0; k < job.negative; ++k) {
            const uint64_t x = negatives[uint64_t(kept.position[t] * job.negative + k)];
            const uint64_t bucket = scale_high(x, uint64_t(job.vocabulary));
            const I other = I(job.alias_other[bucket]);  // loaded either way: the choice is a coin toss, no branch
            row[k] = low(x) <= job.alias_accept[bucket] ? I(bucket) : other;
            fetch(out_table.row(row[k]));
        }
    };
    for_contexts<Ahead>(job, kept, in_table, inputs, fetch, draw, [&](int32_t t, int64_t m, F lr) HOTROW_INLINE_LAMBDA {
        int64_t n = 0;
        outputs[n++] = out_table.row(kept.word[t]);
        for (const I *k = drawn + t % ring * job.negative, *last = k + job.negative; k < last; ++k)
            if (*k != kept.word[t]) outputs[n++] = out_table.row(*k);
        train(m, n, lr);
    });
}

// With h[a] and o[b] the inputs and outputs of for_windows: one step as in skipgram_step on all pairs (a, b) at once,
// from the values before it, repeated rows added up.
template <class F, class I>
void skipgram_epoch(const Epoch<I>& job, Range range, void* memory, Mat<F> in_table, Mat<F> out_table, Loss& loss) {
    Scratch scratch{static_cast<char*>(memory)};
    Window<F> w(scratch, 2 * job.window, 1 + job.negative, in_table.cols);
    SoftplusSum<F> sum;
    const auto fetch = [cols = in_table.cols](const F* row) HOTROW_INLINE_LAMBDA { prefetch_row(row, cols); };
    const auto train = [&](int64_t m, int64_t n, F lr) HOTROW_INLINE_LAMBDA {
        w.m = m;
        w.n = n;
        loss.terms += m;
        train_window(w, in_table.cols, lr, sum);
    };
    for_windows<2>(job, range, scratch, in_table, out_table, w.inputs, w.outputs, fetch, train);
    sum.flush();
    loss.sum += sum.total;
}

}  // namespace
}  // namespace HOTROW_ISA
}  // namespace hotrow
