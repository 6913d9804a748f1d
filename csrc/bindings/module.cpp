// hotrow._native: each operator takes checked arrays, then how many threads it may use. The GIL is released at work.
#include <pybind11/stl.h>

#include <optional>

#include "bindings/plain.h"
#include "bindings/text.h"
#include "ops/cbow.h"
#include "ops/embedding_bag.h"
#include "ops/gather.h"
#include "ops/hierarchical.h"
#include "ops/optim.h"
#include "ops/scatter.h"
#include "ops/skipgram.h"

namespace hotrow {
namespace {

// The types of a call: E of the table, F of its arithmetic, I of the indices.
#define HOTROW_TYPES(e, i)                \
    using E = typename decltype(e)::type; \
    using F [[maybe_unused]] = real<E>;   \
    using I = typename decltype(i)::type

using Optional = std::optional<py::array>;

template <class T>
const T* vector_or_null(const Optional& a) {
    return a ? vector<T>(*a) : nullptr;
}

void gather(const py::array& table, const py::array& indices, const Optional& scales, py::array out, int threads) {
    with_any_types(table, indices, [&](auto e, auto i) {
        HOTROW_TYPES(e, i);
        const auto t = matrix<E>(table);
        const auto* rows = vector<I>(indices);
        const float* const s = vector_or_null<float>(scales);
        const auto o = writable_matrix<gathered<E>>(out);
        const int64_t n = indices.size();
        py::gil_scoped_release nogil;
        plan::gather<E>(t, rows, s, n, o, threads);
    });
}

template <class T>
Mat<T> writable_or_empty(Optional& a) {
    return a ? writable_matrix<T>(*a) : Mat<T>{};
}

// The arguments that all gradient operators begin with, and those that end their lookups.
#define HOTROW_LOOKUPS                                                                                       \
    const py::array &indices, const Optional &offsets, const Optional &weights, const Optional &argmax, \
        const py::array &grads
#define HOTROW_POOLING int mode, int64_t padding_idx

template <class F, class I>
Pooled<F, I> pooled(HOTROW_LOOKUPS, HOTROW_POOLING, bool by_frequency = false) {
    const auto g = matrix<F>(grads);
    return {{vector<I>(indices), vector_or_null<int64_t>(offsets), vector_or_null<F>(weights), padding_idx, Mode(mode),
             {}, nullptr},
            indices.size(),
            g.rows,
            argmax ? matrix<int32_t>(*argmax) : Mat<const int32_t>{},
            g,
            by_frequency};
}

bool embedding_bag(const py::array& table, const py::array& indices, const py::array& offsets, const Optional& scales,
                   const Optional& weights, Optional argmax, py::array out, HOTROW_POOLING, int threads) {
    return with_any_types(table, indices, [&](auto e, auto i) {
        HOTROW_TYPES(e, i);
        const auto t = matrix<E>(table);
        const Bags<F, I> bags{vector<I>(indices),   vector<int64_t>(offsets), vector_or_null<F>(weights),
                              padding_idx,          Mode(mode),               writable_or_empty<int32_t>(argmax),
                              vector_or_null<float>(scales)};
        if constexpr (sizeof(E) == 2)
            if (out.itemsize() == 2) {
                const auto o = writable_matrix<E>(out);
                py::gil_scoped_release nogil;
                return plan::embedding_bag_rounded(t, bags, o.rows, o, threads);
            }
        const auto o = writable_matrix<F>(out);
        py::gil_scoped_release nogil;
        return plan::embedding_bag<E>(t, bags, o.rows, o, threads);
    });
}

void weights_grad(const py::array& table, const py::array& indices, const py::array& offsets, const Optional& weights,
                  const Optional& argmax, const py::array& grads, py::array out, HOTROW_POOLING, int threads) {
    with_types(table, indices, [&](auto e, auto i) {
        HOTROW_TYPES(e, i);
        const auto t = matrix<E>(table);
        const Pooled<F, I> p = pooled<F, I>(indices, offsets, weights, argmax, grads, mode, padding_idx);
        F* const o = writable_vector<F>(out);
        py::gil_scoped_release nogil;
        plan::weights_grad<E>(t, p.bags, p.count, Gradient<F>{p.grads, nullptr, nullptr, p.argmax}, o, threads);
    });
}

void scatter_add(HOTROW_LOOKUPS, py::array table, HOTROW_POOLING, double scale, int threads) {
    with_types(table, indices, [&](auto e, auto i) {
        HOTROW_TYPES(e, i);
        const auto p = pooled<F, I>(indices, offsets, weights, argmax, grads, mode, padding_idx);
        const auto t = writable_matrix<E>(table);
        py::gil_scoped_release nogil;
        plan::scatter_add<E>(p, scale, t, threads);
    });
}

py::tuple coalesce(HOTROW_LOOKUPS, HOTROW_POOLING, int threads) {
    return with_floats(grads, indices, [&](auto e, auto i) -> py::tuple {
        HOTROW_TYPES(e, i);
        const auto p = pooled<F, I>(indices, offsets, weights, argmax, grads, mode, padding_idx);
        py::array_t<I> rows;
        py::array values;
        {
            py::gil_scoped_release nogil;
            plan::coalesce(
                p,
                [&](int64_t size) {
                    py::gil_scoped_acquire gil;
                    rows = py::array_t<I>(size);
                    values = result({size, p.grads.cols}, py::dtype::of<F>());
                    return std::make_pair(rows.mutable_data(), writable_matrix<F>(values));
                },
                threads);
        }
        return py::make_tuple(rows, values);
    });
}

// The options that all steps share, see hotrow.steps.StepOptions.
#define HOTROW_OPTIONS \
    bool by_frequency, double clip_norm, double clip_value, double weight_decay, bool decoupled, double max_norm, \
        bool stochastic, uint64_t key

// body(pooled, options, table) with the GIL released.
template <class Body>
void step(HOTROW_LOOKUPS, py::array& table, HOTROW_POOLING, HOTROW_OPTIONS, const Body& body) {
    with_types(table, indices, [&](auto e, auto i) {
        HOTROW_TYPES(e, i);
        const auto p = pooled<F, I>(indices, offsets, weights, argmax, grads, mode, padding_idx, by_frequency);
        const plan::StepOptions options{clip_norm, clip_value, weight_decay, decoupled, max_norm, {stochastic, key}};
        body(type_tag<F>{}, p, options, writable_matrix<E>(table));
    });
}
#define HOTROW_STEP indices, offsets, weights, argmax, grads, table, mode, padding_idx, by_frequency, clip_norm, \
                    clip_value, weight_decay, decoupled, max_norm, stochastic, key

void sgd_step(HOTROW_LOOKUPS, Optional momentum_buffer, py::array table, HOTROW_POOLING, HOTROW_OPTIONS, double lr,
              double momentum, bool nesterov, int threads) {
    step(HOTROW_STEP, [&](auto f, auto& p, auto& options, auto t) {
        const auto buffer = writable_or_empty<typename decltype(f)::type>(momentum_buffer);
        py::gil_scoped_release nogil;
        plan::sgd_step(p, options, lr, momentum, nesterov, buffer, t, threads);
    });
}

void adagrad_step(HOTROW_LOOKUPS, py::array state_sum, py::array table, HOTROW_POOLING, HOTROW_OPTIONS, double lr,
                  double eps, int threads) {
    step(HOTROW_STEP, [&](auto f, auto& p, auto& options, auto t) {
        const auto sum = writable_matrix<typename decltype(f)::type>(state_sum);
        py::gil_scoped_release nogil;
        plan::adagrad_step(p, options, lr, eps, sum, t, threads);
    });
}

void rowwise_adagrad_step(HOTROW_LOOKUPS, py::array state_sum, py::array table, HOTROW_POOLING, HOTROW_OPTIONS,
                          double lr, double eps, int threads) {
    step(HOTROW_STEP, [&](auto f, auto& p, auto& options, auto t) {
        auto* const sum = writable_vector<typename decltype(f)::type>(state_sum);
        py::gil_scoped_release nogil;
        plan::rowwise_adagrad_step(p, options, lr, eps, sum, t, threads);
    });
}

void rmsprop_step(HOTROW_LOOKUPS, py::array square_avg, py::array table, HOTROW_POOLING, HOTROW_OPTIONS, double lr,
                  double alpha, double eps, int threads) {
    step(HOTROW_STEP, [&](auto f, auto& p, auto& options, auto t) {
        const auto average = writable_matrix<typename decltype(f)::type>(square_avg);
        py::gil_scoped_release nogil;
        plan::rmsprop_step(p, options, lr, alpha, eps, average, t, threads);
    });
}

void adam_step(HOTROW_LOOKUPS, py::array exp_avg, py::array exp_avg_sq, Optional row_steps, py::array table,
               HOTROW_POOLING, HOTROW_OPTIONS, double lr, double beta1, double beta2, double rate, double eps,
               const Optional& corrections, int threads) {
    step(HOTROW_STEP, [&](auto f, auto& p, auto& options, auto t) {
        using F = typename decltype(f)::type;
        const AdamRule<F> rule{F(beta1), F(beta2), F(1 - beta1), F(1 - beta2), F(rate), F(eps),
                               corrections ? matrix<F>(*corrections) : Mat<const F>{}};
        const auto first = writable_matrix<F>(exp_avg), second = writable_matrix<F>(exp_avg_sq);
        int32_t* const steps = row_steps ? writable_vector<int32_t>(*row_steps) : nullptr;
        py::gil_scoped_release nogil;
        plan::adam_step(p, options, lr, rule, first, second, steps, t, threads);
    });
}

py::tuple skipgram_step(const py::array& centers, const py::array& contexts, const py::array& negatives, double lr,
                        py::array in_table, py::array out_table, int threads) {
    const Loss loss = with_floats(in_table, centers, [&](auto e, auto i) {
        HOTROW_TYPES(e, i);
        const auto *c = vector<I>(centers), *x = vector<I>(contexts);
        const auto n = matrix<I>(negatives);
        const auto in = writable_matrix<F>(in_table), out = writable_matrix<F>(out_table);
        py::gil_scoped_release nogil;
        return plan::skipgram_step(c, x, n.rows, n, lr, in, out, threads);
    });
    return py::make_tuple(loss.sum, loss.terms);
}

// The arguments that all epochs begin with, those of their outputs, and those that end them.
#define HOTROW_EPOCH_WORDS const py::array &tokens, const py::array &offsets, const py::array &keep
#define HOTROW_EPOCH_SETTINGS \
    bool shrink_windows, double lr_begin, double lr_end, uint64_t seed, int64_t begin, int64_t end
#define HOTROW_EPOCH_NEGATIVES                                                                             \
    HOTROW_EPOCH_WORDS, const py::array &alias_accept, const py::array &alias_other, int64_t window, int64_t negative, \
        HOTROW_EPOCH_SETTINGS
#define HOTROW_EPOCH_PATHS                                                                                  \
    HOTROW_EPOCH_WORDS, const py::array &path_offsets, const py::array &points, const py::array &codes, \
        int64_t window, int64_t longest, HOTROW_EPOCH_SETTINGS
#define HOTROW_EPOCH_TABLES py::array in_table, py::array out_table, [[maybe_unused]] int threads

// pass(job, tokens, in_table, out_table) -> Loss, without the GIL. alias_accept and alias_other may be null.
template <class Pass>
py::tuple epoch(HOTROW_EPOCH_WORDS, const uint32_t* alias_accept, const int32_t* alias_other, int64_t window,
                int64_t negative, HOTROW_EPOCH_SETTINGS, bool shared_negatives, py::array& in_table,
                py::array& out_table, int threads, const Pass& pass) {
    const Range range{begin, end};
    const Words words = with_index(tokens, [&](auto i) { return Words(vector<typename decltype(i)::type>(tokens)); });
    const Epoch job{words,        vector<int64_t>(offsets), offsets.size() - 1, vector<uint32_t>(keep),
                    alias_accept, alias_other,              keep.size(),        window,
                    negative,     shared_negatives,         shrink_windows,     lr_begin,
                    lr_end,       seed,                     plan::epoch_threads(range, threads)};
    const Loss loss = with_float(in_table, [&](auto f) {
        using F = typename decltype(f)::type;
        const auto in = writable_matrix<F>(in_table), out = writable_matrix<F>(out_table);
        py::gil_scoped_release nogil;
        return pass(job, range, in, out);
    });
    return py::make_tuple(loss.sum, loss.terms);
}
#define HOTROW_SETTINGS_VALUES shrink_windows, lr_begin, lr_end, seed, begin, end
#define HOTROW_NEGATIVES_VALUES                                                                                  \
    tokens, offsets, keep, vector<uint32_t>(alias_accept), vector<int32_t>(alias_other), window, negative, \
        HOTROW_SETTINGS_VALUES
#define HOTROW_PATHS_VALUES \
    tokens, offsets, keep, nullptr, nullptr, window, 0, HOTROW_SETTINGS_VALUES, false, in_table, out_table, threads

py::tuple skipgram_epoch(HOTROW_EPOCH_NEGATIVES, bool shared_negatives, HOTROW_EPOCH_TABLES) {
    const auto pass = [&](const Epoch& job, Range range, auto in, auto out) {
        return plan::skipgram_epoch(job, range, in, out);
    };
    return epoch(HOTROW_NEGATIVES_VALUES, shared_negatives, in_table, out_table, threads, pass);
}

py::tuple cbow_epoch(HOTROW_EPOCH_NEGATIVES, bool cbow_mean, HOTROW_EPOCH_TABLES) {
    const auto pass = [&](const Epoch& job, Range range, auto in, auto out) {
        return plan::cbow_epoch(job, cbow_mean, range, in, out);
    };
    return epoch(HOTROW_NEGATIVES_VALUES, true, in_table, out_table, threads, pass);
}

Paths paths_of(const py::array& path_offsets, const py::array& points, const py::array& codes, int64_t longest) {
    return {vector<int64_t>(path_offsets), vector<int32_t>(points), vector<uint8_t>(codes), longest};
}

py::tuple skipgram_hs_epoch(HOTROW_EPOCH_PATHS, HOTROW_EPOCH_TABLES) {
    const Paths paths = paths_of(path_offsets, points, codes, longest);
    return epoch(HOTROW_PATHS_VALUES, [&](const Epoch& job, Range range, auto in, auto out) {
        return plan::skipgram_hs_epoch(job, paths, range, in, out);
    });
}

py::tuple cbow_hs_epoch(HOTROW_EPOCH_PATHS, bool cbow_mean, HOTROW_EPOCH_TABLES) {
    const Paths paths = paths_of(path_offsets, points, codes, longest);
    return epoch(HOTROW_PATHS_VALUES, [&](const Epoch& job, Range range, auto in, auto out) {
        return plan::cbow_hs_epoch(job, paths, cbow_mean, range, in, out);
    });
}

// The position of the first index outside [0, rows) in C order, or -1.
int64_t first_out_of_range(const py::array& indices, uint64_t rows, int threads) {
    if (all_in_range(indices, rows, threads)) return -1;
    return with_index(indices, [&](auto i) {
        const auto* const index = static_cast<const typename decltype(i)::type*>(indices.data());
        int64_t k = 0;
        while (uint64_t(int64_t(index[k])) < rows) ++k;
        return k;
    });
}

// Whether offsets rise from 0 to `lookups`.
bool offsets_rise(const py::array& offsets, int64_t lookups) {
    const int64_t* const o = vector<int64_t>(offsets);
    const int64_t n = offsets.size() - 1;
    uint64_t signs = 0;  // of differences: what wraps around has a negative number before it or beyond it
    for (int64_t b = 0; b < n; ++b) signs |= uint64_t(o[b + 1]) | (uint64_t(o[b + 1]) - uint64_t(o[b]));
    return o[0] == 0 && o[n] == lookups && signs >> 63 == 0;
}

// Whether, between first and last byte, an array that is written (a bit of `written`) meets any other.
bool may_overlap(const py::list& arrays, uint64_t written) {
    std::vector<Span> spans(arrays.size());
    for (size_t k = 0; k < spans.size(); ++k)
        if (!arrays[k].is_none()) spans[k] = span(py::reinterpret_borrow<py::array>(arrays[k]));
    for (size_t i = 0; i < spans.size(); ++i)
        for (size_t j = 0; j < spans.size() && (written >> i & 1); ++j)
            if (i != j && spans[i].meets(spans[j])) return true;
    return false;
}

DirectCall direct_call(const std::string& op) {
#define HOTROW_OP(name, compiled_for, signature) \
    if (op == #name) return direct<&name>();
#include "ops.def"
#undef HOTROW_OP
    return nullptr;
}

}  // namespace
}  // namespace hotrow

// Needs no GIL: what calls share is atomic (the kernels in use), locked (memory kept for results) or of one thread.
PYBIND11_MODULE(_native, m, pybind11::mod_gil_not_used()) {
    using namespace hotrow;
#define HOTROW_OP(name, compiled_for, signature) m.def(#name, &name);
#include "ops.def"
#undef HOTROW_OP
    std::vector<std::string> names;
#define HOTROW_OP(name, compiled_for, signature) names.push_back(#name);
#include "ops.def"
#undef HOTROW_OP
    m.attr("OPS") = py::tuple(py::cast(names));

    py::class_<Plain>(m, "Plain")
        .def(py::init([](const std::string& op, const Plain::Arguments& arguments) {
            return Plain(arguments, direct_call(op));
        }))
        .def("check", &Plain::check)
        .def("step", &Plain::step);
    define_encoder(m);
    m.def("result", &result);
    m.def("first_out_of_range", &first_out_of_range);
    m.def("offsets_rise", &offsets_rise);
    m.def("may_overlap", &may_overlap);
    m.def("release_threads", &release_threads);
    m.def("built_isas", &built_isas);
    m.def("supported_isas", &supported_isas);
    m.def("use_isa", &use_isa);
    m.def("isa", [] { return std::string(kernels().isa); });
    m.attr("compiler") = HOTROW_COMPILER;
    m.attr("openmp") = openmp_version();
    m.attr("tokens_per_block") = kTokensPerBlock;
}
