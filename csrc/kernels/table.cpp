// Compiled once per instruction set; exports exactly one symbol, hotrow::<isa>::kernels.
#include "table.h"

#include "kernels/bounds.h"
#include "kernels/embedding_bag.h"
#include "kernels/gather.h"
#include "kernels/optim.h"
#include "kernels/scatter.h"
#include "kernels/skipgram.h"

#define HOTROW_STRING_(x) #x
#define HOTROW_STRING(x) HOTROW_STRING_(x)

namespace hotrow {
namespace HOTROW_ISA {
namespace {
template <class F, class I>
constexpr Ops<F, I> ops = {
    &all_below<I>,
#define HOTROW_OP(name, signature) &name<F, I>,
#include "ops.def"
#undef HOTROW_OP
};
}  // namespace

extern const Kernels kernels;
const Kernels kernels = {HOTROW_STRING(HOTROW_ISA), ops<float, int32_t>, ops<float, int64_t>, ops<double, int32_t>,
                         ops<double, int64_t>};
}  // namespace HOTROW_ISA
}  // namespace hotrow
