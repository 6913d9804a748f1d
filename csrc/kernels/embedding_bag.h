#pragma once
#include "kernels/half.h"
#include "kernels/int8.h"
#include "runtime/pooling.h"

namespace hotrow {
namespace HOTROW_ISA {
namespace {

// Adds one lookup to the N registers of its bag.
template <bool Max, int N, class E, class F>
HOTROW_INLINE void pool_row(const E* row, F weight, bool weighted, bool first, Tail<F> tail, pack<F>* acc) {
    HOTROW_UNROLL
    for (int k = 0; k < N; ++k) {
        pack<F> x = load_block<N>(row, k, tail);
        if (weighted) x *= weight;
        if constexpr (Max) acc[k] = first ? x : max_or_nan(acc[k], x);
        else acc[k] += x;
    }
}

template <bool Max, bool Weighted, class E, class F, class I>
HOTROW_INLINE void pool(Mat<const E> table, const Bags<F, I>& bags, Range range, Mat<F> out, bool& in_range) {
    // Registers: less code for what is rarer. With AVX-512, 300 float16 took 11% longer in blocks of 8 than of 10.
    constexpr int half = kBlock > 10 ? 10 : kBlock < 8 ? 4 : 8;
    constexpr int most = Max && Weighted && !scaled<E> ? 2 : Max || sizeof(E) < sizeof(F) ? half : kBlock;
    const bool cached = fits(table, kTableInCaches);
    const int64_t ahead = lookahead<E>(table.cols), lookups_end = bags.offsets[range.end];
    for_blocks<F, most>(table.cols, [=, &in_range](auto width, int64_t d, Tail<F> tail) HOTROW_OWN_FUNCTION {
        constexpr int N = decltype(width)::value;
        // In cache this loop is bound by loads: everything in it but rows and indices has to be in a register.
        const E* const base = table.data + d;
        const int64_t stride = table.stride * int64_t(sizeof(E)), fetch = ahead;  // stride in bytes
        const auto row = [=](I index) HOTROW_INLINE_LAMBDA {
            return reinterpret_cast<const E*>(prefetch_address(reinterpret_cast<const char*>(base), index, stride));
        };
        const uint64_t rows = uint64_t(table.rows);
        const BlockFetch<N, E> fetch_block(base, table.stride, tail, cached);
        // Of 16 bits, which code of their own for bags without weights would double, this is asked at every lookup.
        const bool weighted = Weighted && (sizeof(E) != 2 || bags.weights);
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
                F weight = Weighted && bags.weights ? bags.weights[j - bags.indices] : F(1);
                if constexpr (scaled<E>) weight *= bags.scales[*j];
                pool_row<Max, N>(row(*j), weight, weighted, first, tail, acc);
                first = false;
            };
            const I *j = bags.indices + begin, *const stop = bags.indices + end;
            const I* const fetch_stop = lookups_end - end < fetch ? bags.indices + lookups_end - fetch : stop;
            for (; j < fetch_stop; ++j) {
                fetch_block(row(j[fetch]));
                if constexpr (scaled<E>) __builtin_prefetch(prefetch_address(bags.scales, j[fetch]), 0, 3);
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

// argmax[b, d] = j - offsets[b] for the lookup j that gave out[b, d]: the first of equal ones, or the last NaN; -1 for none
template <class E, class F, class I>
void bag_argmax(Mat<const E> table, const Bags<F, I>& bags, Range range, Mat<const F> out) {
    for (int64_t b = range.begin; b < range.end; ++b) {
        int32_t* const places = bags.argmax.row(b);
        const F* const largest = out.row(b);
        for (int64_t d = 0; d < out.cols; ++d) places[d] = -1;
        for (int64_t j = bags.offsets[b]; j < bags.offsets[b + 1]; ++j) {
            const int64_t index = bags.indices[j];
            if (index == bags.padding_idx || uint64_t(index) >= uint64_t(table.rows)) continue;
            const E* const row = table.row(index);
            F weight = bags.weights ? bags.weights[j] : F(1);
            if constexpr (scaled<E>) weight *= bags.scales[index];
            const int32_t place = int32_t(j - bags.offsets[b]);
            for_registers<F>(out.cols, [=](int64_t d, auto tail) HOTROW_INLINE_LAMBDA {
                alignas(64) F values[lanes<F>];
                store(values, load(row + d, tail) * weight);
                for (int i = 0; i < tail.count; ++i) {
                    const bool stands = values[i] == largest[d + i] && places[d + i] < 0;
                    places[d + i] = stands || values[i] != values[i] ? place : places[d + i];
                }
            });
        }
    }
}

// sum:   out[b, :] = sum_j w[j] table[indices[j], :]          j in offsets[b] .. offsets[b + 1] - 1, ascending,
// mean:  sum / sum_j w[j]                                     without those where indices[j] == padding_idx
// sqrtn: sum / sqrt(sum_j w[j]^2)
// max:   out[b, d] = max_j w[j] table[indices[j], d]          zeros for an empty bag
// where table[r, :] of an int8 table stands for scales[r] table[r, :]: its scale is multiplied into w[j] first.
// Lookups outside the table are left out and clear `in_range`.
template <class E, class I, class F = real<E>>
void embedding_bag(Mat<const E> table, const Bags<F, I>& bags, Range range, Mat<F> out, bool& in_range) {
    const bool max = bags.mode == Mode::max;
    if (max && bags.weights) pool<true, true>(table, bags, range, out, in_range);
    else if (max) pool<true, scaled<E>>(table, bags, range, out, in_range);
    else if (bags.weights) pool<false, true>(table, bags, range, out, in_range);
    else pool<false, (sizeof(E) < sizeof(F))>(table, bags, range, out, in_range);
    if (bags.argmax.data) bag_argmax(table, bags, range, Mat<const F>{out.data, out.rows, out.cols, out.stride});
}

// sum over d of a[d] * b[d] where b's column is `place`'s, if places are given: lanes of a register, then a fixed tree
template <class F, class E>
HOTROW_INLINE F dot(const F* a, const E* b, int64_t cols, const int32_t* places, int32_t place) {
    constexpr int kSums = 4;  // one would wait for itself
    pack<F> sums[kSums] = {};
    const auto add = [&](int64_t d, auto tail) HOTROW_INLINE_LAMBDA {
        pack<F> product = load(a + d, tail) * load(b + d, tail);
        if (places)
            product = select<F>(load_places<F>(places + d, tail.count) == bits<F>(place), product, zero<F>());
        sums[d / lanes<F> % kSums] += product;
    };
    for_registers<F>(cols, add);
    const pack<F> total = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    return reduce<1, lanes<F>, F>(&total)[0];
}

// The gradient of embedding_bag with respect to its weights: with p[j] = grads[b, :] . table[indices[j], :],
// sum:   out[j] = p[j]
// mean:  out[j] = (p[j] - s) f          f = 1 / sum_j w[j], s = f sum_j w[j] p[j]
// sqrtn: out[j] = (p[j] - s w[j] f) f   f = 1 / sqrt(sum_j w[j]^2)
// max:   out[j] = p[j] over the columns that came from j
// 0 for lookups that were left out and where f is 0.
template <class E, class I, class F = real<E>>
void weights_grad(Mat<const E> table, const Bags<F, I>& bags, const Gradient<F>& gradient, Range range, F* out) {
    const int64_t ahead = lookahead<E>(table.cols), last = bags.offsets[range.end] - 1;
    for (int64_t b = range.begin; b < range.end; ++b) {
        const int64_t begin = bags.offsets[b], end = bags.offsets[b + 1];
        const F factor = bag_factor(bags, begin, end);
        const int32_t* const places = gradient.argmax.data ? gradient.argmax.row(b) : nullptr;
        F pooled = 0;
        for (int64_t j = begin; j < end; ++j) {
            const E* const next = table.row(bags.indices[j + ahead < last ? j + ahead : last]);
            prefetch_row(next, table.cols);
            const bool used = int64_t(bags.indices[j]) != bags.padding_idx;
            out[j] = used ? dot(gradient.rows.row(b), table.row(bags.indices[j]), table.cols, places, int32_t(j - begin))
                          : F(0);
            pooled += (bags.weights ? bags.weights[j] : F(1)) * out[j];
        }
        if (bags.mode == Mode::sum || bags.mode == Mode::max) continue;
        pooled *= factor;
        for (int64_t j = begin; j < end; ++j) {
            const F weight = bags.weights ? bags.weights[j] : F(1);
            const F share = bags.mode == Mode::mean ? pooled : pooled * weight * factor;
            const bool used = int64_t(bags.indices[j]) != bags.padding_idx && factor != F(0);
            out[j] = used ? (out[j] - share) * factor : F(0);
        }
    }
}

}  // namespace
}  // namespace HOTROW_ISA
}  // namespace hotrow
