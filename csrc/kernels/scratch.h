// Memory of a kernel.
#pragma once
#include <cstdint>

#include "view.h"

namespace hotrow {
namespace HOTROW_ISA {
namespace {

// Bump allocation from the memory the plan hands in.
struct Scratch {
    char* next;
    template <class T>
    HOTROW_INLINE T* take(int64_t count) {
        T* p = reinterpret_cast<T*>(next);
        next += (count * int64_t(sizeof(T)) + 63) / 64 * 64;
        return p;
    }
};

}  // namespace
}  // namespace HOTROW_ISA
}  // namespace hotrow
