#pragma once
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

// Adds one lookup to the N registers of its bag.
template <bool Max, int N, class F>
HOTROW_INLINE void pool_row(const F* row, F weight, bool weighted, bool first, Tail<F> tail, pack<F>* acc) {
    HOTROW_UNROLL
    for (int k = 0; k < N; ++k) {
        pack<F> x = load_block<N>(row, k, tail);
        if (weighted) x *= weight;
        if constexpr (Max) acc[k] = first ? x : max_or_nan<F>(acc[k], x);
        else acc[k] += x;
    }
}

template <bool Max, bool Weighted, class F, class I>
HOTROW_INLINE void pool(Mat<const F> table, const Bags<F, I>& bags, Range range, Mat<F> out, bool& in_range) {
    const int64_t ahead = lookahead<F>(table.cols), lookups_end = bags.offsets[range.end];
    for_blocks<F>(table.cols, [=, &in_range](auto width, int64_t d, Tail<F> tail) HOTROW_OWN_FUNCTION {
        constexpr int N = decltype(width)::value;
        // In cache this loop is bound by loads: everything in it but rows and indices has to be in a register.
        const F* const base = table.data + d;
        const int64_t stride = table.stride, fetch = ahead;
        const uint64_t rows = uint64_t(table.rows);
        bool inside = true;
        const I padding = bags.padding_idx == I(bags.padding_idx) ? I(bags.padding_idx) : I(-1);
        for (int64_t b = range.begin; b < range.end; ++b) {
            const int64_t begin = bags.offsets[b], end = bags.offsets[b + 1];
            pack<F> acc[N];
            HOTROW_UNROLL
            for (int k = 0; k < N; ++k) acc[k] = zero<F>();
            bool first = true;
            const auto add = [&](const I* j) HOTROW_INLINE_LAMBDA {
                if (uint64_t(int64_t(*j)) >= rows) {
                    inside = false;
                    return;
                }
                if (*j == padding) return;
                const F weight = Weighted ? bags.weights[j - bags.indices] : F(1);
                pool_row<Max, N>(base + *j * stride, weight, Weighted, first, tail, acc);
                first = false;
            };
            const I *j = bags.indices + begin, *const stop = bags.indices + end;
            const I* const fetch_stop = lookups_end - end < fetch ? bags.indices + lookups_end - fetch : stop;
            for (; j < fetch_stop; ++j) {
                prefetch_block<N>(prefetch_address(base, j[fetch], stride), tail);
                add(j);
            }
            for (; j < stop; ++j) add(j);
            const F factor = bag_factor(bags, begin, end);
            if (factor != F(1)) {
                HOTROW_UNROLL
                for (int k = 0; k < N; ++k) acc[k] = factor == F(0) ? zero<F>() : acc[k] * factor;
            }
            HOTROW_UNROLL
            for (int k = 0; k < N; ++k) store_block<N>(out.row(b) + d, k, acc[k], tail);
        }
        in_range &= inside;
    });
}

// sum:   out[b, :] = sum_j w[j] table[indices[j], :]          j in offsets[b] .. offsets[b + 1] - 1, ascending,
// mean:  sum / sum_j w[j]                                     without those where indices[j] == padding_idx
// sqrtn: sum / sqrt(sum_j w[j]^2)
// max:   out[b, d] = max_j w[j] table[indices[j], d]          zeros for an empty bag
// Lookups outside the table are left out and clear `in_range`.
template <class F, class I>
void embedding_bag(Mat<const F> table, const Bags<F, I>& bags, Range range, Mat<F> out, bool& in_range) {
    const bool max = bags.mode == Mode::max;
    if (max && bags.weights) pool<true, true>(table, bags, range, out, in_range);
    else if (max) pool<true, false>(table, bags, range, out, in_range);
    else if (bags.weights) pool<false, true>(table, bags, range, out, in_range);
    else pool<false, false>(table, bags, range, out, in_range);
}

}  // namespace
}  // namespace HOTROW_ISA
}  // namespace hotrow
