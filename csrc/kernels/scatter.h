// The gradient of a lookup. Lookups come sorted by row, each naming a gradient row; see runtime/partition.h.
#pragma once
#include "kernels/half.h"

namespace hotrow {
namespace HOTROW_ISA {
namespace {

// The rows that a step will update, to be brought near while gradients are summed.
struct Fetch {
    struct Rows {
        const char* data;
        int64_t stride, bytes;
    };
    int count;
    Rows rows[4];
};

template <class... T>
HOTROW_INLINE Fetch fetch_rows(Mat<T>... matrices) {
    return {int(sizeof...(T)),
            {{reinterpret_cast<const char*>(matrices.data), matrices.stride * int64_t(sizeof(T)),
              matrices.cols * int64_t(sizeof(T))}...}};
}

HOTROW_INLINE void fetch_to_write(const Fetch& fetch, int64_t row) {
    for (int m = 0; m < fetch.count; ++m) {
        const Fetch::Rows& rows = fetch.rows[m];
        const char* const p = prefetch_address(rows.data, row, rows.stride);
        prefetch_row(p, rows.bytes);
    }
}

// The terms of lookup i: add(k, x) for each of the N registers of a block.
template <int N, class F, class I, class End, class Add>
HOTROW_INLINE void for_terms(const Lookup<I>* lookups, const Gradient<F>& gradient, int64_t i, int64_t d, End tail,
                             Add&& add) {
    const int64_t position = lookups[i].position;
    const F* const grad = gradient.rows.row(position) + d;
    if (!gradient.factors && !gradient.places) {
        HOTROW_UNROLL
        for (int k = 0; k < N; ++k) add(k, load_block<N>(grad, k, tail));
        return;
    }
    const F factor = gradient.factors ? gradient.factors[i] : F(1);
    if (!gradient.places) {
        HOTROW_UNROLL
        for (int k = 0; k < N; ++k) add(k, load_block<N>(grad, k, tail) * factor);
        return;
    }
    const int32_t* const argmax = gradient.argmax.row(position) + d;
    HOTROW_UNROLL
    for (int k = 0; k < N; ++k) {
        const pack<bits<F>> places = load_places<F>(argmax + k * lanes<F>, k + 1 < N ? lanes<F> : tail.count);
        const pack<F> x = load_block<N>(grad, k, tail) * factor;
        add(k, select<F>(places == bits<F>(gradient.places[i]), x, zero<F>()));
    }
}

// sums[d] = ((t0 + t1) + t2) + ... over the terms of the lookups of `run`, in registers, and fetches ahead within `range`.
template <class F, class I>
HOTROW_OWN_FUNCTION void sum_run(const Lookup<I>* lookups, const Gradient<F>& gradient, Range run, Range range,
                                 const Fetch& fetch, F* sums) {
    const int64_t cols = gradient.rows.cols, ahead = lookahead<F>(cols), last = range.end - 1;
    const auto block = [=, &gradient, &fetch](auto width, int64_t d, auto tail) HOTROW_OWN_FUNCTION {
        constexpr int N = decltype(width)::value;
        const F* const rows = gradient.rows.data + d;
        const int64_t stride = gradient.rows.stride;
        const BlockFetch<N, F> fetch_terms(rows, stride, tail, fits(gradient.rows, kGradsInCaches));
        const auto arrive = [&](int64_t i) HOTROW_INLINE_LAMBDA {
            const int64_t next = i + ahead < last ? i + ahead : last;
            fetch_terms(prefetch_address(rows, lookups[next].position, stride));
            if (d == 0 && fetch.count && lookups[next].row != lookups[next > i ? next - 1 : next].row)
                fetch_to_write(fetch, lookups[next].row);
        };
        pack<F> sum[N];
        int64_t i = run.begin;
        arrive(i);
        for_terms<N>(lookups, gradient, i, d, tail, [&](int k, pack<F> x) HOTROW_INLINE_LAMBDA { sum[k] = x; });
        while (++i < run.end) {
            arrive(i);
            for_terms<N>(lookups, gradient, i, d, tail, [&](int k, pack<F> x) HOTROW_INLINE_LAMBDA { sum[k] += x; });
        }
        HOTROW_UNROLL
        for (int k = 0; k < N; ++k) store_block<N>(sums + d, k, sum[k], tail);
    };
    constexpr int64_t whole = kBlock * lanes<F>;
    int64_t d = 0;
    for (; d + whole <= cols; d += whole) block(Width<kBlock>{}, d, Whole<F>{});
    if (d == cols) return;
    const int registers = int((cols - d + lanes<F> - 1) / lanes<F>);
    const Tail<F> tail(int(cols - d) - (registers - 1) * lanes<F>);
    with_width<kBlock>(registers, [&](auto width) HOTROW_INLINE_LAMBDA { block(width, d, tail); });
}

// use(run, row, sums) for each run of equal rows, whose sums go where place(run) says; with Read, which does not need them
// there, the sum of a single gradient is that gradient where it stands. Most rows of Zipf's law have one lookup, and
// summing cost more of them than their update.
template <bool Read, class F, class I, class Place, class Use>
HOTROW_INLINE void for_run_sums(const Lookup<I>* lookups, const Gradient<F>& gradient, Range range, const Fetch& fetch,
                                const Place& place, const Use& use) {
    const int64_t cols = gradient.rows.cols, ahead = lookahead<F>(cols), last = range.end - 1;
    const bool plain = Read && !gradient.factors && !gradient.places;
    int64_t run = 0;
    for (int64_t begin = range.begin, end; begin < range.end; begin = end, ++run) {
        const I row = lookups[begin].row;
        for (end = begin + 1; end < range.end && lookups[end].row == row;) ++end;
        const F* sums;
        if (plain && end - begin == 1) {
            const Lookup<I> next = lookups[begin + ahead < last ? begin + ahead : last];
            const F* const p = prefetch_address(gradient.rows.data, next.position, gradient.rows.stride);
            prefetch_row(p, cols);
            fetch_to_write(fetch, next.row);
            sums = gradient.rows.row(lookups[begin].position);
        } else {
            F* const summed = place(run);
            sum_run(lookups, gradient, {begin, end}, range, fetch, summed);
            sums = summed;
        }
        use(run, int64_t(row), sums);
    }
}

// table[row, :] += scale * sum of the row's gradients, ascending position; `scratch` [D] holds one sum at a time
template <class E, class I, class F = real<E>>
void scatter_add(const Lookup<I>* lookups, const Gradient<F>& gradient, F scale, Range range, F* scratch,
                 Mat<E> table) {
    for_run_sums<true>(lookups, gradient, range, fetch_rows(table), [=](int64_t) { return scratch; },
                 [=](int64_t, int64_t row, const F* sums) HOTROW_INLINE_LAMBDA {
                     E* const w = table.row(row);
                     const RowRounding nearest({}, row);
                     for_registers<F>(table.cols, [=](int64_t d, auto tail) HOTROW_INLINE_LAMBDA {
                         store_row(w, d, load(w + d, tail) + load(sums + d, tail) * scale, tail, nearest);
                     });
                 });
}

// values[u, :] = sum of the gradients of the u-th run of equal rows, ascending position
template <class F, class I>
void coalesce(const Lookup<I>* lookups, const Gradient<F>& gradient, Range range, Mat<F> values) {
    for_run_sums<false>(lookups, gradient, range, Fetch{}, [=](int64_t run) { return values.row(run); },
                 [](int64_t, int64_t, const F*) {});
}

// sum over d of x[d]^2 in 64 bytes of lanes, whatever the ISA: element d goes to lane d modulo their number; then the
// lanes are folded in halves.
template <class E, class F = real<E>>
HOTROW_INLINE F sum_of_squares(const E* x, int64_t cols) {
    constexpr int registers = 64 / kRegisterBytes;
    pack<F> sums[registers] = {};
    for_registers<F>(cols, [&](int64_t d, auto tail) HOTROW_INLINE_LAMBDA {
        const pack<F> a = load(x + d, tail);
        sums[d / lanes<F> % registers] += a * a;
    });
    for (int half = registers / 2; half > 0; half /= 2)
        for (int k = 0; k < half; ++k) sums[k] += sums[k + half];
    return reduce<1, lanes<F>, F>(sums)[0];
}

// out[u] = sum of the squares of what coalesce gives for the u-th run
template <class F, class I>
void squares(const Lookup<I>* lookups, const Gradient<F>& gradient, Range range, F* scratch, double* out) {
    for_run_sums<true>(lookups, gradient, range, Fetch{}, [=](int64_t) { return scratch; },
                 [&](int64_t run, int64_t, const F* sums) HOTROW_INLINE_LAMBDA {
                     out[run] = double(sum_of_squares<F>(sums, gradient.rows.cols));
                 });
}

}  // namespace
}  // namespace HOTROW_ISA
}  // namespace hotrow
