#pragma once
#include "kernels/gather.h"
#include "kernels/simd.h"

namespace hotrow {
namespace HOTROW_ISA {
namespace {

// What mean and sqrtn divide a bag's sum by: the sum of its weights, or the root of the sum of their squares
// (as TensorFlow's embedding_lookup_sparse); zero makes the bag zero.
template <class F, class I>
HOTROW_INLINE F bag_factor(const Bags<F, I>& bags, int64_t begin, int64_t end) {
    if (bags.mode == Mode::sum || bags.mode == Mode::max) return 1;
    double total = 0;
    for (int64_t j = begin; j < end; ++j) {
        if (int64_t(bags.indices[j]) == bags.padding_idx) continue;
        const double w = bags.weights ? double(bags.weights[j]) : 1.0;
        total += bags.mode == Mode::mean ? w : w * w;
    }
    if (total == 0) return 0;
    return F(1 / (bags.mode == Mode::mean ? total : std::sqrt(total)));
}

// The larger lane by lane; a NaN on either side stays.
template <class F>
HOTROW_INLINE pack<F> max_or_nan(pack<F> kept, pack<F> x) {
    return select<F>((x > kept) | (x != x), x, kept);
}

template <bool Max, bool Weighted, class F, class I>
HOTROW_INLINE void pool(Mat<const F> table, const Bags<F, I>& bags, Range range, Mat<F> out) {
    const int64_t ahead = lookahead<F>(table.cols), last_lookup = bags.offsets[range.end] - 1;
    const I* const indices = bags.indices;
    const int64_t padding_idx = bags.padding_idx;
    for (int64_t b = range.begin; b < range.end; ++b) {
        const int64_t begin = bags.offsets[b], end = bags.offsets[b + 1];
        const F factor = bag_factor(bags, begin, end);
        for_blocks<F>(table.cols, [&](auto width, int64_t d, Tail<F> tail) HOTROW_INLINE_LAMBDA {
            constexpr int N = decltype(width)::value;
            pack<F> acc[N];
            for (int k = 0; k < N; ++k) acc[k] = zero<F>();
            bool empty = true;
            for (int64_t j = begin; j < end; ++j) {
                const int64_t next = j + ahead < last_lookup ? j + ahead : last_lookup;
                prefetch_block<N>(table.row(indices[next]) + d, tail);
                if (int64_t(indices[j]) == padding_idx) continue;
                const F* row = table.row(indices[j]) + d;
                for (int k = 0; k < N; ++k) {
                    pack<F> x = load_block<N>(row, k, tail);
                    if constexpr (Weighted) x *= bags.weights[j];
                    if constexpr (Max) acc[k] = empty ? x : max_or_nan<F>(acc[k], x);
                    else acc[k] += x;
                }
                empty = false;
            }
            for (int k = 0; k < N; ++k)
                store_block<N>(out.row(b) + d, k, factor == F(1) ? acc[k] : factor == F(0) ? zero<F>() : acc[k] * factor,
                               tail);
        });
    }
}

// sum:   out[b, :] = sum_j w[j] table[indices[j], :]          j in offsets[b] .. offsets[b + 1] - 1, ascending,
// mean:  sum / sum_j w[j]                                     without those where indices[j] == padding_idx
// sqrtn: sum / sqrt(sum_j w[j]^2)
// max:   out[b, d] = max_j w[j] table[indices[j], d]          zeros for an empty bag
template <class F, class I>
void embedding_bag(Mat<const F> table, const Bags<F, I>& bags, Range range, Mat<F> out) {
    const bool max = bags.mode == Mode::max;
    if (max && bags.weights) pool<true, true>(table, bags, range, out);
    else if (max) pool<true, false>(table, bags, range, out);
    else if (bags.weights) pool<false, true>(table, bags, range, out);
    else pool<false, false>(table, bags, range, out);
}

}  // namespace
}  // namespace HOTROW_ISA
}  // namespace hotrow
