// A gradient step of a window: inputs and outputs, each pair of which has a score. With shared outputs it is three
// small matrix products (HogBatch: Ji et al., "Parallelizing Word2Vec in Shared and Distributed Memory", 2016).
#pragma once
#include "kernels/math.h"
#include "kernels/scratch.h"

namespace hotrow {
namespace HOTROW_ISA {
namespace {

constexpr int kOutputs = 6;  // output rows held in registers at a time: one positive and the usual five negatives

// The input rows (contexts) and output rows (the positive first, then negatives) of one window. Outputs form chunks of
// kOutputs; the coefficients of two inputs with a chunk stand in a tile of whole registers, kStride apart, that of
// input a and output b at(a, b).
template <class F>
struct Window {
    static constexpr int kTile = (2 * kOutputs + lanes<F> - 1) / lanes<F> * lanes<F>, kStride = kTile / 2;
    F** own;  // where inputs can stand
    F** inputs;
    F** outputs;
    F** moving;  // rows that hold the inputs on their way when there are several chunks
    F* coefficients;
    int64_t m = 0, n = 0, chunk_stride = 0;

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
    HOTROW_INLINE F* chunk(int64_t first_output) { return coefficients + first_output / kOutputs * chunk_stride; }
    HOTROW_INLINE F& at(int64_t a, int64_t b) { return chunk(b)[a * kStride + b % kOutputs]; }
};

// The score of lanes without a coefficient: it adds exactly nothing to the loss. A much lower one would make denormal
// coefficients, which are slow.
constexpr int kNoScore = -60;

// -1 for outputs that are positive, 1 for negatives, of the register that begins at place `first` of a tile of the
// chunk that begins with output q: here the first output is the positive.
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

// acc[a * kStride + b] += h[a] o[b] of A inputs and B outputs, at column d. With Own, o[0] of input a is owns[a].
template <int A, int B, bool Own, class F, class Part, class V>
HOTROW_INLINE void add_products(F* const* inputs, F* const* owns, F* const* outputs, int64_t d, Part part, V* acc) {
    constexpr int S = Window<F>::kStride;
    V h[A];
    for (int a = 0; a < A; ++a) h[a] = load(inputs[a] + d, part);
    for (int a = 0; a < A && Own; ++a) acc[a * S] = fma(h[a], load(owns[a] + d, part), acc[a * S]);
    for (int b = Own; b < B; ++b) {
        const V o = load(outputs[b] + d, part);
        for (int a = 0; a < A; ++a) acc[a * S + b] = fma(h[a], o, acc[a * S + b]);
    }
}

// x[a, b] = sign[b] h[a] . o[b] of A inputs and the B outputs from q on; with Own, o[0] of input a is owns[a].
// Order: lane sums over columns, those in short registers first, then reduce().
template <int A, int B, bool Own, class F, class Signs>
HOTROW_INLINE void scores_of_tile(F* const* inputs, F* const* owns, F* const* outputs, int64_t cols, int64_t q,
                                  const Signs& signs, F* x) {
    constexpr int L = lanes<F>, S = Window<F>::kStride, N = (A - 1) * S + B;
    short_pack<F> rest[N];
    for (int i = 0; i < N; ++i) rest[i] = short_pack<F>{};
    for_short_registers<F>(cols, [&](int64_t d, auto part) HOTROW_INLINE_LAMBDA {
        add_products<A, B, Own>(inputs, owns, outputs, d, part, rest);
    });
    pack<F> acc[N];
    for (int i = 0; i < N; ++i) acc[i] = widen(rest[i]);
    for_long_registers<F>(cols, [&](int64_t d, auto part) HOTROW_INLINE_LAMBDA {
        add_products<A, B, Own>(inputs, owns, outputs, d, part, acc);
    });
    reduce_all<N, F>(acc, [&](int first, pack<F> dots) HOTROW_INLINE_LAMBDA {
        pack<F> unused{};
        for (int i = 0; i < L; ++i) unused[i] = first + i < N && (first + i) % S < B ? F(0) : F(kNoScore);
        store(x + first, fma(dots, signs.template of_tile<F>(q, first), unused));
    });
    for (int i = (N + L - 1) / L * L; i < Window<F>::kTile; i += L) store(x + i, broadcast<F>(kNoScore));
}

// scores_of_tile of m inputs, tile after tile, and n <= kOutputs outputs from q on.
template <bool Own, class F, class Signs>
HOTROW_INLINE void scores_of_tiles(F* const* inputs, F* const* owns, int64_t m, F* const* outputs, int64_t n,
                                   int64_t cols, int64_t q, const Signs& signs, F* x) {
    with_width<kOutputs>(int(n), [&](auto width) HOTROW_INLINE_LAMBDA {
        constexpr int B = decltype(width)::value, S = Window<F>::kStride;
        F* rows[B];
        for (int b = 0; b < B; ++b) rows[b] = outputs[b];
        int64_t a = 0;
        for (; a + 2 <= m; a += 2)
            scores_of_tile<2, B, Own>(inputs + a, owns + a, rows, cols, q, signs, x + a * S);
        if (a < m) scores_of_tile<1, B, Own>(inputs + a, owns + a, rows, cols, q, signs, x + a * S);
    });
}

// The loss is sum_ab softplus(x[a, b]) and
// coefficient[a, b] = -lr d loss / d (h[a] . o[b]) = -sign[b] lr sigmoid(x[a, b]).
template <class F, class Signs>
HOTROW_INLINE void coefficients_of(Window<F>& w, int64_t cols, F lr, const Signs& signs, SoftplusSum<F>& loss) {
    w.chunk_stride = (w.m + 1) / 2 * w.kTile;
    for (int64_t q = 0; q < w.n; q += kOutputs) {
        F* const x = w.chunk(q);
        const int64_t n = w.n - q < kOutputs ? w.n - q : kOutputs;
        scores_of_tiles<false>(w.inputs, w.inputs, w.m, w.outputs + q, n, cols, q, signs, x);
        for (int64_t i = 0; i < w.chunk_stride; i += w.kTile)
            for (int k = 0; k < w.kTile; k += lanes<F>)
                store(x + i + k, sigmoid(load(x + i + k), loss) * (signs.template of_tile<F>(q, k) * -lr));
    }
}

// Rows that are equal have coefficients that are: adds these up and keeps one row. at(b, i) is that of row b and
// i < others.
template <class F, class At>
HOTROW_INLINE void merge_repeats(F** rows, int64_t& count, int64_t others, const At& at) {
    for (int64_t b = 1; b < count; ++b)
        for (int64_t e = 0; e < b; ++e)
            if (rows[e] == rows[b]) {
                --count;
                rows[b] = rows[count];
                for (int64_t i = 0; i < others; ++i) {
                    at(e, i) += at(b, i);
                    at(b, i) = at(count, i);
                }
                --b;
                break;
            }
}

template <class F>
HOTROW_INLINE void merge_repeats(Window<F>& w) {
    merge_repeats(w.inputs, w.m, w.n, [&](int64_t a, int64_t b) HOTROW_INLINE_LAMBDA -> F& { return w.at(a, b); });
    merge_repeats(w.outputs, w.n, w.m, [&](int64_t b, int64_t a) HOTROW_INLINE_LAMBDA -> F& { return w.at(a, b); });
}

// Of an input x and B outputs: after[b] += coefficient[b] x. Returns moved + sum_b coefficient[b] before[b].
template <int B, class F, class V>
HOTROW_INLINE V update_pairs(const F* coefficient, V x, V moved, const V* before, V* after) {
    for (int b = 0; b < B; ++b) {
        const V c = broadcast<F, V>(coefficient[b]);
        moved = fma(c, before[b], moved);
        after[b] = fma(c, x, after[b]);
    }
    return moved;
}

// to[a, :] = from[a, :] + sum_b coefficient[a, b] o[b, :] and o[b, :] += sum_a coefficient[a, b] h[a, :] for a chunk of
// B outputs. One pass over the columns: each row is loaded and stored once. `Alone`: from and to are h.
template <int B, bool Alone, class F>
void update_chunk(F* const* h, F* const* from, F* const* to, int64_t m, F* const* outputs, int64_t cols,
                  const F* coefficient) {
    F* o[B];
    for (int b = 0; b < B; ++b) o[b] = outputs[b];
    const auto columns = [&](int64_t d, auto part) HOTROW_INLINE_LAMBDA {
        using V = decltype(load(o[0] + d, part));
        V before[B], after[B];
        for (int b = 0; b < B; ++b) after[b] = before[b] = load(o[b] + d, part);
        for (int64_t a = 0; a < m; ++a) {
            const V x = load(h[a] + d, part);
            const V moved = Alone ? x : load(from[a] + d, part);
            store(to[a] + d, update_pairs<B>(coefficient + a * Window<F>::kStride, x, moved, before, after), part);
        }
        for (int b = 0; b < B; ++b) store(o[b] + d, after[b], part);
    };
    for_long_registers<F>(cols, columns);
    for_short_registers<F>(cols, columns);
}

// h[a, :] += sum_b coefficient[a, b] o[b, :] and o[b, :] += sum_a coefficient[a, b] h[a, :], both from the values
// before the update: the inputs stay as they are until the last chunk of outputs.
template <class F>
HOTROW_INLINE void update_rows(Window<F>& w, int64_t cols) {
    const bool alone = w.n <= kOutputs;
    for (int64_t q = 0; q < w.n; q += kOutputs)
        with_width<kOutputs>(int(w.n - q < kOutputs ? w.n - q : kOutputs), [&](auto width) HOTROW_INLINE_LAMBDA {
            constexpr int B = decltype(width)::value;
            F** const from = q == 0 ? w.inputs : w.moving;
            F** const to = q + kOutputs >= w.n ? w.inputs : w.moving;
            if (alone) update_chunk<B, true>(w.inputs, from, to, w.m, w.outputs + q, cols, w.chunk(q));
            else update_chunk<B, false>(w.inputs, from, to, w.m, w.outputs + q, cols, w.chunk(q));
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

}  // namespace
}  // namespace HOTROW_ISA
}  // namespace hotrow
