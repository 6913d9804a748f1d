#pragma once
#include "kernels/simd.h"

namespace hotrow {
namespace HOTROW_ISA {
namespace {

// Row by row as bytes, whatever the elements.
template <class E, class I>
HOTROW_INLINE void gather_bytes(Mat<const E> table, const I* indices, Range range, Mat<E> out) {
    const int64_t bytes = table.cols * int64_t(sizeof(E)), ahead = lookahead<E>(table.cols), last = range.end - 1;
    for (int64_t i = range.begin; i < range.end; ++i) {
        const E* const next = prefetch_address(table.data, indices[i + ahead < last ? i + ahead : last], table.stride);
        prefetch_row(next, table.cols);
        __builtin_memcpy(out.row(i), table.row(indices[i]), size_t(bytes));
    }
}

// In registers, their number known when this is compiled.
template <class F, class I>
HOTROW_INLINE void gather_registers(Mat<const F> table, const I* indices, Range range, Mat<F> out) {
    const bool cached = fits(table, kTableInCaches);
    const int64_t ahead = lookahead<F>(table.cols), last = range.end - 1;
    const int offset = worst_offset(table.data, table.stride);
    for_blocks<F>(table.cols, [=](auto width, int64_t d, Tail<F> tail) HOTROW_OWN_FUNCTION {
        constexpr int N = decltype(width)::value;
        for (int64_t i = range.begin; i < range.end; ++i) {
            const F* const next = table.row(indices[i + ahead < last ? i + ahead : last]) + d;
            prefetch_block<N>(next, tail, offset, cached);
            const F* const source = table.row(indices[i]) + d;
            F* const target = out.row(i) + d;
            pack<F> block[N];
            HOTROW_UNROLL
            for (int k = 0; k < N; ++k) block[k] = load_block<N>(source, k, tail);
            HOTROW_UNROLL
            for (int k = 0; k < N; ++k) store_block<N>(target, k, block[k], tail);
        }
    });
}

template <class F>
HOTROW_INLINE void copy(F* target, const F* source, int64_t count) {
    int64_t d = 0;
    for (; d + lanes<F> <= count; d += lanes<F>) store(target + d, load(source + d));
    if (d < count) store(target + d, load(source + d, Tail<F>(int(count - d))), Tail<F>(int(count - d)));
}

// Whole cache lines written past the caches: they are not read first, and push nothing out. Of rows that
// follow each other without a gap, the lines that two of them share are put together in `line`.
template <class F, class I>
HOTROW_INLINE void gather_lines(Mat<const F> table, const I* indices, Range range, Mat<F> out) {
    constexpr int64_t whole = 64 / int(sizeof(F));
    const int64_t ahead = lookahead<F>(table.cols), last = range.end - 1, cols = table.cols;
    const int64_t bytes = cols * int64_t(sizeof(F));
    const bool gapless = out.stride == cols;
    alignas(64) F line[whole];
    int64_t held = 0;  // elements in `line`, to go to where `target` points
    const auto stream_line = [&](F* target, const F* source) HOTROW_INLINE_LAMBDA {
        for (int64_t k = 0; k < whole; k += lanes<F>) stream(target + k, load(source + k));
    };
    for (int64_t i = range.begin; i < range.end; ++i) {
        prefetch_row(table.row(indices[i + ahead < last ? i + ahead : last]), cols);
        const F* const source = table.row(indices[i]);
        F* const target = out.row(i);
        int64_t d = int64_t((0 - reinterpret_cast<uintptr_t>(target)) % 64 / sizeof(F));  // up to the next line
        if (d > cols) d = cols;
        if (held) {
            copy(line + held, source, d);
            held += d;
            if (held == whole) {
                stream_line(target + d - whole, line);
                held = 0;
            }
        } else {
            copy(target, source, d);
        }
        for (; d + whole <= cols; d += whole) stream_line(target + d, source + d);
        if (d < cols) {
            held = cols - d;
            copy(gapless ? line : target + d, source + d, held);
            if (!gapless) held = 0;
        }
    }
    copy(out.row(last) + cols - held, line, held);
    stream_end();
}

// out[i, :] = table[indices[i], :]
template <class E, class I>
void gather(Mat<const E> table, const I* indices, Range range, Mat<E> out) {
    if constexpr (sizeof(E) == 2) gather_bytes(table, indices, range, out);
    else gather_registers(table, indices, range, out);
}

// As gather, for outputs that do not fit the caches.
template <class E, class I>
void gather_streaming(Mat<const E> table, const I* indices, Range range, Mat<E> out) {
    if constexpr (sizeof(E) == 2) gather_bytes(table, indices, range, out);
    else gather_lines(table, indices, range, out);
}

}  // namespace
}  // namespace HOTROW_ISA
}  // namespace hotrow
