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
    void (*gather_streaming)(Mat<const E> table, const I* indices, const float* scales, Range range,
                             Mat<gathered<E>> out);
    void (*squares)(const Lookup<I>* lookups, const Gradient<F>& gradient, Range range, F* scratch, double* out);
    void (*renorm)(const Lookup<I>* lookups, Range range, F max_norm, const Rounding& rounding, Mat<E> table);
    void (*round_rows)(Mat<const F> rows, Mat<E> out);
#define HOTROW_OP(name, compiled_for, signature) void(*name) signature;
#include "ops.def"
#undef HOTROW_OP
};

// Of int8 tables: the operators compiled for Q alone.
#define HOTROW_QUANTIZED_Q(...) __VA_ARGS__
#define HOTROW_QUANTIZED_E(...)
#define HOTROW_QUANTIZED_F(...)
#define HOTROW_QUANTIZED_W(...)
template <class I>
struct Ops<int8_t, I> {
    using E = int8_t;
    using F = real<E>;
    void (*gather_streaming)(Mat<const E> table, const I* indices, const float* scales, Range range,
                             Mat<gathered<E>> out);
#define HOTROW_OP(name, compiled_for, signature) HOTROW_QUANTIZED_##compiled_for(void(*name) signature;)
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
    Ops<int8_t, int32_t> q1i4;
    Ops<int8_t, int64_t> q1i8;

    template <class E, class I>
    const Ops<E, I>& get() const {
        return std::get<const Ops<E, I>&>(
            std::tie(f4i4, f4i8, f8i4, f8i8, f2i4, f2i8, b2i4, b2i8, q1i4, q1i8));
    }
};

}  // namespace hotrow
