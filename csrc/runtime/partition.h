// Who owns which row. Gradient operators give every row to one thread, which adds its gradients in ascending position:
// no atomics, and the same bits for any number of threads. Scratch and time grow with the lookups, never with R.
#pragma once
#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "runtime/memory.h"
#include "runtime/parallel.h"
#include "view.h"

namespace hotrow {

// Lookups in the order of their owners: thread t has entries bounds[t] .. bounds[t + 1] - 1.
template <class I>
struct Partition {
    Buffer<Lookup<I>> entries;
    std::vector<int64_t> bounds;
    int threads() const { return int(bounds.size()) - 1; }
    Range of(int t) const { return {bounds[size_t(t)], bounds[size_t(t) + 1]}; }
};

namespace detail {

inline int bit_width(uint64_t x) {
    int bits = 0;
    for (; x; x >>= 1) ++bits;
    return bits;
}

// Stable parallel distribution of (indices[i], i) into `bins`. Returns where each bin starts. bins_of(counts) sees how
// many lookups each of the `buckets` of bucket_of(row) has, and returns the bin of each bucket.
template <class X, class I, class BucketOf, class BinsOf>
std::vector<int64_t> distribute(const X* indices, int64_t n, int threads, int buckets, const BucketOf& bucket_of,
                                int bins, const BinsOf& bins_of, Lookup<I>* entries) {
    std::vector<int64_t> counts(size_t(threads) * size_t(buckets));
    parallel(threads, [&](int t) {
        int64_t* mine = counts.data() + int64_t(t) * buckets;
        const Range range = piece(n, t, threads);
        for (int64_t i = range.begin; i < range.end; ++i) ++mine[bucket_of(indices[i])];
    });
    std::vector<int64_t> totals(static_cast<size_t>(buckets));
    for (int t = 0; t < threads; ++t)
        for (int b = 0; b < buckets; ++b) totals[size_t(b)] += counts[size_t(t) * size_t(buckets) + size_t(b)];
    const std::vector<int> bin = bins_of(totals);

    std::vector<int64_t> next(size_t(threads) * size_t(bins)), starts(size_t(bins) + 1);
    for (int t = 0; t < threads; ++t)
        for (int b = 0; b < buckets; ++b)
            next[size_t(t) * size_t(bins) + size_t(bin[size_t(b)])] += counts[size_t(t) * size_t(buckets) + size_t(b)];
    int64_t sum = 0;
    for (int b = 0; b < bins; ++b) {
        starts[size_t(b)] = sum;
        for (int t = 0; t < threads; ++t) sum += std::exchange(next[size_t(t) * size_t(bins) + size_t(b)], sum);
    }
    starts[size_t(bins)] = sum;
    parallel(threads, [&](int t) {
        int64_t* mine = next.data() + int64_t(t) * bins;
        const Range range = piece(n, t, threads);
        for (int64_t i = range.begin; i < range.end; ++i)
            entries[mine[bin[size_t(bucket_of(indices[i]))]]++] = {I(indices[i]), I(i)};
    });
    return starts;
}

// Consecutive buckets to threads, so that each has about the same number of lookups.
inline std::vector<int> balance(const std::vector<int64_t>& counts, int64_t n, int threads) {
    std::vector<int> owner(counts.size());
    int64_t before = 0;
    for (size_t b = 0; b < counts.size(); ++b) {
        owner[b] = int(std::min<int64_t>((before + counts[b] / 2) * threads / std::max<int64_t>(n, 1), threads - 1));
        before += counts[b];
    }
    return owner;
}

// Sorts lookups by the low `bits` of their rows, keeping equal rows in order: byte by byte, least significant first.
// The result stands in `entries`; `spare` is as large.
template <class I>
void sort_rows(Lookup<I>* entries, Lookup<I>* spare, int64_t n, int bits) {
    if (n < 32) {
        for (int64_t i = 1; i < n; ++i) {
            const Lookup<I> x = entries[i];
            int64_t j = i;
            for (; j > 0 && entries[j - 1].row > x.row; --j) entries[j] = entries[j - 1];
            entries[j] = x;
        }
        return;
    }
    Lookup<I>*from = entries, *to = spare;
    for (int shift = 0; shift < bits; shift += 8) {
        int64_t next[256] = {};
        for (int64_t i = 0; i < n; ++i) ++next[(uint64_t(from[i].row) >> shift) & 255];
        int64_t sum = 0;
        for (int64_t& start : next) sum += std::exchange(start, sum);
        for (int64_t i = 0; i < n; ++i) to[next[(uint64_t(from[i].row) >> shift) & 255]++] = from[i];
        std::swap(from, to);
    }
    if (from != entries) std::copy(from, from + n, entries);
}

}  // namespace detail

constexpr int kBucketBits = 10;

// Lookups by owner, those of one owner in ascending position. Hot rows are spread: the bucket is the row's low bits.
template <class I, class X>
Partition<I> partition_by_owner(const X* indices, int64_t n, int threads) {
    constexpr int buckets = 1 << kBucketBits;
    Partition<I> result{Buffer<Lookup<I>>(n), {0, n}};
    if (threads <= 1) {
        for (int64_t i = 0; i < n; ++i) result.entries[i] = {I(indices[i]), I(i)};
        return result;
    }
    result.bounds = detail::distribute(
        indices, n, threads, buckets, [](X row) { return int(uint64_t(row) % buckets); }, threads,
        [&](const std::vector<int64_t>& counts) { return detail::balance(counts, n, threads); }, result.entries.get());
    return result;
}

// Lookups by ascending row, those of one row in ascending position; no row has two owners.
template <class I, class X>
Partition<I> partition_sorted(const X* indices, int64_t n, int threads) {
    uint64_t highest = 0;
    for (int64_t i = 0; i < n; ++i) highest |= uint64_t(indices[i]);
    // Some 16 lookups a bucket, so that a small call does not pay for empty buckets.
    const int bits = detail::bit_width(highest);
    const int bucket_bits = std::min({bits, kBucketBits, std::max(0, detail::bit_width(uint64_t(n)) - 4)});
    const int shift = bits - bucket_bits, buckets = 1 << bucket_bits;
    Partition<I> result{Buffer<Lookup<I>>(n), {}};
    Buffer<Lookup<I>> spare(n);
    std::vector<int> owner;
    const std::vector<int64_t> starts = detail::distribute(
        indices, n, threads, buckets, [shift](X row) { return int(uint64_t(row) >> shift); }, buckets,
        [&](const std::vector<int64_t>& counts) {
            owner = detail::balance(counts, n, threads);
            std::vector<int> itself(counts.size());
            for (size_t b = 0; b < itself.size(); ++b) itself[b] = int(b);
            return itself;
        },
        result.entries.get());
    result.bounds.assign(size_t(threads) + 1, n);
    for (int b = buckets - 1; b >= 0; --b)
        for (int t = owner[size_t(b)]; t >= 0 && result.bounds[size_t(t)] > starts[size_t(b)]; --t)
            result.bounds[size_t(t)] = starts[size_t(b)];
    parallel(threads, [&](int t) {
        for (int b = 0; b < buckets; ++b)
            if (owner[size_t(b)] == t)
                detail::sort_rows(result.entries.get() + starts[size_t(b)], spare.get() + starts[size_t(b)],
                                  starts[size_t(b) + 1] - starts[size_t(b)], shift);
    });
    return result;
}

}  // namespace hotrow
