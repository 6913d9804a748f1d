#include "runtime/cpu.h"

#include <atomic>
#include <stdexcept>

namespace hotrow {

#define HOTROW_ISA(name)             \
    namespace name {                 \
    extern const Kernels kernels;    \
    }
#include "isas.def"
#undef HOTROW_ISA

namespace {

const Kernels* const all[] = {
#define HOTROW_ISA(name) &name::kernels,
#include "isas.def"
#undef HOTROW_ISA
};

// Features one by one: not every compiler knows the x86-64-v levels here.
bool supported(const std::string& isa) {
    if (isa == "baseline") return true;
#if defined(__x86_64__)
    const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
                    __builtin_cpu_supports("bmi2");
    if (isa == "avx2") return v3;
    if (isa == "avx512")
        return v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512vl");
#endif
    return false;
}

const Kernels* best() {
    const Kernels* found = nullptr;
    for (const Kernels* k : all)
        if (supported(k->isa)) found = k;
    return found;
}

std::atomic<const Kernels*> chosen{best()};

}  // namespace

std::vector<std::string> built_isas() {
    std::vector<std::string> names;
    for (const Kernels* k : all) names.push_back(k->isa);
    return names;
}

std::vector<std::string> supported_isas() {
    std::vector<std::string> names;
    for (const Kernels* k : all)
        if (supported(k->isa)) names.push_back(k->isa);
    return names;
}

void use_isa(const std::string& name) {
    std::string available;
    for (const Kernels* k : all) {
        if (!supported(k->isa)) continue;
        if (name == k->isa) return chosen.store(k);
        available += std::string(available.empty() ? "" : ", ") + k->isa;
    }
    throw std::invalid_argument("instruction set '" + name + "' is not available here: choose one of " + available);
}

const Kernels& kernels() { return *chosen.load(std::memory_order_relaxed); }

}  // namespace hotrow
