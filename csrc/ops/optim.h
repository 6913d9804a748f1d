// Plans of the optimizer steps: sorted lookups, one pass over the rows that were looked up and their state.
// Each moves N D reads of `grads` (B D with offsets), and of the table and each [R, D] state U D reads and writes: N D
// flops and a few per touched element. The floor is the rate of random-row updates.
#pragma once
#include <cmath>

#include "ops/scatter.h"

namespace hotrow {
namespace plan {

// As hotrow.steps.StepOptions; infinity where there is no limit.
struct StepOptions {
    double clip_norm, clip_value, weight_decay;
    bool decoupled;
    double max_norm;
    Rounding rounding;
};

// step(lookups, gradient, range, adjust, scratch) for every piece, with what options ask for before and after.
template <class E, class I, class Step, class F = real<E>>
void run_step(Runs<F, I>& runs, const StepOptions& options, double lr, Mat<E> table, const Step& step) {
    F scale = 1;
    if (options.clip_norm < INFINITY) {
        std::vector<double> squares(size_t(runs.number()));
        const auto kernel = kernels().get<F, I>().squares;
        runs.each([&](const Lookup<I>* lookups, const Gradient<F>& gradient, Range range, int64_t u, F* scratch) {
            kernel(lookups, gradient, range, scratch, squares.data() + u);
        });
        double sum = 0;
        for (const double square : squares) sum += square;
        const double norm = std::sqrt(sum);
        if (norm > options.clip_norm) scale = F(options.clip_norm / norm);
    }
    Adjust<F> adjust{false, scale, F(options.clip_value), F(0), F(1), options.rounding};
    if (options.decoupled) adjust.keep = F(1 - lr * options.weight_decay);
    else adjust.weight_decay = F(options.weight_decay);
    adjust.any = scale != 1 || options.clip_value < INFINITY || adjust.weight_decay != 0;
    runs.each([&](const Lookup<I>* lookups, const Gradient<F>& gradient, Range range, int64_t, F* scratch) {
        step(lookups, gradient, range, adjust, scratch);
    });
    if (options.max_norm < INFINITY) {
        const auto kernel = kernels().get<E, I>().renorm;
        const Rounding again{options.rounding.stochastic, options.rounding.key + 1};
        runs.each([&](const Lookup<I>* lookups, const Gradient<F>&, Range range, int64_t, F*) {
            kernel(lookups, range, F(options.max_norm), again, table);
        });
    }
}

template <class E, class X, class F = real<E>>
void sgd_step(const Pooled<F, X>& pooled, const StepOptions& options, double lr, double momentum, bool nesterov,
              Mat<F> momentum_buffer, Mat<E> table, int threads) {
    with_runs(pooled, uint64_t(table.rows), 2, threads, [&](auto&& runs, auto type) {
        const auto kernel = kernels().get<E, decltype(type)>().sgd_step;
        run_step(runs, options, lr, table, [&](auto* lookups, auto& gradient, Range range, auto& adjust, F* scratch) {
            kernel(lookups, gradient, range, adjust, F(lr), F(momentum), nesterov, scratch, momentum_buffer, table);
        });
    });
}

template <class E, class X, class F = real<E>>
void adagrad_step(const Pooled<F, X>& pooled, const StepOptions& options, double lr, double eps, Mat<F> state_sum,
                  Mat<E> table, int threads) {
    with_runs(pooled, uint64_t(table.rows), 3, threads, [&](auto&& runs, auto type) {
        const auto kernel = kernels().get<E, decltype(type)>().adagrad_step;
        run_step(runs, options, lr, table, [&](auto* lookups, auto& gradient, Range range, auto& adjust, F* scratch) {
            kernel(lookups, gradient, range, adjust, F(lr), F(eps), scratch, state_sum, table);
        });
    });
}

template <class E, class X, class F = real<E>>
void rowwise_adagrad_step(const Pooled<F, X>& pooled, const StepOptions& options, double lr, double eps, F* state_sum,
                          Mat<E> table, int threads) {
    with_runs(pooled, uint64_t(table.rows), 2, threads, [&](auto&& runs, auto type) {
        const auto kernel = kernels().get<E, decltype(type)>().rowwise_adagrad_step;
        run_step(runs, options, lr, table, [&](auto* lookups, auto& gradient, Range range, auto& adjust, F* scratch) {
            kernel(lookups, gradient, range, adjust, F(lr), F(eps), scratch, state_sum, table);
        });
    });
}

template <class E, class X, class F = real<E>>
void rmsprop_step(const Pooled<F, X>& pooled, const StepOptions& options, double lr, double alpha, double eps,
                  Mat<F> square_avg, Mat<E> table, int threads) {
    with_runs(pooled, uint64_t(table.rows), 3, threads, [&](auto&& runs, auto type) {
        const auto kernel = kernels().get<E, decltype(type)>().rmsprop_step;
        run_step(runs, options, lr, table, [&](auto* lookups, auto& gradient, Range range, auto& adjust, F* scratch) {
            kernel(lookups, gradient, range, adjust, F(lr), F(alpha), F(1 - alpha), F(eps), scratch, square_avg, table);
        });
    });
}

template <class E, class X, class F = real<E>>
void adam_step(const Pooled<F, X>& pooled, const StepOptions& options, double lr, const AdamRule<F>& rule,
               Mat<F> exp_avg, Mat<F> exp_avg_sq, int32_t* row_steps, Mat<E> table, int threads) {
    with_runs(pooled, uint64_t(table.rows), 4, threads, [&](auto&& runs, auto type) {
        const auto kernel = kernels().get<E, decltype(type)>().adam_step;
        run_step(runs, options, lr, table, [&](auto* lookups, auto& gradient, Range range, auto& adjust, F* scratch) {
            kernel(lookups, gradient, range, adjust, rule, scratch, exp_avg, exp_avg_sq, row_steps, table);
        });
    });
}

}  // namespace plan
}  // namespace hotrow
