// The function table that each per-ISA object exports and the runtime chooses from.
#pragma once
#include <cstdint>

#include "view.h"

namespace hotrow {

template <class F, class I>
struct Ops {
    bool (*all_below)(const I* indices, Range range, uint64_t rows);  // not an operator: what their checks need
#define HOTROW_OP(name, signature) void(*name) signature;
#include "ops.def"
#undef HOTROW_OP
};

struct Kernels {
    const char* isa;
    Ops<float, int32_t> f4i4;
    Ops<float, int64_t> f4i8;
    Ops<double, int32_t> f8i4;
    Ops<double, int64_t> f8i8;

    template <class F, class I>
    const Ops<F, I>& get() const {
        if constexpr (sizeof(F) == 4 && sizeof(I) == 4) return f4i4;
        else if constexpr (sizeof(F) == 4) return f4i8;
        else if constexpr (sizeof(I) == 4) return f8i4;
        else return f8i8;
    }
};

}  // namespace hotrow
