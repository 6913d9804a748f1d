// Plans of embedding_bag and weights_grad: bags split so that each thread has about as many lookups and bags.
// Both move N D reads, and B D writes or reads; N D flops, or 2 N D. The floor is the random-row read rate. Of an int8
// table N (D + 4) bytes are read.
#pragma once
#include <algorithm>
#include <atomic>

#include "runtime/cpu.h"
#include "runtime/memory.h"
#include "runtime/parallel.h"

namespace hotrow {
namespace plan {

// The first bag b with offsets[b] + b >= share: one bag weighs as much as one lookup more.
inline int64_t bag_at(const int64_t* offsets, int64_t bags, int64_t share) {
    int64_t low = 0, high = bags;
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        if (offsets[middle] + middle < share) low = middle + 1;
        else high = middle;
    }
    return low;
}

// How many threads are worth their waking.
inline int bag_threads(const int64_t* offsets, int64_t count, int64_t row_bytes, int threads) {
    return useful_threads((offsets[count] + count) * row_bytes, threads);
}

// work(t, bags) for a range of them on each thread t.
template <class Work>
void for_bags(const int64_t* offsets, int64_t count, int threads, const Work& work) {
    if (count == 0) return;
    const int64_t weight = offsets[count] + count;
    parallel(threads, [&](int t) {
        const Range share = piece(weight, t, threads);
        work(t, Range{t == 0 ? 0 : bag_at(offsets, count, share.begin),
                      t == threads - 1 ? count : bag_at(offsets, count, share.end)});
    });
}

// Returns whether all lookups were in range; the others are left out. Checking where indices are read anyway saves a
// pass over them, which costs 4% of a bag of 32 rows in cache.
template <class E, class I, class F = real<E>>
bool embedding_bag(Mat<const E> table, const Bags<F, I>& bags, int64_t count, Mat<F> out, int threads) {
    const auto kernel = kernels().get<E, I>().embedding_bag;
    const int used = bag_threads(bags.offsets, count, table.cols * int64_t(sizeof(E)), threads);
    std::atomic<bool> all_in_range{true};
    for_bags(bags.offsets, count, used, [&](int, Range range) {
        bool in_range = true;
        kernel(table, bags, range, out, in_range);
        if (!in_range) all_in_range = false;
    });
    return all_in_range;
}

// The same, rounded to 16 bits: sums of so many bytes stay in a core's second cache until they are.
constexpr int64_t kSumsToRound = 128 << 10;

template <class E, class I, class F = real<E>>
bool embedding_bag_rounded(Mat<const E> table, const Bags<F, I>& bags, int64_t count, Mat<E> out, int threads) {
    const auto& ops = kernels().get<E, I>();
    const int used = bag_threads(bags.offsets, count, table.cols * int64_t(sizeof(E)), threads);
    const int64_t stride = (table.cols + 15) / 16 * 16;  // whole cache lines
    const int64_t fit = kSumsToRound / (stride * int64_t(sizeof(F)) + 1);
    const int64_t most = std::max<int64_t>(1, std::min(fit, count));
    Buffer<F> sums(used * most * stride);
    std::atomic<bool> all_in_range{true};
    for_bags(bags.offsets, count, used, [&](int t, Range range) {
        F* const mine = sums.get() + t * most * stride;
        bool in_range = true;
        for (int64_t begin = range.begin, size; begin < range.end; begin += size) {
            size = std::min(most, range.end - begin);
            Bags<F, I> some = bags;
            some.offsets += begin;
            if (some.argmax.data) some.argmax.data = some.argmax.row(begin);
            ops.embedding_bag(table, some, {0, size}, {mine, size, table.cols, stride}, in_range);
            ops.round_rows({mine, size, table.cols, stride}, {out.row(begin), size, table.cols, out.stride});
        }
        if (!in_range) all_in_range = false;
    });
    return all_in_range;
}

template <class E, class I, class F = real<E>>
void weights_grad(Mat<const E> table, const Bags<F, I>& bags, int64_t count, const Gradient<F>& gradient, F* out,
                  int threads) {
    const auto kernel = kernels().get<E, I>().weights_grad;
    const int used = bag_threads(bags.offsets, count, table.cols * int64_t(sizeof(E)), threads);
    for_bags(bags.offsets, count, used, [&](int, Range range) { kernel(table, bags, gradient, range, out); });
}

}  // namespace plan
}  // namespace hotrow
