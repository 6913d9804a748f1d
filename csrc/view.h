// What operators work on: views of the caller's memory. Nothing here owns or allocates.
#pragma once
#include <cstdint>

// Always inlined, so that no per-ISA object carries a copy the linker could hand to baseline code.
#define HOTROW_INLINE inline __attribute__((always_inline))
#define HOTROW_INLINE_LAMBDA __attribute__((always_inline))
// A loop of its own function: twenty widths of it in one function would share its registers and spill.
#define HOTROW_OWN_FUNCTION __attribute__((noinline))

namespace hotrow {

// A matrix with contiguous rows and any row stride (in elements, may be 0 or negative).
template <class T>
struct Mat {
    T* data;
    int64_t rows, cols, stride;
    HOTROW_INLINE T* row(int64_t r) const { return data + r * stride; }
};

struct Range {
    int64_t begin, end;
};

// Table elements of 16 bits: IEEE half precision, and the upper half of a float32. Arithmetic on them is float32.
struct Half {
    uint16_t bits;
};
struct BFloat {
    uint16_t bits;
};

// What arithmetic on table elements E is done in.
template <class E>
struct real_of {
    using type = E;
};
template <>
struct real_of<Half> {
    using type = float;
};
template <>
struct real_of<BFloat> {
    using type = float;
};
template <>
struct real_of<int8_t> {
    using type = float;
};
template <class E>
using real = typename real_of<E>::type;

// Whether elements are multiples of a scale that their row has: those of 8 bits.
template <class E>
constexpr bool scaled = sizeof(E) == 1;

// What gather makes of table elements E: copies, but for scaled ones.
template <class E>
struct gathered_of {
    using type = E;
};
template <>
struct gathered_of<int8_t> {
    using type = float;
};
template <class E>
using gathered = typename gathered_of<E>::type;

// How updates round to 16 bits: to nearest, or up or down by chance, in proportion to the distance (Gupta et al., "Deep
// Learning with Limited Numerical Precision", 2015). Draws depend on the key, the row and the column alone.
struct Rounding {
    bool stochastic;
    uint64_t key;
};

// One lookup of a gradient operator: row `position` of the gradients belongs to `table.row(row)`.
template <class I>
struct Lookup {
    I row, position;
};

// What the lookups of a range add up. The arrays are in step with the sorted lookups.
template <class F>
struct Gradient {
    Mat<const F> rows;            // named by Lookup::position
    const F* factors;             // of each lookup, or null for 1
    const int32_t* places;        // max: the place of each lookup in its bag, else null
    Mat<const int32_t> argmax;    // max: the place that gave each column, in rows as those of `rows`
};

// A run of more lookups of one row than this is summed in chunks of so many, whose sums are then summed.
constexpr int64_t kChunk = 1024;

// What an optimizer step does to a summed gradient g and its row w before the update.
template <class F>
struct Adjust {
    bool any;        // whether there is anything to do
    F scale;         // g *= scale, from clipping by norm
    F clip;          // g to [-clip, clip]
    F weight_decay;  // g += weight_decay * w
    F keep;          // w *= keep
    Rounding rounding;
};

template <class F>
struct AdamRule {
    F beta1, beta2, rest1, rest2;  // rest: 1 - beta
    F rate, eps;                   // bias correction included, unless it stands in `corrections`
    Mat<const F> corrections;      // [T, 2] factors of rate and eps at a row's steps 1 .. T, or no data
};

enum class Mode : int { sum, mean, sqrtn, max };

// The bags of embedding_bag: bag b holds lookups offsets[b] .. offsets[b + 1].
template <class F, class I>
struct Bags {
    const I* indices;
    const int64_t* offsets;
    const F* weights;      // one factor per lookup, or null for 1
    int64_t padding_idx;   // lookups of this row are left out; -1 for none
    Mode mode;
    Mat<int32_t> argmax;   // max: where to write which lookup of the bag gave each column, or no data
    const float* scales;   // one for each row of an int8 table, else null
};

// Word numbers of 4 or 8 bytes in memory. 4 are enough: an alias table and a Huffman tree have no more words.
struct Words {
    const void* data;
    bool wide;

    template <class I>
    HOTROW_INLINE explicit Words(const I* words) : data(words), wide(sizeof(I) == 8) {}
    HOTROW_INLINE int32_t operator[](int64_t i) const {
        return wide ? int32_t(static_cast<const int64_t*>(data)[i]) : static_cast<const int32_t*>(data)[i];
    }
};

// One pass of skip-gram or CBOW over encoded sentences; the draws it makes are defined in runtime/random.h. Hierarchical
// softmax has no negatives and no alias table.
struct Epoch {
    Words tokens;                  // [T] word numbers, -1 never occurs
    const int64_t* offsets;        // [S + 1] where each sentence starts in `tokens`
    int64_t sentences;
    const uint32_t* keep;          // [V] keep a word if draw <= keep[word]
    const uint32_t* alias_accept;  // [V] alias table: take the bucket if draw <= alias_accept[bucket],
    const int32_t* alias_other;    // [V]   else alias_other[bucket]
    int64_t vocabulary;            // V
    int64_t window, negative;
    bool shared_negatives;         // by a group of windows; else each context has its own
    bool shrink_windows;
    double lr_begin, lr_end;       // learning rate at the first and past the last of all T tokens
    uint64_t seed;
    int threads;                   // that train at the same time
};

// The paths of a Huffman tree: of word w, from the root on, the inner nodes points[k] for offsets[w] <= k <
// offsets[w + 1], and in codes[k] whether the path goes on to the second child of the node.
struct Paths {
    const int64_t* offsets;
    const int32_t* points;
    const uint8_t* codes;
    int64_t longest;
    bool* locks = nullptr;  // of the shared nodes, a cache line apart: whether a thread writes one
};
constexpr int64_t kSharedNodes = 128;  // the last so many nodes, the root among them, stand in most paths
constexpr int64_t kLockBytes = 64;

constexpr int64_t kTokensPerBlock = 1024;

// So many windows share their negatives, one of each eighth of a block: see kernels/groups.h.
constexpr int kGroup = 8;
constexpr int64_t kGroupsPerBlock = kTokensPerBlock / kGroup;

// Scratch bytes that a skip-gram or CBOW kernel needs for one thread: words kept in a block and around it, negatives of
// all pairs of a few windows, the rows of a window, its coefficients and their signs, input rows under way.
constexpr int64_t kDrawnWindows = 4;  // of pairs with negatives of their own; a power of two
HOTROW_INLINE int64_t window_scratch_bytes(int64_t window, int64_t negative, int64_t cols) {
    const int64_t kept = kTokensPerBlock + 2 * window, inputs = 2 * window, outputs = 1 + negative;
    const int64_t drawn = kDrawnWindows * inputs * negative;
    return kept * 44 + drawn * 8 + inputs * (24 + outputs * 16 + cols * 8) + outputs * 8 + 4096;
}

// And for groups of windows: their negatives and all of their pairs, pooled rows and steps of CBOW.
HOTROW_INLINE int64_t group_scratch_bytes(int64_t window, int64_t negative, int64_t cols) {
    const int64_t inputs = kGroup * 2 * window, outputs = 1 + negative, rows = kTokensPerBlock + 2 * window;
    return kGroupsPerBlock * (negative + 2) * 8 + inputs * (24 + outputs * 16) + (outputs + rows) * 8 +
           2 * kGroup * (cols + 16) * 8 + 4096;
}

// The same for hierarchical softmax, with two copies of the shared nodes.
HOTROW_INLINE int64_t path_scratch_bytes(int64_t window, int64_t longest, int64_t cols) {
    return window_scratch_bytes(window, longest, cols) + 2 * kSharedNodes * (cols + 16) * 8;
}

struct Loss {
    double sum;
    int64_t terms;  // what it is the sum over: pairs of a centre and a context, of CBOW centres
};

}  // namespace hotrow
