// A gradient step of a window: inputs and outputs, each pair of which has a score. With shared outputs it is three
// small matrix products (HogBatch: Ji et al., "Parallelizing Word2Vec in Shared and Distributed Memory", 2016).
#pragma once
#include "kernels/math.h"
#include "kernels/scratch.h"

namespace hotrow {
namespace HOTROW_ISA {
namespace {

constexpr int kOutputs = 6;  // output rows held in registers at a time: one positive and the usual five negatives

// A number for each pair of m inputs and n outputs. Outputs form chunks of kOutputs, the last of what is left; these
// stand one after another, in each the numbers of input after input. Whole registers of them fit past the last.
template <class F>
struct Pairs {
    F* numbers;
    int64_t m, n;

    HOTROW_INLINE F* chunk(int64_t first_output) const { return numbers + first_output * m; }
    HOTROW_INLINE int64_t width(int64_t first_output) const {
        return n - first_output < kOutputs ? n - first_output : kOutputs;
    }
    HOTROW_INLINE F& at(int64_t a, int64_t b) const {
        const int64_t first = b / kOutputs * kOutputs;
        return chunk(first)[a * width(first) + b - first];
    }
};

// The input rows (contexts) and output rows of one window.
template <class F>
struct Window {
    F** own;  // where inputs can stand
    F** inputs;
    F** outputs;
    F** moving;  // rows that hold the inputs on their way when there are several chunks
    F* signs;    // -1 for pairs with a positive output, 1 for those with a negative, in the order of coefficients
    Pairs<F> coefficients;
    int64_t m = 0, n = 0;

    HOTROW_INLINE Window(Scratch& scratch, int64_t max_inputs, int64_t max_outputs, int64_t cols)
        : own(scratch.take<F*>(max_inputs)),
          inputs(own),
          outputs(scratch.take<F*>(max_outputs)),
          moving(scratch.take<F*>(max_inputs)),
          signs(scratch.take<F>(max_inputs * max_outputs + lanes<F>)),
          coefficients{scratch.take<F>(max_inputs * max_outputs + lanes<F>), 0, 0} {
        F* const rows = scratch.take<F>(max_inputs * cols);
        for (int64_t a = 0; a < max_inputs; ++a) moving[a] = rows + a * cols;
        // Of one input whose first output is the positive; others set their own.
        for (int64_t i = 0; i < max_inputs * max_outputs + lanes<F>; ++i) signs[i] = i == 0 ? -1 : 1;
    }
    // Takes m inputs that stand in a row elsewhere; repeats among them will be merged, so that they move.
    HOTROW_INLINE void set_inputs(F** rows, int64_t count, bool repeats) {
        m = count;
        inputs = repeats ? own : rows;
        for (int64_t a = 0; a < m && repeats; ++a) own[a] = rows[a];
    }
};

// acc[a * B + b] += h[a] o[b] of A inputs and B outputs, at column d. With Own, o[0] of input a is owns[a].
template <int A, int B, bool Own, class F, class Part, class V>
HOTROW_INLINE void add_products(F* const* inputs, F* const* owns, F* const* outputs, int64_t d, Part part, V* acc) {
    V h[A];
    for (int a = 0; a < A; ++a) h[a] = load(inputs[a] + d, part);
    for (int a = 0; a < A && Own; ++a) acc[a * B] = fma(h[a], load(owns[a] + d, part), acc[a * B]);
    for (int b = Own; b < B; ++b) {
        const V o = in_register(load(outputs[b] + d, part));
        for (int a = 0; a < A; ++a) acc[a * B + b] = fma(h[a], o, acc[a * B + b]);
    }
}

// dots[a * B + b] = h[a] . o[b] of A inputs and B outputs, and less than a register past them is written to; with Own,
// o[0] of input a is owns[a]. Order: lane sums over columns, those in short registers first, then reduce().
template <int A, int B, bool Own, class F>
HOTROW_INLINE void dots_of_tile(F* const* inputs, F* const* owns, F* const* outputs, int64_t cols, F* dots) {
    constexpr int N = A * B;
    short_pack<F> rest[N];
    for (int i = 0; i < N; ++i) rest[i] = short_pack<F>{};
    for_short_registers<F>(cols, [&](int64_t d, auto part) HOTROW_INLINE_LAMBDA {
        add_products<A, B, Own, F>(inputs, owns, outputs, d, part, rest);
    });
    pack<F> acc[N];
    for (int i = 0; i < N; ++i) acc[i] = widen(rest[i]);
    for_long_registers<F>(cols, [&](int64_t d, auto part) HOTROW_INLINE_LAMBDA {
        add_products<A, B, Own, F>(inputs, owns, outputs, d, part, acc);
    });
    reduce_all<N, F>(acc, [&](int first, pack<F> sums) HOTROW_INLINE_LAMBDA { store(dots + first, sums); });
}

// dots[a * n + b] of m inputs, tile after tile, and n <= kOutputs outputs, as dots_of_tile.
template <bool Own, class F>
HOTROW_INLINE void dots_of_tiles(F* const* inputs, F* const* owns, int64_t m, F* const* outputs, int64_t n,
                                 int64_t cols, F* dots) {
    with_width<kOutputs>(int(n), [&](auto width) HOTROW_INLINE_LAMBDA {
        constexpr int B = decltype(width)::value;
        F* rows[B];
        for (int b = 0; b < B; ++b) rows[b] = outputs[b];
        int64_t a = 0;
        for (; a + 2 <= m; a += 2) dots_of_tile<2, B, Own>(inputs + a, owns + a, rows, cols, dots + a * B);
        if (a < m) dots_of_tile<1, B, Own>(inputs + a, owns + a, rows, cols, dots + a * B);
    });
}

// The score of what is no pair: it adds exactly nothing to the loss. A much lower one would make denormal coefficients,
// which are slow.
constexpr int kNoScore = -60;

// Of so many pairs, with x = sign h . o: the loss is the sum of softplus(x), and the coefficient of a pair is
// -lr d loss / d (h . o) = -lr sign sigmoid(x). It takes the place of h . o, and up to a register past them is lost.
template <class F>
HOTROW_INLINE void coefficients_of(F* pairs, const F* signs, int64_t count, F lr, SoftplusSum<F>& loss) {
    store(pairs + count, load(signs + count) * F(kNoScore));  // whatever the signs there are
    for (int64_t i = 0; i < count; i += lanes<F>) {
        const pack<F> sign = load(signs + i);
        store(pairs + i, sigmoid(load(pairs + i) * sign, loss) * (sign * -lr));
    }
}

// Of all pairs of a window, h . o in the place of its coefficient.
template <class F>
HOTROW_OWN_FUNCTION void dots_of(Window<F>& w, int64_t cols) {
    const Pairs<F> pairs = w.coefficients = {w.coefficients.numbers, w.m, w.n};
    for (int64_t q = 0; q < w.n; q += kOutputs)
        dots_of_tiles<false>(w.inputs, w.inputs, w.m, w.outputs + q, pairs.width(q), cols, pairs.chunk(q));
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
HOTROW_OWN_FUNCTION void merge_repeats(Window<F>& w) {
    const Pairs<F> c = w.coefficients;
    merge_repeats(w.inputs, w.m, w.n, [&](int64_t a, int64_t b) HOTROW_INLINE_LAMBDA -> F& { return c.at(a, b); });
    merge_repeats(w.outputs, w.n, w.m, [&](int64_t b, int64_t a) HOTROW_INLINE_LAMBDA -> F& { return c.at(a, b); });
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
// B outputs, those of inputs being `stride` apart. One pass over the columns: each row is loaded and stored once.
// `Alone`: from and to are h.
template <int B, bool Alone, class F>
void update_chunk(F* const* h, F* const* from, F* const* to, int64_t m, F* const* outputs, int64_t cols,
                  const F* coefficient, int64_t stride) {
    F* o[B];
    for (int b = 0; b < B; ++b) o[b] = outputs[b];
    const auto columns = [&](int64_t d, auto part) HOTROW_INLINE_LAMBDA {
        using V = decltype(load(o[0] + d, part));
        V before[B], after[B];
        for (int b = 0; b < B; ++b) after[b] = before[b] = load(o[b] + d, part);
        for (int64_t a = 0; a < m; ++a) {
            const V x = load(h[a] + d, part);
            const V moved = Alone ? x : load(from[a] + d, part);
            store(to[a] + d, update_pairs<B>(coefficient + a * stride, x, moved, before, after), part);
        }
        for (int b = 0; b < B; ++b) store(o[b] + d, after[b], part);
    };
    for_long_registers<F>(cols, columns);
    for_short_registers<F>(cols, columns);
}

// h[a, :] += sum_b coefficient[a, b] o[b, :] and o[b, :] += sum_a coefficient[a, b] h[a, :], both from the values
// before the update: the inputs stay as they are until the last chunk of outputs.
template <class F>
HOTROW_OWN_FUNCTION void update_rows(Window<F>& w, int64_t cols) {
    const bool alone = w.n <= kOutputs;
    for (int64_t q = 0; q < w.n; q += kOutputs)
        with_width<kOutputs>(int(w.n - q < kOutputs ? w.n - q : kOutputs), [&](auto width) HOTROW_INLINE_LAMBDA {
            constexpr int B = decltype(width)::value;
            F** const from = q == 0 ? w.inputs : w.moving;
            F** const to = q + kOutputs >= w.n ? w.inputs : w.moving;
            F* const c = w.coefficients.chunk(q);
            const int64_t stride = w.coefficients.width(q);
            if (alone) update_chunk<B, true>(w.inputs, from, to, w.m, w.outputs + q, cols, c, stride);
            else update_chunk<B, false>(w.inputs, from, to, w.m, w.outputs + q, cols, c, stride);
        });
}

template <class F, class Meanwhile>
HOTROW_INLINE void train_window(Window<F>& w, int64_t cols, F lr, bool repeats, const Meanwhile& meanwhile,
                                SoftplusSum<F>& loss) {
    dots_of(w, cols);
    meanwhile();
    coefficients_of(w.coefficients.numbers, w.signs, w.m * w.n, lr, loss);
    if (repeats) merge_repeats(w);
    update_rows(w, cols);
}

}  // namespace
}  // namespace HOTROW_ISA
}  // namespace hotrow
