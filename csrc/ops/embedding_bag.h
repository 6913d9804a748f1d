// Plan of embedding_bag: bags split so that each thread has about the same number of lookups and bags.
// Moves N D reads and B D writes, N D flops: the floor is the random-row read rate.
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

// Returns whether all lookups were in range; the others are left out. Checking where indices are read anyway saves a
// pass over them, which costs 4% of a bag of 32 rows in cache.
template <class F, class I>
bool embedding_bag(Mat<const F> table, const Bags<F, I>& bags, int64_t count, Mat<F> out, int threads) {
    if (count == 0) return true;
    const auto kernel = kernels().get<F, I>().embedding_bag;
    const int64_t weight = bags.offsets[count] + count;
    const int parts = useful_threads(weight * table.cols * int64_t(sizeof(F)), threads);
    std::atomic<bool> all_in_range{true};
    parallel(parts, [&](int t) {
        const Range share = piece(weight, t, parts);
        bool in_range = true;
        kernel(table, bags,
               {t == 0 ? 0 : bag_at(bags.offsets, count, share.begin),
                t == parts - 1 ? count : bag_at(bags.offsets, count, share.end)},
               out, in_range);
        if (!in_range) all_in_range = false;
    });
    return all_in_range;
}

}  // namespace plan
}  // namespace hotrow
