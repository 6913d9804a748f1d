// Plans of embedding_bag and weights_grad: bags split so that each thread has about as many lookups and bags.
// Both move N D reads, and B D writes or reads; N D flops, or 2 N D. The floor is the random-row read rate. Of an int8
// table N (D + 4) bytes are read.
#pragma once
#include <atomic>

#include "runtime/cpu.h"
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

// work(bags) for a range of them, on each thread that is worth its waking.
template <class Work>
void for_bags(const int64_t* offsets, int64_t count, int64_t row_bytes, int threads, const Work& work) {
    if (count == 0) return;
    const int64_t weight = offsets[count] + count;
    const int parts = useful_threads(weight * row_bytes, threads);
    parallel(parts, [&](int t) {
        const Range share = piece(weight, t, parts);
        work(Range{t == 0 ? 0 : bag_at(offsets, count, share.begin),
                   t == parts - 1 ? count : bag_at(offsets, count, share.end)});
    });
}

// Returns whether all lookups were in range; the others are left out. Checking where indices are read anyway saves a
// pass over them, which costs 4% of a bag of 32 rows in cache.
template <class E, class I, class F = real<E>>
bool embedding_bag(Mat<const E> table, const Bags<F, I>& bags, int64_t count, Mat<F> out, int threads) {
    const auto kernel = kernels().get<E, I>().embedding_bag;
    std::atomic<bool> all_in_range{true};
    for_bags(bags.offsets, count, table.cols * int64_t(sizeof(E)), threads, [&](Range range) {
        bool in_range = true;
        kernel(table, bags, range, out, in_range);
        if (!in_range) all_in_range = false;
    });
    return all_in_range;
}

template <class E, class I, class F = real<E>>
void weights_grad(Mat<const E> table, const Bags<F, I>& bags, int64_t count, const Gradient<F>& gradient, F* out,
                  int threads) {
    const auto kernel = kernels().get<E, I>().weights_grad;
    for_bags(bags.offsets, count, table.cols * int64_t(sizeof(E)), threads,
             [&](Range range) { kernel(table, bags, gradient, range, out); });
}

}  // namespace plan
}  // namespace hotrow
