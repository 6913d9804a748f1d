#pragma once
#include "kernels/int8.h"

namespace hotrow {
namespace HOTROW_ISA {
namespace {

// Row by row as bytes, whatever the elements.
template <class E, class I>
HOTROW_INLINE void gather_bytes(Mat<const E> table, const I* indices, Range range, Mat<E> out) {
    const int64_t bytes = table.cols * int64_t(sizeof(E)), ahead = lookahead<E>(table.cols), last = range.end - 1;
    for (int64_t i = range.begin; i < range.end; ++i) {
        prefetch_row(table.row(indices[i + ahead < last ? i + ahead : last]), table.cols);
        __builtin_memcpy(out.row(i), table.row(indices[i]), size_t(bytes));
    }
}

// In registers, their number known when this is compiled.
template <class E, class I, class F = real<E>>
HOTROW_INLINE void gather_registers(Mat<const E> table, const I* indices, [[maybe_unused]] const float* scales,
                                    Range range, Mat<F> out) {
    const bool cached = fits(table, kTableInCaches);
    const int64_t ahead = lookahead<E>(table.cols), last = range.end - 1;
    for_blocks<F>(table.cols, [=](auto width, int64_t d, Tail<F> tail) HOTROW_OWN_FUNCTION {
        constexpr int N = decltype(width)::value;
        const BlockFetch<N, E> fetch(table.data + d, table.stride, tail, cached);
        for (int64_t i = range.begin; i < range.end; ++i) {
            const I next = indices[i + ahead < last ? i + ahead : last];
            fetch(table.row(next) + d);
            const E* const source = table.row(indices[i]) + d;
            F* const target = out.row(i) + d;
            pack<F> block[N];
            HOTROW_UNROLL
            for (int k = 0; k < N; ++k) block[k] = load_block<N>(source, k, tail);
            if constexpr (scaled<E>) {
                __builtin_prefetch(scales + next, 0, 3);
                HOTROW_UNROLL
                for (int k = 0; k < N; ++k) block[k] *= scales[indices[i]];
            }
            HOTROW_UNROLL
            for (int k = 0; k < N; ++k) store_block<N>(target, k, block[k], tail);
        }
    });
}

template <class E, class End, class F = real<E>>
HOTROW_INLINE pack<F> load_scaled(const E* p, End tail, [[maybe_unused]] F scale) {
    if constexpr (scaled<E>) return load(p, tail) * scale;
    else return load(p, tail);
}

template <class E, class F>
HOTROW_INLINE void copy(F* target, const E* source, int64_t count, F scale) {
    for_registers<F>(count, [=](int64_t d, auto tail) HOTROW_INLINE_LAMBDA {
        store(target + d, load_scaled(source + d, tail, scale), tail);
    });
}

// Whole cache lines written past the caches: they are not read first, and push nothing out. Of rows that
// follow each other without a gap, the lines that two of them share are put together in `line`.
template <class E, class I, class F = real<E>>
HOTROW_INLINE void gather_lines(Mat<const E> table, const I* indices, [[maybe_unused]] const float* scales, Range range,
                                Mat<F> out) {
    constexpr int64_t whole = 64 / int(sizeof(F));
    const int64_t ahead = lookahead<E>(table.cols), last = range.end - 1, cols = table.cols;
    const bool gapless = out.stride == cols;
    alignas(64) F line[whole];
    int64_t held = 0;  // elements in `line`, to go to where `target` points
    const auto stream_line = [](F* target, const auto* source, F scale) HOTROW_INLINE_LAMBDA {
        for (int64_t k = 0; k < whole; k += lanes<F>) stream(target + k, load_scaled(source + k, Whole<F>{}, scale));
    };
    for (int64_t i = range.begin; i < range.end; ++i) {
        const I following = indices[i + ahead < last ? i + ahead : last];
        prefetch_row(table.row(following), cols);
        F scale = 1;
        if constexpr (scaled<E>) {
            __builtin_prefetch(scales + following, 0, 3);
            scale = scales[indices[i]];
        }
        const E* const source = table.row(indices[i]);
        F* const target = out.row(i);
        int64_t d = int64_t((0 - reinterpret_cast<uintptr_t>(target)) % 64 / sizeof(F));  // up to the next line
        if (d > cols) d = cols;
        if (held) {
            copy(line + held, source, d, scale);
            held += d;
            if (held == whole) {
                stream_line(target + d - whole, line, F(1));
                held = 0;
            }
        } else {
            copy(target, source, d, scale);
        }
        for (; d + whole <= cols; d += whole) stream_line(target + d, source + d, scale);
        if (d < cols) {
            held = cols - d;
            copy(gapless ? line : target + d, source + d, held, scale);
            if (!gapless) held = 0;
        }
    }
    copy(out.row(last) + cols - held, line, held, F(1));
    stream_end();
}

// out[i, :] = table[indices[i], :], times scales[indices[i]] of an int8 table
template <class E, class I>
void gather(Mat<const E> table, const I* indices, const float* scales, Range range, Mat<gathered<E>> out) {
    if constexpr (sizeof(E) == 2) gather_bytes(table, indices, range, out);
    else gather_registers(table, indices, scales, range, out);
}

// As gather, for outputs that do not fit the caches.
template <class E, class I>
void gather_streaming(Mat<const E> table, const I* indices, const float* scales, Range range, Mat<gathered<E>> out) {
    if constexpr (sizeof(E) == 2) gather_bytes(table, indices, range, out);
    else gather_lines(table, indices, scales, range, out);
}

}  // namespace
}  // namespace HOTROW_ISA
}  // namespace hotrow
