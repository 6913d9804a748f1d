// Optimizer steps fused with de-duplication: each row that was looked up, and its state, is read and written once.
// Element by element, so that every ISA and backend gives the same bits; `g` is the row's summed gradient, `w` the row.
#pragma once
#include "kernels/scatter.h"

namespace hotrow {
namespace HOTROW_ISA {
namespace {

// The row that a step updates: w[d] reads as keep * w[d].
template <class E, class F = real<E>>
struct Row {
    E* w;
    F keep;
    RowRounding rounding;
    template <class End>
    HOTROW_INLINE pack<F> get(int64_t d, End tail) const {
        return load(w + d, tail) * keep;
    }
    template <class End>
    HOTROW_INLINE void subtract(int64_t d, pack<F> step, End tail) const {
        store_row(w, d, get(d, tail) - step, tail, rounding);
    }
};

// out = g * scale, clipped to [-clip, clip], + weight_decay * w; out may be g
template <class E, class F>
HOTROW_INLINE void adjust_gradient(const Adjust<F>& adjust, int64_t cols, const E* w, const F* g, F* out) {
    const pack<F> most = broadcast<F>(adjust.clip), least = -most;
    for_registers<F>(cols, [&](int64_t d, auto tail) HOTROW_INLINE_LAMBDA {
        pack<F> x = load(g + d, tail) * adjust.scale;
        x = select<F>(x > most, most, x);
        x = select<F>(x < least, least, x);
        if (adjust.weight_decay != 0) x += load(w + d, tail) * adjust.weight_decay;
        store(out + d, x, tail);
    });
}

// update(index, g, row) for the row of each run; `scratch` [D] holds its gradient.
template <class E, class F, class I, class Update>
HOTROW_INLINE void update_rows(const Lookup<I>* lookups, const Gradient<F>& gradient, Range range,
                               const Adjust<F>& adjust, F* scratch, Mat<E> table, const Fetch& fetch,
                               const Update& update) {
    const auto place = [=](int64_t) { return scratch; };
    const auto use = [&](int64_t, int64_t index, const F* g) HOTROW_INLINE_LAMBDA {
        E* const w = table.row(index);
        if (adjust.any) {
            adjust_gradient(adjust, table.cols, w, g, scratch);
            g = scratch;
        }
        update(index, g, Row<E>{w, adjust.keep, {adjust.rounding, index}});
    };
    for_run_sums<true>(lookups, gradient, range, fetch, place, use);
}

// w -= lr * g
// with a buffer: b = momentum * b + g, and g is b, or g + momentum * b if nesterov
template <class E, class I, class F = real<E>>
void sgd_step(const Lookup<I>* lookups, const Gradient<F>& gradient, Range range, const Adjust<F>& adjust, F lr,
              F momentum, bool nesterov, F* scratch, Mat<F> momentum_buffer, Mat<E> table) {
    if (!momentum_buffer.data)
        return update_rows(lookups, gradient, range, adjust, scratch, table, fetch_rows(table),
                           [=](int64_t, const F* g, const Row<E>& w) HOTROW_INLINE_LAMBDA {
                               for_registers<F>(table.cols, [=](int64_t d, auto tail) HOTROW_INLINE_LAMBDA {
                                   w.subtract(d, load(g + d, tail) * lr, tail);
                               });
                           });
    update_rows(lookups, gradient, range, adjust, scratch, table, fetch_rows(table, momentum_buffer),
                [=](int64_t index, const F* g, const Row<E>& w) HOTROW_INLINE_LAMBDA {
                    F* const buffer = momentum_buffer.row(index);
                    for_registers<F>(table.cols, [=](int64_t d, auto tail) HOTROW_INLINE_LAMBDA {
                        const pack<F> x = load(g + d, tail), b = load(buffer + d, tail) * momentum + x;
                        store(buffer + d, b, tail);
                        w.subtract(d, (nesterov ? x + b * momentum : b) * lr, tail);
                    });
                });
}

// s += g^2;  w -= lr * g / (sqrt(s) + eps)
template <class E, class I, class F = real<E>>
void adagrad_step(const Lookup<I>* lookups, const Gradient<F>& gradient, Range range, const Adjust<F>& adjust, F lr,
                  F eps, F* scratch, Mat<F> state_sum, Mat<E> table) {
    update_rows(lookups, gradient, range, adjust, scratch, table, fetch_rows(table, state_sum),
                [=](int64_t index, const F* g, const Row<E>& w) HOTROW_INLINE_LAMBDA {
                    F* const sum = state_sum.row(index);
                    for_registers<F>(table.cols, [=](int64_t d, auto tail) HOTROW_INLINE_LAMBDA {
                        const pack<F> x = load(g + d, tail), s = load(sum + d, tail) + x * x;
                        store(sum + d, s, tail);
                        w.subtract(d, (x * lr) / (root(s) + eps), tail);
                    });
                });
}

// s[row] += mean over d of g[d]^2;  w -= lr * g / (sqrt(s[row]) + eps)
template <class E, class I, class F = real<E>>
void rowwise_adagrad_step(const Lookup<I>* lookups, const Gradient<F>& gradient, Range range, const Adjust<F>& adjust,
                          F lr, F eps, F* scratch, F* state_sum, Mat<E> table) {
    update_rows(lookups, gradient, range, adjust, scratch, table,
                fetch_rows(table, Mat<F>{state_sum, table.rows, 1, 1}),
                [=](int64_t index, const F* g, const Row<E>& w) HOTROW_INLINE_LAMBDA {
                    state_sum[index] += sum_of_squares<F>(g, table.cols) / F(table.cols);
                    const F rate = lr / (root(state_sum[index]) + eps);
                    for_registers<F>(table.cols, [=](int64_t d, auto tail) HOTROW_INLINE_LAMBDA {
                        w.subtract(d, load(g + d, tail) * rate, tail);
                    });
                });
}

// v = alpha * v + (1 - alpha) * g^2;  w -= lr * g / (sqrt(v) + eps)
template <class E, class I, class F = real<E>>
void rmsprop_step(const Lookup<I>* lookups, const Gradient<F>& gradient, Range range, const Adjust<F>& adjust, F lr,
                  F alpha, F rest, F eps, F* scratch, Mat<F> square_avg, Mat<E> table) {
    update_rows(lookups, gradient, range, adjust, scratch, table, fetch_rows(table, square_avg),
                [=](int64_t index, const F* g, const Row<E>& w) HOTROW_INLINE_LAMBDA {
                    F* const average = square_avg.row(index);
                    for_registers<F>(table.cols, [=](int64_t d, auto tail) HOTROW_INLINE_LAMBDA {
                        const pack<F> x = load(g + d, tail), v = load(average + d, tail) * alpha + (x * x) * rest;
                        store(average + d, v, tail);
                        w.subtract(d, (x * lr) / (root(v) + eps), tail);
                    });
                });
}

// m = beta1 * m + (1 - beta1) * g;  v = beta2 * v + (1 - beta2) * g^2;  w -= rate * m / (sqrt(v) + eps)
// rate and eps include the bias correction: of the global step, or of how often this row was updated.
template <class E, class I, class F = real<E>>
void adam_step(const Lookup<I>* lookups, const Gradient<F>& gradient, Range range, const Adjust<F>& adjust,
               const AdamRule<F>& rule, F* scratch, Mat<F> exp_avg, Mat<F> exp_avg_sq, int32_t* row_steps,
               Mat<E> table) {
    update_rows(lookups, gradient, range, adjust, scratch, table, fetch_rows(table, exp_avg, exp_avg_sq),
                [=](int64_t index, const F* g, const Row<E>& w) HOTROW_INLINE_LAMBDA {
                    F *const first = exp_avg.row(index), *const second = exp_avg_sq.row(index);
                    F rate = rule.rate, eps = rule.eps;
                    if (row_steps) {
                        if (row_steps[index] < INT32_MAX) ++row_steps[index];
                        const int64_t known = rule.corrections.rows, steps = row_steps[index];
                        const int64_t t = steps < 1 ? 1 : steps < known ? steps : known;
                        rate *= rule.corrections.row(t - 1)[0];
                        eps *= rule.corrections.row(t - 1)[1];
                    }
                    for_registers<F>(table.cols, [&](int64_t d, auto tail) HOTROW_INLINE_LAMBDA {
                        const pack<F> x = load(g + d, tail);
                        const pack<F> m = load(first + d, tail) * rule.beta1 + x * rule.rest1;
                        const pack<F> v = load(second + d, tail) * rule.beta2 + (x * x) * rule.rest2;
                        store(first + d, m, tail);
                        store(second + d, v, tail);
                        w.subtract(d, (m * rate) / (root(v) + eps), tail);
                    });
                });
}

// w *= max_norm / (norm + 1e-7) if norm > max_norm, where norm^2 = sum over d of w[d]^2, for the row of every run
template <class E, class I, class F = real<E>>
void renorm(const Lookup<I>* lookups, Range range, F max_norm, const Rounding& rounding, Mat<E> table) {
    for (int64_t i = range.begin; i < range.end; ++i) {
        const int64_t index = lookups[i].row;
        if (i > range.begin && lookups[i].row == lookups[i - 1].row) continue;
        E* const w = table.row(index);
        const F norm = root(sum_of_squares<E>(w, table.cols));
        if (!(norm > max_norm)) continue;
        const F factor = max_norm / (norm + F(1e-7));
        const RowRounding here(rounding, index);
        for_registers<F>(table.cols, [=](int64_t d, auto tail) HOTROW_INLINE_LAMBDA {
            store_row(w, d, load(w + d, tail) * factor, tail, here);
        });
    }
}

}  // namespace
}  // namespace HOTROW_ISA
}  // namespace hotrow
