// Rows that all threads write all the time go from cache to cache all the time. Where several threads train, each has
// copies of them, and hands over now and then what they gained.
#pragma once
#include "kernels/scratch.h"
#include "kernels/simd.h"

namespace hotrow {
namespace HOTROW_ISA {
namespace {

// A thread's copies of rows, each as it is (mine) and as the table was when they last met (before).
template <class F>
struct Copies {
    Mat<F> mine, before;

    HOTROW_INLINE Copies(int64_t rows, int64_t cols, Scratch& scratch) {
        const int64_t line = 64 / int64_t(sizeof(F)), stride = (cols + line - 1) / line * line;
        mine = {scratch.take<F>(rows * stride), rows, cols, stride};
        before = {scratch.take<F>(rows * stride), rows, cols, stride};
    }
    HOTROW_INLINE void copy(int64_t r, const F* row) const {
        for (int64_t d = 0; d < mine.cols; ++d) mine.row(r)[d] = before.row(r)[d] = row[d];
    }
    // row += mine - before; if they meet again, then mine = before = row.
    template <bool Again>
    HOTROW_INLINE void hand_over(int64_t r, F* row) const {
        F *const own = mine.row(r), *const old = before.row(r);
        for_blocks<F, kBlock / 2>(mine.cols, [=](auto width, int64_t d, Tail<F> tail) HOTROW_INLINE_LAMBDA {
            constexpr int N = decltype(width)::value;
            for (int k = 0; k < N; ++k) {
                const pack<F> gain = load_block<N>(own + d, k, tail) - load_block<N>(old + d, k, tail);
                const pack<F> sum = load_block<N>(row + d, k, tail) + gain;
                store_block<N>(row + d, k, sum, tail);
                if (!Again) continue;
                store_block<N>(own + d, k, sum, tail);
                store_block<N>(old + d, k, sum, tail);
            }
        });
    }
};

}  // namespace
}  // namespace HOTROW_ISA
}  // namespace hotrow
