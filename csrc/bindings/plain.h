// The checks of hotrow._check on arguments that are just as backends take them, in one call. Whatever else an argument
// is, wrong or merely unusual, is left to hotrow._check: it makes what can be made of it, or says what is wrong.
#pragma once
#include <array>
#include <atomic>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "bindings/arrays.h"
#include "runtime/cpu.h"
#include "runtime/parallel.h"

namespace hotrow {

// Whether all indices lie in [0, rows).
inline bool all_in_range(const py::array& indices, uint64_t rows, int threads) {
    return with_index(indices, [&](auto i) {
        using I = typename decltype(i)::type;
        const I* const index = static_cast<const I*>(indices.data());
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
        return good.load();
    });
}

// Memory between the first and the last byte of an array.
struct Span {
    const char *low = nullptr, *high = nullptr;
    bool meets(const Span& other) const { return low < other.high && other.low < high; }
};
inline Span span(const py::array& a) {
    if (a.size() == 0) return {};
    const char *low = static_cast<const char*>(a.data()), *high = low + a.itemsize();
    for (py::ssize_t axis = 0; axis < a.ndim(); ++axis) {
        const int64_t reach = (a.shape(axis) - 1) * a.strides(axis);
        (reach < 0 ? low : high) += reach;
    }
    return {low, high};
}

// A C++ argument from a Python one that is known to be right.
template <class T>
std::decay_t<T> argument_from(PyObject* value) {
    using A = std::decay_t<T>;
    if constexpr (std::is_same_v<A, py::array>) return py::reinterpret_borrow<py::array>(value);
    else if constexpr (std::is_same_v<A, bool>) return value == Py_True;
    else if constexpr (std::is_floating_point_v<A>) return PyFloat_AsDouble(value);
    else if constexpr (std::is_unsigned_v<A>) return PyLong_AsUnsignedLongLong(value);
    else if constexpr (std::is_integral_v<A>) return A(PyLong_AsLongLong(value));
    else return value == Py_None ? A{} : A{py::reinterpret_borrow<py::array>(value)};
}

// function(*values), half a microsecond sooner than by pybind11, which tells overloads apart and converts.
using DirectCall = void (*)(PyObject* const* values);
template <class... A, size_t... K>
void call(void (*function)(A...), PyObject* const* values, std::index_sequence<K...>) {
    std::tuple<std::decay_t<A>...> arguments{argument_from<A>(values[K])...};
    if (PyErr_Occurred()) throw py::error_already_set();
    std::apply(function, arguments);
}
template <class... A>
void call(void (*function)(A...), PyObject* const* values) {
    call(function, values, std::index_sequence_for<A...>{});
}
template <class R, class... A>
constexpr bool returns_nothing(R (*)(A...)) {
    return std::is_void_v<R>;
}
// For functions that return nothing, as optimizer steps do; null for others.
template <auto Function>
DirectCall direct() {
    if constexpr (returns_nothing(Function)) return [](PyObject* const* values) { call(Function, values); };
    else return nullptr;
}

// The argument table of one operator, see hotrow._ops.
class Plain {
public:
    // (dtype letter or name, shape, role, bound or None, whether None will do) of each. That of float32 is `scales`.
    using Arguments = std::vector<std::tuple<std::string, std::vector<std::string>, std::string,
                                             std::optional<std::string>, bool>>;
    // call: what step() calls; may be null for operators that are no optimizer's.
    Plain(const Arguments& arguments, DirectCall call) : call_(call) {
        for (const auto& [dtype, shape, role, bound, optional] : arguments) {
            const char kind = dtype == "E" || dtype == "O" ? 'F' : dtype.size() == 1 ? dtype[0] : '\0';
            Argument a{kind, nullptr, {}, role != "in",
                       optional || role == "out", !bound ? -1 : *bound == "int64" ? kLetters : letter(*bound)};
            if (dtype == "float32") scales_ = arguments_.size();
            if (a.kind == 0) a.dtype = py::dtype(dtype).release().ptr();  // kept as long as the module
            for (const std::string& axis : shape) a.shape.push_back(letter(axis));
            arguments_.push_back(a);
        }
        if (arguments_.size() > kMost) throw std::length_error("more arguments than kMost");
        for (int i = 0; i < kLetters; ++i) names_.emplace_back(std::string(1, char('A' + i)));
        names_.emplace_back("...");
    }

    // The length behind each letter, or None if an argument is not plain.
    py::object check(const py::tuple& values, bool bounds, int threads) const {
        int64_t lengths[kLetters];
        py::handle any;
        if (!passes(values, bounds, threads, lengths, any)) return py::none();
        py::dict dims;
        for (int i = 0; i < 26; ++i)
            if (lengths[i] >= 0) dims[names_[size_t(i)]] = lengths[i];
        if (any) dims[names_[kAnyShape]] = any.attr("shape");
        return dims;
    }

    // Takes the step of an optimizer and returns true if all arrays are plain, there are lookups, and each is a bag of
    // its own, whose sum it is. options: StepOptions.arguments; scalars: what follows the key of rounding.
    bool step(const py::tuple& values, const py::tuple& options, const py::tuple& scalars, int threads) const {
        int64_t lengths[kLetters];
        py::handle any;
        const size_t offsets = 1, argmax = 3;
        if (!call_ || !values[offsets].is_none() || !values[argmax].is_none()) return false;
        if (!passes(values, true, threads, lengths, any) || !lengths['N' - 'A'] || !lengths['D' - 'A']) return false;
        const py::int_ mode{int(Mode::sum)}, padding_idx{-1}, key{0}, count{threads};
        if (values.size() + options.size() + scalars.size() + 4 > kMost) return false;
        std::array<PyObject*, kMost> all;  // a vector's memory takes a fiftieth of a small step
        PyObject** end = all.data();
        const auto append = [&](const py::tuple& more) {
            for (size_t k = 0; k < more.size(); ++k) *end++ = PyTuple_GET_ITEM(more.ptr(), py::ssize_t(k));
        };
        append(values);
        *end++ = mode.ptr();
        *end++ = padding_idx.ptr();
        append(options);
        *end++ = key.ptr();
        append(scalars);
        *end++ = count.ptr();
        call_(all.data());
        return true;
    }

private:
    static constexpr size_t kMost = 40;  // arguments of an operator
    static constexpr int kLetters = 26, kAnyShape = 26, kAndOne = 32;  // kAndOne + letter: one more than it, "B+1"
    struct Argument {
        char kind;        // 'F', 'I' or 0 for a dtype of its own
        PyObject* dtype;  // that dtype
        std::vector<int> shape;
        bool written, may_be_none;
        int bound;  // a letter; -1 for none, kLetters if indices need only not be negative
    };

    // Whether all arguments are plain; the length behind each letter, the argument of any shape.
    bool passes(const py::tuple& values, bool bounds, int threads, int64_t* lengths, py::handle& any) const {
        std::fill(lengths, lengths + kLetters, -1);
        PyObject* kinds[2] = {};  // of 'F' and of 'I'
        bool quantized = false;   // whether the table is int8
        std::array<Span, kMost> spans{};
        for (size_t k = 0; k < arguments_.size(); ++k) {
            const Argument& argument = arguments_[k];
            const py::handle value = values[k];
            if (scales_ && k == scales_ && value.is_none() == quantized) return false;
            if (value.is_none()) {
                if (!argument.may_be_none) return false;
                if (argument.shape[0] == kAndOne + 'B' - 'A') lengths['B' - 'A'] = lengths['N' - 'A'];
                continue;
            }
            if (Py_TYPE(value.ptr()) != array_type()) return false;
            const auto a = py::reinterpret_borrow<py::array>(value);
            if (!dtype_is_plain(argument, a, kinds, quantized) || !layout_is_plain(argument, a)) return false;
            if (argument.shape[0] == kAnyShape) {
                if (argument.shape.size() == 1) any = value;
                else if (!extends(a, any, lengths['D' - 'A'])) return false;
            } else if (!shape_is_plain(argument, a, lengths)) {
                return false;
            }
            spans[k] = span(a);
        }
        for (size_t i = 0; i < arguments_.size(); ++i)
            for (size_t j = 0; j < arguments_.size() && arguments_[i].written && spans[i].low; ++j)
                if (i != j && spans[i].meets(spans[j])) return false;
        for (size_t k = 0; k < arguments_.size() && bounds; ++k) {
            const Argument& argument = arguments_[k];
            if (argument.bound < 0 || values[k].is_none()) continue;
            const uint64_t rows = argument.bound == kLetters ? uint64_t(1) << 63 : uint64_t(lengths[argument.bound]);
            if (!all_in_range(py::reinterpret_borrow<py::array>(values[k]), rows, threads)) return false;
        }
        return true;
    }

    static int letter(const std::string& axis) {
        if (axis == "...") return kAnyShape;
        return axis[0] - 'A' + (axis.size() == 3 ? kAndOne : 0);
    }
    static PyTypeObject* array_type() { return py::detail::npy_api::get().PyArray_Type_; }

    // NumPy has one object for each of these dtypes; another that is equal is not plain.
    bool dtype_is_plain(const Argument& argument, const py::array& a, PyObject** kinds, bool& quantized) const {
        static PyObject* const int8 = py::dtype::of<int8_t>().release().ptr();
        static PyObject* const known[2][2] = {
            {py::dtype::of<float>().release().ptr(), py::dtype::of<double>().release().ptr()},
            {py::dtype::of<int32_t>().release().ptr(), py::dtype::of<int64_t>().release().ptr()}};
        PyObject* const dtype = py::detail::array_proxy(a.ptr())->descr;
        if (argument.kind == 0) return dtype == argument.dtype;
        if (scales_ && !kinds[0] && dtype == int8) {  // of the table, which comes first
            kinds[0] = known[0][0];
            return quantized = true;
        }
        const int kind = argument.kind == 'I';
        if (dtype != known[kind][0] && dtype != known[kind][1]) return false;
        if (!kinds[kind]) kinds[kind] = dtype;
        return kinds[kind] == dtype;
    }

    static bool layout_is_plain(const Argument& argument, const py::array& a) {
        constexpr int contiguous = py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_,
                      aligned = py::detail::npy_api::NPY_ARRAY_ALIGNED_,
                      writeable = py::detail::npy_api::NPY_ARRAY_WRITEABLE_;
        const int flags = a.flags(), wanted = aligned | (argument.written ? writeable : 0);
        if ((flags & wanted) != wanted) return false;
        if (flags & contiguous) return true;
        return argument.kind == 'F' && a.ndim() == 2 && a.strides(1) == a.itemsize() &&
               a.strides(0) >= a.shape(1) * a.itemsize() && a.strides(0) % a.itemsize() == 0;
    }

    // Whether the shape of a is that of `any` and `width`.
    static bool extends(const py::array& a, py::handle any, int64_t width) {
        const auto shorter = py::reinterpret_borrow<py::array>(any);
        bool same = a.ndim() == shorter.ndim() + 1 && a.shape(a.ndim() - 1) == width;
        for (py::ssize_t axis = 0; same && axis < shorter.ndim(); ++axis) same = a.shape(axis) == shorter.shape(axis);
        return same;
    }

    static bool shape_is_plain(const Argument& argument, const py::array& a, int64_t* lengths) {
        if (a.ndim() != py::ssize_t(argument.shape.size())) return false;
        for (py::ssize_t axis = 0; axis < a.ndim(); ++axis) {
            int letter = argument.shape[size_t(axis)];
            int64_t length = a.shape(axis);
            if (letter >= kAndOne) {
                letter -= kAndOne;
                --length;
            }
            if (length < 0 || (lengths[letter] >= 0 && lengths[letter] != length)) return false;
            lengths[letter] = length;
        }
        return true;
    }

    DirectCall call_;
    std::vector<Argument> arguments_;
    size_t scales_ = 0;           // where they stand, if any: the table may then be int8
    std::vector<py::str> names_;  // of the letters
};

}  // namespace hotrow
