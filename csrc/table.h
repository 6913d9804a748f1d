// The function table that each per-ISA object exports and the runtime chooses from.
#pragma once
#include <cstdint>
#include <tuple>

#include "view.h"

namespace hotrow {

template <class E, class I>
struct Ops {
    using F = real<E>;
    // Not operators: what their checks and plans need.
    bool (*all_below)(const I* indices, Range range, uint64_t rows);
    void (*gather_streaming)(Mat<const E> table, const I* indices, Range range, Mat<E> out);
    void (*squares)(const Lookup<I>* lookups, const Gradient<F>& gradient, Range range, F* scratch, double* out);
    void (*renorm)(const Lookup<I>* lookups, Range range, F max_norm, const Rounding& rounding, Mat<E> table);
#define HOTROW_OP(name, compiled_for, signature) void(*name) signature;
#include "ops.def"
#undef HOTROW_OP
};

struct Kernels {
    const char* isa;
    Ops<float, int32_t> f4i4;
    Ops<float, int64_t> f4i8;
    Ops<double, int32_t> f8i4;
    Ops<double, int64_t> f8i8;
    Ops<Half, int32_t> f2i4;
    Ops<Half, int64_t> f2i8;
    Ops<BFloat, int32_t> b2i4;
    Ops<BFloat, int64_t> b2i8;

    template <class E, class I>
    const Ops<E, I>& get() const {
        return std::get<const Ops<E, I>&>(std::tie(f4i4, f4i8, f8i4, f8i8, f2i4, f2i8, b2i4, b2i8));
    }
};

}  // namespace hotrow
