// Compiled once per instruction set; exports exactly one symbol, hotrow::<isa>::kernels.
#include "table.h"

#include "kernels/bounds.h"
#include "kernels/cbow.h"
#include "kernels/embedding_bag.h"
#include "kernels/gather.h"
#include "kernels/hierarchical.h"
#include "kernels/optim.h"
#include "kernels/scatter.h"
#include "kernels/skipgram.h"

#define HOTROW_STRING_(x) #x
#define HOTROW_STRING(x) HOTROW_STRING_(x)

#define HOTROW_INSTANCE_Q(name) name<Q, I>
#define HOTROW_INSTANCE_E(name) name<E, I>
#define HOTROW_INSTANCE_F(name) name<F, I>
#define HOTROW_INSTANCE_W(name) name<F>

namespace hotrow {
namespace HOTROW_ISA {
namespace {
template <class E, class I, class F = real<E>, class Q = E>
constexpr Ops<E, I> ops = {
    &all_below<I>, &gather_streaming<E, I>, &squares<F, I>, &renorm<E, I>, &round_rows<E>,
#define HOTROW_OP(name, compiled_for, signature) &HOTROW_INSTANCE_##compiled_for(name),
#include "ops.def"
#undef HOTROW_OP
};
template <class I, class Q = int8_t>
constexpr Ops<Q, I> quantized_ops = {
    &gather_streaming<Q, I>,
#define HOTROW_OP(name, compiled_for, signature) HOTROW_QUANTIZED_##compiled_for(&name<Q, I>, )
#include "ops.def"
#undef HOTROW_OP
};
}  // namespace

extern const Kernels kernels;
const Kernels kernels = {HOTROW_STRING(HOTROW_ISA), ops<float, int32_t>, ops<float, int64_t>, ops<double, int32_t>,
                         ops<double, int64_t>, ops<Half, int32_t>, ops<Half, int64_t>, ops<BFloat, int32_t>,
                         ops<BFloat, int64_t>, quantized_ops<int32_t>, quantized_ops<int64_t>};
}  // namespace HOTROW_ISA
}  // namespace hotrow
