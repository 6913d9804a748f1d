// Who sums which row. Lookups are sorted by row, so that each row that was looked up is one run of them; threads take
// pieces of about as many lookups, no run in two. A run of more than kChunk lookups is summed in chunks by all threads
// first. No atomics, and the same bits for any number of threads. Scratch and time grow with the lookups, never with R.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "runtime/cpu.h"
#include "runtime/memory.h"
#include "runtime/parallel.h"
#include "runtime/pooling.h"
#include "view.h"

namespace hotrow {

// What a gradient operator is called with. X: dtype of the indices.
template <class F, class X>
struct Pooled {
    Bags<F, X> bags;         // offsets may be null: every lookup is a bag of its own
    int64_t lookups, count;  // how many, and of bags
    Mat<const int32_t> argmax;
    Mat<const F> grads;
    bool by_frequency;  // divide by the number of lookups of the row

    // body(row, bag, lookup) for lookups `range` but those of the padding row, in order.
    template <class Body>
    HOTROW_INLINE void each(Range range, const Body& body) const {
        if (range.begin == range.end) return;
        int64_t bag = range.begin, bag_end = range.end;
        if (bags.offsets) {
            bag = std::upper_bound(bags.offsets, bags.offsets + count, range.begin) - bags.offsets - 1;
            bag_end = bags.offsets[bag + 1];
        }
        for (int64_t j = range.begin; j < range.end; ++j) {
            if (!bags.offsets) bag = j;
            else
                while (j == bag_end) bag_end = bags.offsets[++bag + 1];
            const X row = bags.indices[j];
            if (int64_t(row) != bags.padding_idx) body(row, bag, j);
        }
    }
};

namespace detail {

inline int bit_width(uint64_t x) {
    int bits = 0;
    for (; x; x >>= 1) ++bits;
    return bits;
}

// One stable pass of a parallel radix sort: source(range, body) calls body(entry) for entries of `range`, in order; they
// go to `target` by the `digit` bits of their row above `shift`. Returns how many there were.
template <class I, class Source>
int64_t radix_pass(const Source& source, int64_t n, int shift, int digit, int threads, Lookup<I>* target) {
    const size_t bins = size_t(1) << digit;
    const uint64_t mask = bins - 1;
    Buffer<I> counts(threads * int64_t(bins));
    I* const next = counts.get();
    std::fill(next, next + size_t(threads) * bins, I(0));
    parallel(threads, [&](int t) {
        I* const mine = next + size_t(t) * bins;
        source(piece(n, t, threads), [=](Lookup<I> x) { ++mine[(uint64_t(x.row) >> shift) & mask]; });
    });
    I sum = 0;
    for (size_t b = 0; b < bins; ++b)
        for (int t = 0; t < threads; ++t) sum += std::exchange(next[size_t(t) * bins + b], sum);
    parallel(threads, [&](int t) {
        I* const mine = next + size_t(t) * bins;
        source(piece(n, t, threads), [=](Lookup<I> x) { target[mine[(uint64_t(x.row) >> shift) & mask]++] = x; });
    });
    return sum;
}

}  // namespace detail

// The most bits of a digit: two passes for a table of 4 million rows. Tables of 2,048 counts stay in the first cache.
constexpr int kDigitBits = 11;

// So many lookups are sorted by comparing each with all, in half the time of passes. Row and place share an int32_t.
constexpr int kPlaceBits = 6;
constexpr int64_t kFewLookups = 1 << kPlaceBits;

// The runs of a gradient operator's lookups. I: int32_t where rows and positions fit it, they sort in half the memory.
template <class F, class I>
class Runs {
public:
    // rows: more than any index.
    template <class X>
    Runs(const Pooled<F, X>& pooled, uint64_t rows, int threads)
        : threads_(threads),
          entries_(pooled.lookups),
          cols_(pooled.grads.cols),
          padded_((cols_ * int64_t(sizeof(F)) + 127) / 64 * 64 / int64_t(sizeof(F))),
          scratch_(threads * padded_) {
        const bool weighted = pooled.bags.weights || pooled.bags.mode == Mode::max;
        sort(pooled, detail::bit_width(rows ? rows - 1 : 0), weighted);
        gradient_ = {pooled.grads, nullptr, nullptr, pooled.argmax};
        if (weighted || pooled.bags.mode != Mode::sum || pooled.by_frequency) attach(pooled, weighted);
        cut();
        sum_chunks();
    }

    // body(lookups, gradient, range, first run, scratch [D]) for every piece, each thread its own.
    template <class Body>
    void each(const Body& body) {
        parallel_tasks(int64_t(pieces_.size()), threads_, [&](int t, int64_t p) {
            const Piece& piece = pieces_[size_t(p)];
            F* const scratch = scratch_.get() + t * padded_;
            if (piece.split) body(split_.data(), sums_gradient(), piece.range, piece.first_run, scratch);
            else body(entries_.get(), gradient_, piece.range, piece.first_run, scratch);
        });
    }

    // Numbers the runs by ascending row, for `first run`. Returns how many there are.
    int64_t number() {
        std::vector<int64_t> counts(pieces_.size(), 1);
        parallel_tasks(int64_t(pieces_.size()), threads_, [&](int, int64_t p) {
            const Piece& piece = pieces_[size_t(p)];
            if (piece.split) return;
            for (int64_t i = piece.range.begin + 1; i < piece.range.end; ++i)
                counts[size_t(p)] += entries_[i].row != entries_[i - 1].row;
        });
        int64_t runs = 0;
        for (size_t p = 0; p < pieces_.size(); ++p) pieces_[p].first_run = std::exchange(runs, runs + counts[p]);
        return runs;
    }

private:
    struct Piece {
        Range range;  // of entries_, or of split_ if `split`: one run of chunks
        bool split;
        int64_t first_run;
    };

    // Whether the lookups come in order, as those of a coalesced gradient do: they are then entries_. Others are nearly
    // always found out by the first of them.
    template <class Source, class X>
    bool ascending(const Source& source, const X* indices, int64_t n) {
        constexpr int64_t few = 1024;
        if (!std::is_sorted(indices, indices + std::min<int64_t>(n, 64))) return false;
        std::atomic<bool> all{true};
        parallel(threads_, [&](int t) {
            const Range mine = piece(n, t, threads_);
            for (int64_t begin = mine.begin; begin < mine.end && all; begin += few) {
                const Range part{begin, std::min(begin + few, mine.end)};
                if (!std::is_sorted(indices + std::max<int64_t>(begin - 1, 0), indices + part.end)) all = false;
                else source(part, [to = entries_.get() + begin](Lookup<I> x) mutable { *to++ = x; });
            }
        });
        size_ = n;
        return all;
    }

    template <class X>
    void sort(const Pooled<F, X>& pooled, int bits, bool by_lookup) {
        const int64_t n = pooled.lookups;
        const auto first = [&](Range range, auto&& body) {
            if (by_lookup) pooled.each(range, [&](X row, int64_t, int64_t j) { body(Lookup<I>{I(row), I(j)}); });
            else pooled.each(range, [&](X row, int64_t bag, int64_t) { body(Lookup<I>{I(row), I(bag)}); });
        };
        if (pooled.bags.padding_idx < 0 && ascending(first, pooled.bags.indices, n)) return;
        if (n <= kFewLookups && bits + kPlaceBits < 32) return sort_few(first, n);
        const int most = std::min(kDigitBits, detail::bit_width(uint64_t(n) | 1));  // few lookups, few counts
        const int passes = std::max(1, (bits + most - 1) / most), digit = (bits + passes - 1) / passes;
        Buffer<Lookup<I>> spare(passes > 1 ? n : 0);
        Lookup<I>*to = passes % 2 ? entries_.get() : spare.get(), *from = passes % 2 ? spare.get() : entries_.get();
        size_ = detail::radix_pass<I>(first, n, 0, digit, threads_, to);
        for (int pass = 1; pass < passes; ++pass) {
            std::swap(from, to);
            const Lookup<I>* const sorted = from;
            const auto again = [sorted](Range range, auto&& body) {
                for (int64_t i = range.begin; i < range.end; ++i) body(sorted[i]);
            };
            detail::radix_pass<I>(again, size_, pass * digit, digit, threads_, to);
        }
    }

    template <class Source>
    void sort_few(const Source& source, int64_t n) {
        Lookup<I> given[kFewLookups];
        int32_t keys[kFewLookups];
        std::fill(keys, keys + kFewLookups, std::numeric_limits<int32_t>::max());  // after all rows
        source(Range{0, n}, [&](Lookup<I> x) {
            keys[size_] = int32_t(x.row) << kPlaceBits | int32_t(size_);
            given[size_++] = x;
        });
        for (int64_t i = 0; i < size_; ++i) {
            int32_t place = 0;
            for (const int32_t key : keys) place += key < keys[i];
            entries_[place] = given[i];
        }
    }

    // The end of the run that lookup i is part of. Reads rows alone: another thread may be at work on the positions.
    int64_t run_end(int64_t i) const {
        const I row = entries_[i].row;
        int64_t end = i + 1;
        for (int64_t step = 1; end < size_ && entries_[end].row == row; step *= 2) end = std::min(end + step, size_);
        return std::upper_bound(entries_.get() + i, entries_.get() + end, row,
                                [](I a, const Lookup<I>& b) { return a < b.row; }) - entries_.get();
    }
    int64_t run_begin(int64_t i) const {
        return std::lower_bound(entries_.get(), entries_.get() + i, entries_[i].row,
                                [](const Lookup<I>& a, I b) { return a.row < b; }) - entries_.get();
    }

    // Factors and places of the sorted lookups. If by_lookup, their positions are lookups and become bags.
    template <class X>
    void attach(const Pooled<F, X>& pooled, bool by_lookup) {
        const Bags<F, X>& bags = pooled.bags;
        const bool max = bags.mode == Mode::max, scaled = bags.mode == Mode::mean || bags.mode == Mode::sqrtn;
        Buffer<F> of_bag(scaled ? pooled.count : 0);
        Buffer<I> bag_of(by_lookup && bags.offsets ? pooled.lookups : 0);
        parallel(threads_, [&](int t) {
            const Range mine = piece(pooled.count, t, threads_);
            for (int64_t b = mine.begin; b < mine.end && bags.offsets; ++b) {
                if (scaled) of_bag[b] = bag_factor(bags, bags.offsets[b], bags.offsets[b + 1]);
                for (int64_t j = bags.offsets[b]; j < bags.offsets[b + 1] && by_lookup; ++j) bag_of[j] = I(b);
            }
        });
        factors_ = Buffer<F>(size_);
        if (max) places_ = Buffer<int32_t>(size_);
        parallel(threads_, [&](int t) {
            const Range mine = piece(size_, t, threads_);
            for (int64_t i = mine.begin; i < mine.end; ++i) {
                const I j = entries_[i].position, b = by_lookup && bags.offsets ? bag_of[j] : j;
                F factor = bags.weights ? bags.weights[j] : F(1);
                if (scaled) factor *= of_bag[b];
                factors_[i] = factor;
                if (max) places_[i] = int32_t(j - bags.offsets[b]);
                entries_[i].position = b;
            }
            for (int64_t i = mine.begin; i < mine.end && pooled.by_frequency;) {
                const int64_t end = run_end(i);
                const F share = F(1) / F(end - (i == mine.begin ? run_begin(i) : i));
                for (; i < std::min(end, mine.end); ++i) factors_[i] *= share;
            }
        });
        gradient_.factors = factors_.get();
        if (max) gradient_.places = places_.get();
    }

    // Pieces in ascending order of rows: the long runs, and what is between them in parts of a sixteenth of a thread's
    // share: lookups of many rows cost several times those of few.
    void cut() {
        const int64_t target = std::max<int64_t>(256, size_ / (int64_t(threads_) * 16));
        int64_t begin = 0;
        const auto add_between = [&](int64_t end) {
            while (begin < end) {
                int64_t stop = begin + target;
                stop = stop < end ? std::min(run_end(stop - 1), end) : end;
                pieces_.push_back({{begin, stop}, false, 0});
                begin = stop;
            }
        };
        // A longer run covers two consecutive multiples of half a chunk.
        for (int64_t i = kChunk / 2; i < size_; i += kChunk / 2) {
            if (i < begin || entries_[i].row != entries_[i - kChunk / 2].row) continue;
            const int64_t first = run_begin(i), end = run_end(i);
            if (end - first <= kChunk) continue;
            add_between(first);
            const int64_t first_chunk = int64_t(split_.size());
            for (; begin < end; begin = std::min(begin + kChunk, end)) {
                chunks_.push_back({begin, std::min(begin + kChunk, end)});
                split_.push_back({entries_[first].row, I(split_.size())});
            }
            pieces_.push_back({{first_chunk, int64_t(split_.size())}, true, 0});
        }
        add_between(size_);
    }

    // The sum of each chunk, a row of sums_.
    void sum_chunks() {
        if (chunks_.empty()) return;
        const int64_t count = int64_t(chunks_.size());
        sums_ = Buffer<F>(count * cols_);
        const auto kernel = kernels().get<F, I>().coalesce;
        parallel_tasks(count, threads_, [&](int, int64_t c) {
            kernel(entries_.get(), gradient_, chunks_[size_t(c)], {sums_.get() + c * cols_, 1, cols_, cols_});
        });
    }
    Gradient<F> sums_gradient() const {
        return {{sums_.get(), int64_t(chunks_.size()), cols_, cols_}, nullptr, nullptr, {}};
    }

    int threads_;
    Buffer<Lookup<I>> entries_;
    int64_t size_ = 0;  // lookups without padding
    int64_t cols_, padded_;
    Buffer<F> scratch_;  // for each thread a row, in cache lines of its own
    Buffer<F> factors_{0};
    Buffer<int32_t> places_{0};
    Gradient<F> gradient_{};
    std::vector<Piece> pieces_;
    std::vector<Range> chunks_;
    std::vector<Lookup<I>> split_;  // a lookup for each chunk
    Buffer<F> sums_{0};
};

}  // namespace hotrow
