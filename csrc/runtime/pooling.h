// What a bag's pooling divides by. Kernels include this file too: always inlined.
#pragma once
#include <cstdint>

#include "view.h"

namespace hotrow {

// The factor that mean and sqrtn put on a bag's sum: one over the sum of its weights, or over the root of the sum of
// their squares (as TensorFlow's embedding_lookup_sparse); zero if that is zero.
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
    return F(1 / (bags.mode == Mode::mean ? total : __builtin_sqrt(total)));
}

}  // namespace hotrow
