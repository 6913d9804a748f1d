// Kernels against plain loops, without Python: for machines that are emulated, of either byte order. Every instruction
// set that was built and runs here, every element type, widths around the registers.
#include <cstring>
#include <type_traits>

#include "check.h"
#include "runtime/cpu.h"

namespace hotrow {
namespace {

constexpr int64_t kRows = 9, kLookups = 57;
const int64_t kWidths[] = {1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 100, 161, 301};

// Elements and the numbers they stand for, which are small multiples of 1/8: every type holds them exactly.
double number(float x) { return double(x); }
double number(double x) { return x; }
double number(int8_t x) { return x; }
double number(BFloat x) {
    const uint32_t wide = uint32_t(x.bits) << 16;
    float f;
    std::memcpy(&f, &wide, sizeof f);
    return double(f);
}
double number(Half x) {
    const int exponent = x.bits >> 10 & 31, fraction = x.bits & 1023;
    const double magnitude = exponent ? std::ldexp(1024 + fraction, exponent - 25) : std::ldexp(fraction, -24);
    return x.bits >> 15 ? -magnitude : magnitude;
}
void set(float& x, double value) { x = float(value); }
void set(double& x, double value) { x = value; }
void set(int8_t& x, double value) { x = int8_t(8 * value); }
void set(BFloat& x, double value) {
    const float f = float(value);
    uint32_t wide;
    std::memcpy(&wide, &f, sizeof wide);
    x.bits = uint16_t(wide >> 16);
}
void set(Half& x, double value) {
    int exponent;
    const double fraction = std::frexp(std::abs(value), &exponent);  // in [0.5, 1)
    const int bits = value == 0 ? 0 : (exponent + 14) << 10 | (int(fraction * 2048) & 1023);
    x.bits = uint16_t(bits | (value < 0 ? 0x8000 : 0));
}

template <class T>
void fill(Rows<T>& rows, Random& random) {
    for (int64_t r = 0; r < rows.mat.rows; ++r)
        for (int64_t d = 0; d < rows.mat.cols; ++d) set(rows.at(r, d), double(random.below(31) - 15) / 8);
}

bool near(double found, double want, double eps) {
    return std::abs(found - want) <= 8 * eps * (1 + std::abs(want));
}
template <class E>
constexpr double kEps = sizeof(E) == 8 ? 0x1p-52 : sizeof(E) == 4 ? 0x1p-23 : std::is_same<E, BFloat>::value ? 0x1p-8 : 0x1p-11;

template <class I>
std::vector<I> some_indices(Random& random) {
    std::vector<I> indices(kLookups);
    for (I& i : indices) i = I(random.below(kRows));
    indices[0] = I(kRows - 1);
    return indices;
}

template <class E>
std::vector<float> scales_of(Random& random) {
    std::vector<float> scales(scaled<E> ? kRows : 0);
    for (float& scale : scales) scale = float(1 + random.below(4)) / 4;
    return scales;
}
template <class E>
double weight_of(const std::vector<float>& scales, int64_t row) {
    return scaled<E> ? double(scales[size_t(row)]) : 1.0;
}

template <class E, class I>
void test_gather(int64_t cols) {
    Random random;
    Rows<E> table(kRows, cols);
    fill(table, random);
    const auto indices = some_indices<I>(random);
    const auto scales = scales_of<E>(random);
    const auto& ops = kernels().get<E, I>();
    for (const auto kernel : {ops.gather, ops.gather_streaming}) {
        Rows<gathered<E>> out(kLookups, cols);
        kernel(table.view(), indices.data(), scales.data(), {2, kLookups}, out.mat);
        for (int64_t i = 0; i < kLookups; ++i)
            for (int64_t d = 0; d < cols; ++d) {
                const int64_t row = indices[size_t(i)];
                const double want = i < 2 ? 0 : number(table.at(row, d)) * weight_of<E>(scales, row);
                expect(number(out.at(i, d)) == want, "gather", cols, d);
            }
    }
}

// 6 bags over the lookups: one empty, one of a lookup, the last one empty too. Lookups of the padding row are left out.
template <class E, class I, class F = real<E>>
void test_embedding_bag(int64_t cols) {
    Random random;
    Rows<E> table(kRows, cols);
    fill(table, random);
    const auto indices = some_indices<I>(random);
    const auto scales = scales_of<E>(random);
    const std::vector<int64_t> offsets = {0, 20, 20, 21, 40, kLookups, kLookups};
    std::vector<F> weights(kLookups);
    for (F& w : weights) w = F(1 + random.below(8)) / 4;
    const int64_t count = int64_t(offsets.size()) - 1, padding = 3;
    for (const Mode mode : {Mode::sum, Mode::mean, Mode::sqrtn, Mode::max})
        for (const bool weighted : {false, true}) {
            Rows<F> out(count, cols);
            Rows<int32_t> argmax(count, cols);
            const Bags<F, I> bags{indices.data(), offsets.data(), weighted ? weights.data() : nullptr, padding, mode,
                                  mode == Mode::max ? argmax.mat : Mat<int32_t>{}, scaled<E> ? scales.data() : nullptr};
            bool in_range = true;
            kernels().get<E, I>().embedding_bag(table.view(), bags, {0, count}, out.mat, in_range);
            expect(in_range, "embedding_bag: in range", cols);
            for (int64_t b = 0; b < count; ++b)
                for (int64_t d = 0; d < cols; ++d) {
                    double sum = 0, divisor = 0, most = -INFINITY;
                    for (int64_t j = offsets[size_t(b)]; j < offsets[size_t(b) + 1]; ++j) {
                        const int64_t row = indices[size_t(j)];
                        if (row == padding) continue;
                        const double w = weighted ? double(weights[size_t(j)]) : 1.0;
                        const double term = w * weight_of<E>(scales, row) * number(table.at(row, d));
                        sum += term;
                        divisor += mode == Mode::sqrtn ? w * w : w;
                        most = term > most ? term : most;
                    }
                    double want = sum;
                    if (divisor == 0) want = 0;
                    else if (mode == Mode::max) want = most;
                    else if (mode == Mode::mean) want = sum / divisor;
                    else if (mode == Mode::sqrtn) want = sum / std::sqrt(divisor);
                    expect(near(double(out.at(b, d)), want, kEps<F>), "embedding_bag", cols, int64_t(mode));
                }
        }
    std::vector<I> outside = indices;
    outside.back() = I(kRows);
    Rows<F> out(1, cols);
    const std::vector<int64_t> one = {0, kLookups};
    bool in_range = true;
    kernels().get<E, I>().embedding_bag(
        table.view(), {outside.data(), one.data(), nullptr, -1, Mode::sum, {}, scales.data()}, {0, 1}, out.mat, in_range);
    expect(!in_range, "embedding_bag: out of range", cols);
}

// Lookups in runs of equal rows: of 1, 2, 4, 8 ... of them.
template <class I>
std::vector<Lookup<I>> runs() {
    std::vector<Lookup<I>> lookups;
    for (int64_t row = 0; row < 6; ++row)
        for (int64_t k = 0; k < int64_t(1) << row; ++k) lookups.push_back({I(row + (row > 2)), I(lookups.size())});
    return lookups;
}

// want(row, d, the sum of its gradients) for rows that were looked up.
template <class E, class I, class F = real<E>, class Run, class Want>
void test_update(const char* name, int64_t cols, const Run& run, const Want& want) {
    Random random;
    Rows<E> table(kRows, cols);
    fill(table, random);
    Rows<E> before(table);
    const auto lookups = runs<I>();
    const Range range{0, int64_t(lookups.size())};
    Rows<F> grads(range.end, cols);
    fill(grads, random);
    std::vector<F> scratch(size_t(cols) + 64);
    run(lookups.data(), Gradient<F>{grads.view(), nullptr, nullptr, {}}, range, scratch.data(), table.mat);
    for (int64_t row = 0; row < kRows; ++row)
        for (int64_t d = 0; d < cols; ++d) {
            double sum = 0;
            bool any = false;
            for (const Lookup<I>& lookup : lookups)
                if (lookup.row == row) {
                    sum += double(grads.at(lookup.position, d));
                    any = true;
                }
            const double old = number(before.at(row, d));
            expect(near(number(table.at(row, d)), any ? want(old, sum) : old, kEps<E>), name, cols, row);
        }
}

template <class E, class I, class F = real<E>>
void test_scatter_add(int64_t cols) {
    test_update<E, I>(
        "scatter_add", cols,
        [](const Lookup<I>* lookups, const Gradient<F>& gradient, Range range, F* scratch, Mat<E> table) {
            kernels().get<E, I>().scatter_add(lookups, gradient, F(0.5), range, scratch, table);
        },
        [](double old, double sum) { return old + 0.5 * sum; });
}

// One step from zero state, with weight decay in the gradient.
template <class E, class I, class F = real<E>>
void test_adam_step(int64_t cols) {
    Rows<F> first(kRows, cols), second(kRows, cols);
    const double beta1 = 0.75, beta2 = 0.875, rate = 0.25, eps = 0.5, decay = 0.125;
    test_update<E, I>(
        "adam_step", cols,
        [&](const Lookup<I>* lookups, const Gradient<F>& gradient, Range range, F* scratch, Mat<E> table) {
            const AdamRule<F> rule{F(beta1), F(beta2), F(1 - beta1), F(1 - beta2), F(rate), F(eps), {}};
            const Adjust<F> adjust{true, F(1), F(INFINITY), F(decay), F(1), {}};
            kernels().get<E, I>().adam_step(lookups, gradient, range, adjust, rule, scratch, first.mat, second.mat,
                                            nullptr, table);
        },
        [&](double old, double sum) {
            const double g = sum + decay * old;
            return old - rate * (1 - beta1) * g / (std::sqrt((1 - beta2) * g * g) + eps);
        });
}

template <class I>
void test_all_below() {
    for (int64_t n = 0; n < 70; ++n) {
        std::vector<I> indices(size_t(n), I(kRows - 1));
        const auto inside = [&] { return kernels().get<float, I>().all_below(indices.data(), {0, n}, kRows); };
        expect(inside(), "all_below", n);
        for (I& index : indices)
            for (const I bad : {I(kRows), I(-1)}) {
                const I good = index;
                index = bad;
                expect(!inside(), "all_below: one outside", n, int64_t(bad));
                index = good;
            }
    }
}

template <class E, class I>
void test_updates(int64_t cols) {
    test_scatter_add<E, I>(cols);
    test_adam_step<E, I>(cols);
}

template <class I>
void test_index() {
    test_all_below<I>();
    for (const int64_t cols : kWidths) {
        test_gather<float, I>(cols), test_embedding_bag<float, I>(cols), test_updates<float, I>(cols);
        test_gather<double, I>(cols), test_embedding_bag<double, I>(cols), test_updates<double, I>(cols);
        test_gather<Half, I>(cols), test_embedding_bag<Half, I>(cols), test_updates<Half, I>(cols);
        test_gather<BFloat, I>(cols), test_embedding_bag<BFloat, I>(cols), test_updates<BFloat, I>(cols);
        test_gather<int8_t, I>(cols), test_embedding_bag<int8_t, I>(cols);
    }
}

}  // namespace
}  // namespace hotrow

int main() {
    using namespace hotrow;
    for (const std::string& isa : supported_isas()) {
        use_isa(isa);
        const int before = failures;
        test_index<int32_t>();
        test_index<int64_t>();
        std::printf("%s: %s\n", isa.c_str(), failures == before ? "passed" : "FAILED");
    }
    return failures != 0;
}
