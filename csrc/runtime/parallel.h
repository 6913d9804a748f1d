// Threads. The only file that names OpenMP.
#pragma once
#include <atomic>
#include <cstdint>

#include "view.h"
#if defined(_OPENMP)
#include <omp.h>
#endif

namespace hotrow {

// body(t) once for each t in 0 .. threads - 1, whatever number of threads the runtime grants. Must not throw.
template <class Body>
void parallel(int threads, const Body& body) {
    if (threads <= 1) return body(0);
#if defined(_OPENMP)
#pragma omp parallel for schedule(static, 1) num_threads(threads)
#endif
    for (int t = 0; t < threads; ++t) body(t);
}

// body(t, i) once for each i in 0 .. count - 1, in that order, on whichever of the threads t is free. Must not throw.
template <class Body>
void parallel_tasks(int64_t count, int threads, const Body& body) {
    std::atomic<int64_t> next{0};
    parallel(threads, [&](int t) {
        for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) body(t, i);
    });
}

// The t-th of `parts` nearly equal pieces of 0 .. n - 1.
inline Range piece(int64_t n, int t, int parts) {
    const int64_t size = n / parts, rest = n % parts;
    const int64_t begin = size * t + (t < rest ? t : rest);
    return {begin, begin + size + (t < rest)};
}

// Waking a thread costs microseconds; it pays from some 64 KiB of memory moved by each.
constexpr int64_t kBytesPerThread = 64 << 10;

// How many of `threads` a job that moves `bytes` should use.
inline int useful_threads(int64_t bytes, int threads) {
    const int64_t useful = bytes / kBytesPerThread;
    return useful < 1 ? 1 : useful < threads ? int(useful) : threads;
}

// body(range) on pieces of 0 .. n - 1, one for each thread that is worth its waking.
template <class Body>
void parallel_ranges(int64_t n, int64_t bytes, int threads, const Body& body) {
    const int parts = useful_threads(bytes, threads);
    parallel(parts, [&](int t) { body(piece(n, t, parts)); });
}

// Ends the calling thread's idle workers: a child forked after this starts its own. They come back when needed.
inline void release_threads() {
#if defined(_OPENMP)
    omp_pause_resource_all(omp_pause_hard);
#endif
}

// The OpenMP version this was built with, as yyyymm; 0 without.
inline int openmp_version() {
#if defined(_OPENMP)
    return _OPENMP;
#else
    return 0;
#endif
}

}  // namespace hotrow
