// hotrow._native: each operator takes checked arrays, then how many threads it may use. The GIL is released at work.
#include <pybind11/stl.h>

#include <atomic>
#include <optional>

#include "bindings/arrays.h"
#include "ops/embedding_bag.h"
#include "ops/gather.h"
#include "ops/optim.h"
#include "ops/scatter.h"
#include "ops/skipgram.h"

namespace hotrow {
namespace {

// The types of a call: F of the table, I of the indices.
#define HOTROW_TYPES(f, i)            \
    using F = typename decltype(f)::type; \
    using I = typename decltype(i)::type

void gather(const py::array& table, const py::array& indices, py::array out, int threads) {
    with_types(table, indices, [&](auto f, auto i) {
        HOTROW_TYPES(f, i);
        const auto t = matrix<F>(table);
        const auto* rows = vector<I>(indices);
        const auto o = writable_matrix<F>(out);
        const int64_t n = indices.size();
        py::gil_scoped_release nogil;
        plan::gather(t, rows, n, o, threads);
    });
}

bool embedding_bag(const py::array& table, const py::array& indices, const py::array& offsets,
                   const std::optional<py::array>& weights, int mode, int64_t padding_idx, py::array out, int threads) {
    return with_types(table, indices, [&](auto f, auto i) {
        HOTROW_TYPES(f, i);
        const auto t = matrix<F>(table);
        const Bags<F, I> bags{vector<I>(indices), vector<int64_t>(offsets), weights ? vector<F>(*weights) : nullptr,
                              padding_idx, Mode(mode)};
        const auto o = writable_matrix<F>(out);
        py::gil_scoped_release nogil;
        return plan::embedding_bag(t, bags, o.rows, o, threads);
    });
}

void scatter_add(const py::array& indices, const py::array& grads, double scale, py::array table, int threads) {
    with_types(table, indices, [&](auto f, auto i) {
        HOTROW_TYPES(f, i);
        const auto* rows = vector<I>(indices);
        const auto g = matrix<F>(grads);
        const auto t = writable_matrix<F>(table);
        py::gil_scoped_release nogil;
        plan::scatter_add(rows, g.rows, g, scale, t, threads);
    });
}

py::tuple coalesce(const py::array& indices, const py::array& grads, int threads) {
    return with_types(grads, indices, [&](auto f, auto i) -> py::tuple {
        HOTROW_TYPES(f, i);
        const auto* index = vector<I>(indices);
        const auto g = matrix<F>(grads);
        uint64_t highest = 0;
        for (int64_t k = 0; k < g.rows; ++k) highest |= uint64_t(index[k]);
        return plan::with_lookup_type(g.rows, highest, [&](auto type) -> py::tuple {
            const auto sorted = [&] {
                py::gil_scoped_release nogil;
                return plan::Coalesced<decltype(type)>(
                    index, g.rows, useful_threads(2 * g.rows * g.cols * int64_t(sizeof(F)), threads));
            }();
            py::array_t<I> rows(sorted.size());
            py::array_t<F> values({sorted.size(), g.cols});
            I* r = rows.mutable_data();
            const auto v = writable_matrix<F>(values);
            {
                py::gil_scoped_release nogil;
                sorted.fill(g, r, v);
            }
            return py::make_tuple(rows, values);
        });
    });
}

void sgd_step(const py::array& indices, const py::array& grads, double lr, py::array table, int threads) {
    with_types(table, indices, [&](auto f, auto i) {
        HOTROW_TYPES(f, i);
        const auto* rows = vector<I>(indices);
        const auto g = matrix<F>(grads);
        const auto t = writable_matrix<F>(table);
        py::gil_scoped_release nogil;
        plan::sgd_step(rows, g.rows, g, lr, t, threads);
    });
}

py::tuple skipgram_step(const py::array& centers, const py::array& contexts, const py::array& negatives, double lr,
                        py::array in_table, py::array out_table, int threads) {
    const Loss loss = with_types(in_table, centers, [&](auto f, auto i) {
        HOTROW_TYPES(f, i);
        const auto *c = vector<I>(centers), *x = vector<I>(contexts);
        const auto n = matrix<I>(negatives);
        const auto in = writable_matrix<F>(in_table), out = writable_matrix<F>(out_table);
        py::gil_scoped_release nogil;
        return plan::skipgram_step(c, x, n.rows, n, lr, in, out, threads);
    });
    return py::make_tuple(loss.sum, loss.pairs);
}

py::tuple skipgram_epoch(const py::array& tokens, const py::array& offsets, const py::array& keep,
                         const py::array& alias_accept, const py::array& alias_other, int64_t window, int64_t negative,
                         bool shrink_windows, double lr_begin, double lr_end, uint64_t seed, int64_t begin, int64_t end,
                         py::array in_table, py::array out_table, int threads) {
    const Loss loss = with_types(in_table, tokens, [&](auto f, auto i) {
        HOTROW_TYPES(f, i);
        const SkipGram<I> job{vector<I>(tokens),
                              vector<int64_t>(offsets),
                              offsets.size() - 1,
                              vector<uint32_t>(keep),
                              vector<uint32_t>(alias_accept),
                              vector<int32_t>(alias_other),
                              keep.size(),
                              window,
                              negative,
                              shrink_windows,
                              lr_begin,
                              lr_end,
                              seed};
        const auto in = writable_matrix<F>(in_table), out = writable_matrix<F>(out_table);
        py::gil_scoped_release nogil;
        return plan::skipgram_epoch(job, {begin, end}, in, out, threads);
    });
    return py::make_tuple(loss.sum, loss.pairs);
}

// The position of the first index outside [0, rows) in C order, or -1.
int64_t first_out_of_range(const py::array& indices, uint64_t rows, int threads) {
    return with_index(indices, [&](auto i) {
        using I = typename decltype(i)::type;
        const I* index = static_cast<const I*>(indices.data());
        const int64_t n = indices.size();
        // 32,768 indices take a thread 2 us, about what waking another costs: they count for a quarter of their bytes.
        const int64_t bytes = n * int64_t(sizeof(I)) / 4;
        std::optional<py::gil_scoped_release> nogil;
        if (useful_threads(bytes, threads) > 1) nogil.emplace();
        const auto all_below = kernels().get<float, I>().all_below;
        std::atomic<bool> good{true};
        parallel_ranges(n, bytes, threads, [&](Range range) {
            if (!all_below(index, range, rows)) good = false;
        });
        if (good) return int64_t(-1);
        int64_t k = 0;
        while (uint64_t(int64_t(index[k])) < rows) ++k;
        return k;
    });
}

// The first b with offsets[b] > offsets[b + 1], or -1.
int64_t first_descent(const py::array& offsets) {
    const int64_t* const o = vector<int64_t>(offsets);
    const int64_t n = offsets.size() - 1;
    uint64_t signs = 0;
    for (int64_t b = 0; b < n; ++b) signs |= uint64_t(o[b + 1]) | (uint64_t(o[b + 1]) - uint64_t(o[b]));
    if (signs >> 63 == 0) return -1;  // neither a negative offset nor a descent
    for (int64_t b = 0; b < n; ++b)
        if (o[b] > o[b + 1]) return b;
    return -1;
}

// Whether the memory between the first and the last byte of two arrays meets.
bool may_share_memory(const py::array& a, const py::array& b) {
    const auto bounds = [](const py::array& x) {
        const char* low = static_cast<const char*>(x.data());
        const char* high = low + x.itemsize();
        for (py::ssize_t axis = 0; axis < x.ndim(); ++axis) {
            if (x.shape(axis) == 0) return std::make_pair(low, low);
            const int64_t reach = (x.shape(axis) - 1) * x.strides(axis);
            (reach < 0 ? low : high) += reach;
        }
        return std::make_pair(low, high);
    };
    const auto [a_low, a_high] = bounds(a);
    const auto [b_low, b_high] = bounds(b);
    return a_low < b_high && b_low < a_high && a_low < a_high && b_low < b_high;
}

}  // namespace
}  // namespace hotrow

PYBIND11_MODULE(_native, m) {
    using namespace hotrow;
#define HOTROW_OP(name, signature) m.def(#name, &name);
#include "ops.def"
#undef HOTROW_OP
    std::vector<std::string> names;
#define HOTROW_OP(name, signature) names.push_back(#name);
#include "ops.def"
#undef HOTROW_OP
    m.attr("OPS") = py::tuple(py::cast(names));

    m.def("first_out_of_range", &first_out_of_range);
    m.def("first_descent", &first_descent);
    m.def("may_share_memory", &may_share_memory);
    m.def("release_threads", &release_threads);
    m.def("built_isas", &built_isas);
    m.def("supported_isas", &supported_isas);
    m.def("use_isa", &use_isa);
    m.def("isa", [] { return std::string(kernels().isa); });
    m.attr("compiler") = HOTROW_COMPILER;
    m.attr("openmp") = openmp_version();
    m.attr("tokens_per_block") = kTokensPerBlock;
}
