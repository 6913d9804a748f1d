// Elementary functions on packs.
#pragma once
#include "kernels/simd.h"

namespace hotrow {
namespace HOTROW_ISA {
namespace {

template <class F>
struct ExpConstants;
template <>
struct ExpConstants<float> {
    static constexpr int degree = 7, mantissa = 23, bias = 127;
    static constexpr float lowest = -87.0f, ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
    static constexpr float round = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
};
template <>
struct ExpConstants<double> {
    static constexpr int degree = 13, mantissa = 52, bias = 1023;
    static constexpr double lowest = -708.0, ln2_high = 0.693145751953125, ln2_low = 1.42860682030941723212e-6;
    static constexpr double round = 6755399441055744.0;  // 1.5 * 2^52
};

// exp(x) for x <= 0, to 2 ulp; below the smallest normal number it stays there (x is clamped).
// x = n ln 2 + r, |r| <= ln(2) / 2; Taylor series of exp(r) by Horner's rule, times 2^n (Cody and Waite 1980).
template <class F>
HOTROW_INLINE pack<F> exp_of_negative(pack<F> x) {
    using C = ExpConstants<F>;
    x = select<F>(x < C::lowest, broadcast<F>(C::lowest), x);
    const pack<F> shifted = x * F(1.44269504088896340736) + C::round;
    const pack<F> n = shifted - C::round;
    const pack<F> r = fma(n, broadcast<F>(-C::ln2_low), fma(n, broadcast<F>(-C::ln2_high), x));
    F factorial[C::degree + 1] = {1};
    for (int k = 1; k <= C::degree; ++k) factorial[k] = factorial[k - 1] * F(k);
    pack<F> sum = broadcast<F>(F(1) / factorial[C::degree]);
    for (int k = C::degree - 1; k >= 0; --k) sum = fma(sum, r, broadcast<F>(F(1) / factorial[k]));
    pack<bits<F>> exponent = __builtin_convertvector(n, pack<bits<F>>);
    exponent = (exponent + C::bias) << C::mantissa;
    pack<F> scale;
    std::memcpy(&scale, &exponent, sizeof scale);
    return sum * scale;
}

// Adds up softplus(x) = log(1 + exp(x)) over many packs: the factors 1 + exp(-|x|) are multiplied and one logarithm
// is taken per 60 of them, which fits a double (2^60 per lane, 2^960 over 16 lanes).
template <class F>
struct SoftplusSum {
    pack<F> linear = zero<F>(), product = broadcast<F>(1);
    int count = 0;
    double total = 0;

    HOTROW_INLINE void add(pack<F> x, pack<F> one_plus_exp) {
        linear += select<F>(x > 0, x, zero<F>());
        product *= one_plus_exp;
        if (++count == 60) flush();
    }
    HOTROW_INLINE void flush() {
        double factor = 1;
        for (int i = 0; i < lanes<F>; ++i) {
            total += double(linear[i]);
            factor *= double(product[i]);
        }
        total += std::log(factor);
        linear = zero<F>();
        product = broadcast<F>(1);
        count = 0;
    }
};

// sigmoid(x) = 1 / (1 + exp(-x)); adds softplus(x) to `loss` from the same exponential.
template <class F>
HOTROW_INLINE pack<F> sigmoid(pack<F> x, SoftplusSum<F>& loss) {
    const pack<F> e = exp_of_negative<F>(select<F>(x > 0, -x, x));
    loss.add(x, e + 1);
    return select<F>(x > 0, broadcast<F>(1), e) / (e + 1);
}

}  // namespace
}  // namespace HOTROW_ISA
}  // namespace hotrow
