// What the native tests share: numbers to work on, and how to fail.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <vector>

#include "view.h"

namespace hotrow {

inline int failures = 0;

inline void expect(bool ok, const char* what, int64_t a = 0, int64_t b = 0) {
    if (ok) return;
    if (++failures <= 20) std::printf("FAILED: %s (%lld, %lld)\n", what, static_cast<long long>(a), static_cast<long long>(b));
}

// Draws in [0, 1) and below n, the same everywhere.
struct Random {
    uint64_t state = 1;
    uint64_t next() {
        state = state * 6364136223846793005u + 1442695040888963407u;
        return state >> 33;
    }
    double real() { return double(next()) / double(uint64_t(1) << 31); }
    int64_t below(int64_t n) { return int64_t(next() % uint64_t(n)); }
};

// A matrix whose rows stand apart, with its own memory.
template <class T>
struct Rows {
    Rows(int64_t rows, int64_t cols) : data(size_t(rows * (cols + 3))), mat{data.data(), rows, cols, cols + 3} {}
    Rows(const Rows& other) : data(other.data), mat(other.mat) { mat.data = data.data(); }
    Rows& operator=(const Rows&) = delete;
    Mat<const T> view() const { return {mat.data, mat.rows, mat.cols, mat.stride}; }
    T& at(int64_t r, int64_t d) { return mat.row(r)[d]; }
    std::vector<T> data;
    Mat<T> mat;
};

}  // namespace hotrow
