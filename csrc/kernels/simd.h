// Native registers as GCC/clang vector types. The only #if on ISA in the kernels.
//
// pack<T> is one register of lanes<T> elements: + - * / and comparisons are the compiler's, the rest is below.
// fma() fuses where the ISA can; kernels whose bits must not depend on the ISA multiply and add instead.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>  // std::index_sequence only: a type, it leaves no symbol

#include "view.h"

#if defined(__AVX512F__) || defined(__AVX2__) || defined(__SSE2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace hotrow {
namespace HOTROW_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kRegisterBytes = 64;
#elif defined(__AVX2__)
constexpr int kRegisterBytes = 32;
#else
constexpr int kRegisterBytes = 16;
#endif

template <class T>
constexpr int lanes = kRegisterBytes / int(sizeof(T));

template <class T>
struct vector_of {
    typedef T type __attribute__((vector_size(kRegisterBytes)));
    typedef T unaligned __attribute__((vector_size(kRegisterBytes), aligned(sizeof(T))));  // aliases T, as type does
};
template <>
struct vector_of<Half> : vector_of<uint16_t> {};
template <>
struct vector_of<BFloat> : vector_of<uint16_t> {};
template <class T>
using pack = typename vector_of<T>::type;

// The integer as wide as F, for bit work on packs.
template <class F>
struct bits_of;
template <>
struct bits_of<float> {
    using type = int32_t;
};
template <>
struct bits_of<double> {
    using type = int64_t;
};
template <class F>
using bits = typename bits_of<F>::type;

template <class I>
struct unsigned_of;
template <>
struct unsigned_of<int32_t> {
    using type = uint32_t;
};
template <>
struct unsigned_of<int64_t> {
    using type = uint64_t;
};

template <class T>
HOTROW_INLINE pack<T> load(const T* p) {
    return *reinterpret_cast<const typename vector_of<T>::unaligned*>(p);
}
template <class T>
HOTROW_INLINE void store(T* p, pack<T> a) {
    *reinterpret_cast<typename vector_of<T>::unaligned*>(p) = a;
}
template <class T>
HOTROW_INLINE pack<T> zero() {
    return pack<T>{};
}
template <class T, class V = pack<T>>
HOTROW_INLINE V broadcast(T x) {
    return x - V{};  // x - 0 is x, also for -0 and NaN
}
// x, which compilers load again for each use where they can.
template <class V>
HOTROW_INLINE V in_register(V x) {
#if defined(__x86_64__)
    asm("" : "+v"(x));
#endif
    return x;
}
template <class T>
HOTROW_INLINE pack<T> select(pack<bits<T>> mask, pack<T> yes, pack<T> no) {
    return mask ? yes : no;
}

// A tail: the first `count` lanes of a register, 1 <= count <= lanes<T>. Loads read and stores write those alone.
template <class T>
struct Tail {
    int count;
#if defined(__AVX512F__)
    uint16_t mask;
    HOTROW_INLINE explicit Tail(int n) : count(n), mask(uint16_t((1u << n) - 1)) {}
#elif defined(__AVX2__)
    pack<bits<T>> mask;
    HOTROW_INLINE explicit Tail(int n) : count(n) {
        for (int i = 0; i < lanes<T>; ++i) mask[i] = i < n ? -1 : 0;
    }
#else
    HOTROW_INLINE explicit Tail(int n) : count(n) {}
#endif
};

// The tail of a block that ends with a whole register.
template <class T>
struct Whole {
    static constexpr int count = lanes<T>;
};
template <class T>
HOTROW_INLINE pack<T> load(const T* p, Whole<T>) {
    return load(p);
}
template <class T>
HOTROW_INLINE void store(T* p, pack<T> a, Whole<T>) {
    store(p, a);
}

#if defined(__AVX512F__)
// _mm512_zextpd256_pd512, in which GCC 12 sees an uninitialised register.
HOTROW_INLINE __m512d zero_extend(__m256d a) { return _mm512_maskz_insertf64x4(0xFF, _mm512_setzero_pd(), a, 0); }

// No wider than need be: a masked load touches the next cache line for lanes it leaves out as well. 8% of a bag at width 100.
HOTROW_INLINE pack<float> load(const float* p, Tail<float> t) {
    if (t.count <= 4) return pack<float>(_mm512_zextps128_ps512(_mm_maskz_loadu_ps(__mmask8(t.mask), p)));
    if (t.count <= 8) return pack<float>(zero_extend(__m256d(_mm256_maskz_loadu_ps(__mmask8(t.mask), p))));
    return pack<float>(_mm512_maskz_loadu_ps(t.mask, p));
}
HOTROW_INLINE pack<double> load(const double* p, Tail<double> t) {
    if (t.count <= 2) return pack<double>(_mm512_zextpd128_pd512(_mm_maskz_loadu_pd(__mmask8(t.mask), p)));
    if (t.count <= 4) return pack<double>(zero_extend(_mm256_maskz_loadu_pd(__mmask8(t.mask), p)));
    return pack<double>(_mm512_maskz_loadu_pd(__mmask8(t.mask), p));
}
HOTROW_INLINE void store(float* p, pack<float> a, Tail<float> t) { _mm512_mask_storeu_ps(p, t.mask, __m512(a)); }
HOTROW_INLINE void store(double* p, pack<double> a, Tail<double> t) {
    _mm512_mask_storeu_pd(p, __mmask8(t.mask), __m512d(a));
}
HOTROW_INLINE pack<float> fma(pack<float> a, pack<float> b, pack<float> c) {
    return pack<float>(_mm512_fmadd_ps(__m512(a), __m512(b), __m512(c)));
}
HOTROW_INLINE pack<double> fma(pack<double> a, pack<double> b, pack<double> c) {
    return pack<double>(_mm512_fmadd_pd(__m512d(a), __m512d(b), __m512d(c)));
}
#else
#if defined(__AVX2__)
HOTROW_INLINE pack<float> load(const float* p, Tail<float> t) {
    return pack<float>(_mm256_maskload_ps(p, __m256i(t.mask)));
}
HOTROW_INLINE pack<double> load(const double* p, Tail<double> t) {
    return pack<double>(_mm256_maskload_pd(p, __m256i(t.mask)));
}
#else
template <class T>
HOTROW_INLINE pack<T> load(const T* p, Tail<T> t) {
    pack<T> a{};
    for (int i = 0; i < lanes<T>; ++i)
        if (i < t.count) a[i] = p[i];
    return a;
}
#endif
// Masked AVX2 stores are microcoded on AMD; a few scalar stores are not.
template <class T>
HOTROW_INLINE void store(T* p, pack<T> a, Tail<T> t) {
    if (t.count == lanes<T>) return store(p, a);
    for (int i = 0; i < lanes<T>; ++i)
        if (i < t.count) p[i] = a[i];
}
#if defined(__FMA__)
HOTROW_INLINE pack<float> fma(pack<float> a, pack<float> b, pack<float> c) {
    return pack<float>(_mm256_fmadd_ps(__m256(a), __m256(b), __m256(c)));
}
HOTROW_INLINE pack<double> fma(pack<double> a, pack<double> b, pack<double> c) {
    return pack<double>(_mm256_fmadd_pd(__m256d(a), __m256d(b), __m256d(c)));
}
#elif defined(__aarch64__)
HOTROW_INLINE pack<float> fma(pack<float> a, pack<float> b, pack<float> c) {
    return pack<float>(vfmaq_f32(float32x4_t(c), float32x4_t(a), float32x4_t(b)));
}
HOTROW_INLINE pack<double> fma(pack<double> a, pack<double> b, pack<double> c) {
    return pack<double>(vfmaq_f64(float64x2_t(c), float64x2_t(a), float64x2_t(b)));
}
#else
template <class V>
HOTROW_INLINE V fma(V a, V b, V c) {
    return a * b + c;
}
#endif
#endif

// Registers of 16 bytes, for a few columns past the last whole register: they cost what they hold. ShortTail: the first
// `count` lanes of one. widen() fills up with zeros.
template <class T>
struct short_vector_of {
    typedef T type __attribute__((vector_size(16)));
    typedef T unaligned __attribute__((vector_size(16), aligned(sizeof(T))));  // aliases T, as type does
};
template <class T>
using short_pack = typename short_vector_of<T>::type;
template <class T>
constexpr int short_lanes = 16 / int(sizeof(T));

#if defined(__AVX2__)
template <class T>
struct ShortTail {
    int count;
};
#if defined(__AVX512F__)
HOTROW_INLINE __mmask8 first_lanes(int count) { return __mmask8((1u << count) - 1); }
HOTROW_INLINE short_pack<float> load(const float* p, ShortTail<float> t) {
    return short_pack<float>(_mm_maskz_loadu_ps(first_lanes(t.count), p));
}
HOTROW_INLINE short_pack<double> load(const double* p, ShortTail<double> t) {
    return short_pack<double>(_mm_maskz_loadu_pd(first_lanes(t.count), p));
}
HOTROW_INLINE void store(float* p, short_pack<float> a, ShortTail<float> t) {
    _mm_mask_storeu_ps(p, first_lanes(t.count), __m128(a));
}
HOTROW_INLINE void store(double* p, short_pack<double> a, ShortTail<double> t) {
    _mm_mask_storeu_pd(p, first_lanes(t.count), __m128d(a));
}
HOTROW_INLINE pack<float> widen(short_pack<float> a) { return pack<float>(_mm512_zextps128_ps512(__m128(a))); }
HOTROW_INLINE pack<double> widen(short_pack<double> a) { return pack<double>(_mm512_zextpd128_pd512(__m128d(a))); }
#else
template <class T>
HOTROW_INLINE short_pack<T> load(const T* p, ShortTail<T> t) {
    if (t.count == short_lanes<T>) return *reinterpret_cast<const typename short_vector_of<T>::unaligned*>(p);
    short_pack<T> a{};
    for (int i = 0; i + 1 < short_lanes<T>; ++i) a[i] = t.count > i ? p[i] : T(0);
    return a;
}
template <class T>
HOTROW_INLINE void store(T* p, short_pack<T> a, ShortTail<T> t) {
    if (t.count == short_lanes<T>) {
        *reinterpret_cast<typename short_vector_of<T>::unaligned*>(p) = a;
        return;
    }
    for (int i = 0; i + 1 < short_lanes<T>; ++i)
        if (t.count > i) p[i] = a[i];
}
HOTROW_INLINE pack<float> widen(short_pack<float> a) { return pack<float>(_mm256_zextps128_ps256(__m128(a))); }
HOTROW_INLINE pack<double> widen(short_pack<double> a) { return pack<double>(_mm256_zextpd128_pd256(__m128d(a))); }
#endif
HOTROW_INLINE short_pack<float> fma(short_pack<float> a, short_pack<float> b, short_pack<float> c) {
    return short_pack<float>(_mm_fmadd_ps(__m128(a), __m128(b), __m128(c)));
}
HOTROW_INLINE short_pack<double> fma(short_pack<double> a, short_pack<double> b, short_pack<double> c) {
    return short_pack<double>(_mm_fmadd_pd(__m128d(a), __m128d(b), __m128d(c)));
}
#else  // registers are as short
template <class T>
using ShortTail = Tail<T>;
template <class V>
HOTROW_INLINE V widen(V a) {
    return a;
}
#endif

// The larger lane by lane; a NaN on either side stays. VMAXPS gives its second operand where one is NaN, and two
// instructions are half of what comparing and choosing takes: maxima of 50k x 100 at 1.7 times a sum's time, now 1.0.
#if defined(__AVX512F__)
HOTROW_INLINE pack<float> max_or_nan(pack<float> kept, pack<float> x) {
    const __m512i nan_of_second = _mm512_set1_epi32(0x22);  // instead of the first; quiet or signalling
    const __m512 larger = _mm512_maskz_max_ps(0xFFFF, __m512(x), __m512(kept));  // masked: as root, below
    return pack<float>(_mm512_fixupimm_ps(larger, __m512(x), nan_of_second, 0));
}
HOTROW_INLINE pack<double> max_or_nan(pack<double> kept, pack<double> x) {
    const __m512i nan_of_second = _mm512_set1_epi64(0x22);
    const __m512d larger = _mm512_maskz_max_pd(0xFF, __m512d(x), __m512d(kept));
    return pack<double>(_mm512_fixupimm_pd(larger, __m512d(x), nan_of_second, 0));
}
#else
template <class V>
HOTROW_INLINE V max_or_nan(V kept, V x) {
    return ((x > kept) | (x != x)) ? x : kept;
}
#endif

// Writes a register past the caches to an address of its alignment; others see it after stream_end().
template <class T>
HOTROW_INLINE void stream(T* p, pack<T> a) {
#if defined(__AVX512F__)
    _mm512_stream_si512(reinterpret_cast<__m512i*>(p), __m512i(a));
#elif defined(__AVX2__)
    _mm256_stream_si256(reinterpret_cast<__m256i*>(p), __m256i(a));
#elif defined(__SSE2__)
    _mm_stream_si128(reinterpret_cast<__m128i*>(p), __m128i(a));
#else
    *reinterpret_cast<pack<T>*>(p) = a;
#endif
}
HOTROW_INLINE void stream_end() {
#if defined(__SSE2__)
    _mm_sfence();
#endif
}

// Square roots. Masked, because the plain intrinsics read a register that GCC 12 calls uninitialised; and not std::sqrt,
// an inline function that the linker may take from any object.
HOTROW_INLINE float root(float a) { return __builtin_sqrtf(a); }
HOTROW_INLINE double root(double a) { return __builtin_sqrt(a); }
HOTROW_INLINE pack<float> root(pack<float> a) {
#if defined(__AVX512F__)
    return pack<float>(_mm512_maskz_sqrt_ps(0xFFFF, __m512(a)));
#else
    for (int i = 0; i < lanes<float>; ++i) a[i] = root(a[i]);
    return a;
#endif
}
HOTROW_INLINE pack<double> root(pack<double> a) {
#if defined(__AVX512F__)
    return pack<double>(_mm512_maskz_sqrt_pd(0xFF, __m512d(a)));
#else
    for (int i = 0; i < lanes<double>; ++i) a[i] = root(a[i]);
    return a;
#endif
}

// Before a loop over the registers of a block, which must end up as straight code: GCC leaves off at 16 rounds.
#if defined(__clang__)
#define HOTROW_UNROLL _Pragma("unroll")
#define HOTROW_NO_UNROLL _Pragma("nounroll")
#else
#define HOTROW_UNROLL _Pragma("GCC unroll 32")
#define HOTROW_NO_UNROLL _Pragma("GCC unroll 1")
#endif

// p + a * b by numbers that wrap: a prefetch may name memory that is not there, pointer arithmetic may not.
template <class T>
HOTROW_INLINE const T* prefetch_address(const T* p, int64_t a, int64_t b = 1) {
    // NOLINTNEXTLINE(performance-no-int-to-ptr): what the compiler then does not know of it, no prefetch needs
    return reinterpret_cast<const T*>(reinterpret_cast<uintptr_t>(p) + uintptr_t(a) * uintptr_t(b) * sizeof(T));
}

// How many lookups ahead a row is fetched: as many as fit 8 KiB, at least 4, at most 32. On a Zen 5 with two channels,
// 32 was best for rows of 256 B, 16 for 512 B and 8 to 16 for 1 KiB; on a Zen 4, 16 and 32 KiB were no better.
template <class F>
HOTROW_INLINE int64_t lookahead(int64_t cols) {
    const int64_t fit = 8192 / (cols * int64_t(sizeof(F)) + 1);
    return fit < 4 ? 4 : fit > 32 ? 32 : fit;
}

// Where prefetches bring a row, as __builtin_prefetch names it. The first cache can have too few misses under way for
// rows from memory: those go to the second, see docs/decisions/10. Rows from caches are 5% faster from the first: those
// of tables of up to 128 MiB, where some are looked up again, and of gradients of up to 4 MiB, read but once.
constexpr int kFirstCache = 3, kSecondCache = 2;
constexpr int64_t kTableInCaches = 128 << 20, kGradsInCaches = 4 << 20;

template <class T>
HOTROW_INLINE bool fits(Mat<T> rows, int64_t bytes) {
    return rows.rows * rows.cols * int64_t(sizeof(T)) <= bytes;
}

// Brings the cache lines of a row near; ToWrite: for this thread alone.
template <bool ToWrite = false, class T>
HOTROW_INLINE void prefetch_row(const T* row, int64_t cols) {
    constexpr int cache = ToWrite ? kFirstCache : kSecondCache;
    HOTROW_NO_UNROLL
    for (int64_t d = 0; d < cols; d += 64 / int(sizeof(T))) __builtin_prefetch(prefetch_address(row, d), ToWrite, cache);
    __builtin_prefetch(prefetch_address(row, cols - 1), ToWrite, cache);
}

// Rows are walked in blocks of columns, as few and as equal as blocks of up to kBlock registers allow. body(W, d, tail)
// sees a compile-time number of registers W::value starting at column d, the last of which may be a tail, and loops
// over rows itself: choosing the code of a width costs as much as a lookup. kBlock is two thirds of the registers there
// are: 300 floats are one block of AVX-512, where two passes over a bag cost a third more. x86-64 without AVX2, which few
// machines are, has less code.
#if defined(__AVX512F__)
constexpr int kBlock = 20;
#elif defined(__AVX2__) || !defined(__SSE2__)
constexpr int kBlock = 10;
#else
constexpr int kBlock = 6;
#endif

template <int N>
struct Width {
    static constexpr int value = N;
};

// body(Width<count>{}) for 1 <= count <= Most.
template <int Most, class Body>
HOTROW_INLINE void with_width(int count, Body&& body) {
    if constexpr (Most > 1)
        if (count < Most) return with_width<Most - 1>(count, body);
    body(Width<Most>{});
}

template <class T, int Most = kBlock, class Body>
HOTROW_INLINE void for_blocks(int64_t cols, Body&& body) {
    const int64_t registers = (cols + lanes<T> - 1) / lanes<T>, blocks = (registers + Most - 1) / Most;
    int64_t first = 0;
    for (int64_t block = 0; block < blocks; ++block) {
        const int64_t end = registers * (block + 1) / blocks, d = first * lanes<T>;
        const int64_t left = cols - (end - 1) * lanes<T>;
        const Tail<T> tail(left < lanes<T> ? int(left) : lanes<T>);
        with_width<Most>(int(end - first), [&](auto width) HOTROW_INLINE_LAMBDA { body(width, d, tail); });
        first = end;
    }
}

// Rows of 16-bit and 8-bit elements are widened as they are loaded: see half.h and int8.h.
HOTROW_INLINE pack<float> load(const Half* p);
HOTROW_INLINE pack<float> load(const BFloat* p);
HOTROW_INLINE pack<float> load(const int8_t* p);
template <class End>
HOTROW_INLINE pack<float> load(const Half* p, End tail);
template <class End>
HOTROW_INLINE pack<float> load(const BFloat* p, End tail);
HOTROW_INLINE pack<float> load(const int8_t* p, Whole<float>);
HOTROW_INLINE pack<float> load(const int8_t* p, Tail<float> tail);

// The k-th of N registers of a block: whole, but for the last.
template <int N, class T, class End>
HOTROW_INLINE pack<real<T>> load_block(const T* p, int k, End tail) {
    return k + 1 < N ? load(p + k * lanes<real<T>>) : load(p + k * lanes<real<T>>, tail);
}
template <int N, class T, class End>
HOTROW_INLINE void store_block(T* p, int k, pack<T> a, End tail) {
    if (k + 1 < N) store(p + k * lanes<T>, a);
    else store(p + k * lanes<T>, a, tail);
}

// change(d, tail) for each register of a row; columns past the last whole one are left out if they are not more than Rest
template <class F, int Rest = 0, class Change>
HOTROW_INLINE void for_registers(int64_t cols, const Change& change) {
    int64_t d = 0;
    for (; d + lanes<F> <= cols; d += lanes<F>) change(d, Whole<F>{});
    const int left = int(cols - d);
    if (left > Rest) change(d, Tail<F>(left));
}

// A row in long registers, as above but for a rest of half of one or less, and change(d, ShortTail) for that rest.
template <class T>
constexpr int short_rest = 2 * short_lanes<T>;

template <class F, class Change>
HOTROW_INLINE void for_long_registers(int64_t cols, const Change& change) {
    for_registers<F, short_rest<F>>(cols, change);
}
template <class F, class Change>
HOTROW_INLINE void for_short_registers(int64_t cols, const Change& change) {
    int64_t d = cols / lanes<F> * lanes<F>;
    if (cols - d > short_rest<F>) return;
    for (; d < cols; d += short_lanes<F>)
        change(d, ShortTail<F>{int(cols - d < short_lanes<F> ? cols - d : short_lanes<F>)});
}

// The first `count` of a register's worth of places in a bag, as integers as wide as F.
template <class F>
HOTROW_INLINE pack<bits<F>> load_places(const int32_t* p, int count) {
    pack<bits<F>> places{};
    for (int i = 0; i < lanes<F>; ++i)
        if (i < count) places[i] = p[i];
    return places;
}

// Fetches the cache lines of a block of N registers ahead of its use: one for each 64 bytes, the last of them for the
// last element. Only where a row that starts some bytes into a line reaches one line more is that one asked for.
template <int N, class T>
struct BlockFetch {
    static constexpr int kLine = 64 / int(sizeof(T)), kBetween = (N * lanes<real<T>> - 1) / kLine;
    int64_t last;                                 // element
    enum { far, near, near_and_one_more } lines;  // one value, for which a loop over rows has a register

    template <class End>
    HOTROW_INLINE BlockFetch(const T* rows, int64_t stride, End tail, bool in_caches) {
        const uintptr_t starts = reinterpret_cast<uintptr_t>(rows) | uintptr_t(stride) * sizeof(T) | 64;
        const int worst_offset = 64 - int(starts & (0 - starts));  // bytes past the start of a line, at most
        last = (N - 1) * lanes<real<T>> + tail.count - 1;
        const bool one_more = (int(last) + 1 - kBetween * kLine) * int(sizeof(T)) + worst_offset > 64;
        lines = !in_caches ? far : one_more ? near_and_one_more : near;
    }
    HOTROW_INLINE void operator()(const T* p) const {
        if (lines == far) return prefetch_row(p, last + 1);  // a loop: straight code for both takes registers
        HOTROW_UNROLL
        for (int i = 0; i < kBetween; ++i) __builtin_prefetch(prefetch_address(p, i * kLine), 0, kFirstCache);
        if (lines == near_and_one_more) __builtin_prefetch(prefetch_address(p, kBetween * kLine), 0, kFirstCache);
        __builtin_prefetch(prefetch_address(p, last), 0, kFirstCache);
    }
};

// Transposing reduction. Each of a and b holds lanes<T> / Group partial groups of Group lanes; the result holds those
// of a, then those of b, each folded to half its width.
template <int Group, class T, size_t... R>
HOTROW_INLINE pack<T> fold(pack<T> a, pack<T> b, std::index_sequence<R...>) {
    constexpr int half = Group / 2;
    return __builtin_shufflevector(a, b, int(R / half * Group + R % half)...) +
           __builtin_shufflevector(a, b, int(R / half * Group + R % half + half)...);
}

// sums[j] = sum over lanes of acc[j], for j in 0 .. N - 1; N <= lanes<T>. Lanes past N hold zero.
// Order: lane i with i + lanes/2, then halves of that, and so on.
template <int N, int Group, class T>
HOTROW_INLINE pack<T> reduce(const pack<T>* acc) {
    if constexpr (Group == 1) {
        return acc[0];
    } else {
        constexpr int pairs = (N + 1) / 2;
        pack<T> folded[pairs];
        for (int j = 0; j < pairs; ++j)
            folded[j] = fold<Group, T>(acc[2 * j], 2 * j + 1 < N ? acc[2 * j + 1] : zero<T>(),
                                       std::make_index_sequence<size_t(lanes<T>)>{});
        return reduce<pairs, Group / 2, T>(folded);
    }
}

// body(j, sums) for each register of sums of acc[j ...] over lanes; lanes past N hold zero.
template <int N, class T, int First = 0, class Body>
HOTROW_INLINE void reduce_all(const pack<T>* acc, const Body& body) {
    constexpr int n = N - First < lanes<T> ? N - First : lanes<T>;
    body(First, reduce<n, lanes<T>, T>(acc + First));
    if constexpr (First + n < N) reduce_all<N, T, First + n>(acc, body);
}

}  // namespace
}  // namespace HOTROW_ISA
}  // namespace hotrow
