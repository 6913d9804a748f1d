// NumPy array -> view, and the only place where a dtype becomes a C++ type. hotrow._check has looked at every argument
// before; what is left to refuse here is a mistake of ours.
#pragma once
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <mutex>
#include <vector>

#include "runtime/memory.h"
#include "view.h"

namespace hotrow {

namespace py = pybind11;

template <class T>
struct type_tag {
    using type = T;
};

[[noreturn]] inline void unexpected(const char* what) {
    throw py::type_error(std::string("hotrow internal error: unchecked argument, expected ") + what);
}

template <class Body>
auto with_float(const py::array& a, Body&& body) {
    switch (a.dtype().char_()) {
        case 'f': return body(type_tag<float>{});
        case 'd': return body(type_tag<double>{});
        default: unexpected("float32 or float64");
    }
}

// As with_float, for tables: 16-bit ones too. ml_dtypes calls bfloat16 'E', a void to those who do not know it.
template <class Body>
auto with_element(const py::array& a, Body&& body) {
    switch (a.dtype().char_()) {
        case 'e': return body(type_tag<Half>{});
        case 'E': return body(type_tag<BFloat>{});
        default: return with_float(a, body);
    }
}

// As with_element, for tables that are read alone: int8 ones too.
template <class Body>
auto with_any_element(const py::array& a, Body&& body) {
    if (a.dtype().char_() == 'b') return body(type_tag<int8_t>{});
    return with_element(a, body);
}

template <class Body>
auto with_index(const py::array& a, Body&& body) {
    const py::dtype dtype = a.dtype();
    if (dtype.kind() != 'i') unexpected("int32 or int64");
    if (dtype.itemsize() == 4) return body(type_tag<int32_t>{});
    if (dtype.itemsize() == 8) return body(type_tag<int64_t>{});
    unexpected("int32 or int64");
}

// body(element tag, index tag)
template <class Body>
auto with_types(const py::array& table, const py::array& indices, Body&& body) {
    return with_element(table, [&](auto e) { return with_index(indices, [&](auto i) { return body(e, i); }); });
}

template <class Body>
auto with_any_types(const py::array& table, const py::array& indices, Body&& body) {
    return with_any_element(table, [&](auto e) { return with_index(indices, [&](auto i) { return body(e, i); }); });
}

template <class Body>
auto with_floats(const py::array& table, const py::array& indices, Body&& body) {
    return with_float(table, [&](auto f) { return with_index(indices, [&](auto i) { return body(f, i); }); });
}

template <class T>
const T* vector(const py::array& a) {
    constexpr int64_t size = sizeof(T);
    if (a.ndim() != 1 || a.itemsize() != size || (a.size() > 1 && a.strides(0) != size))
        unexpected("a contiguous vector");
    return static_cast<const T*>(a.data());
}

template <class T>
T* writable_vector(py::array& a) {
    vector<T>(a);
    return static_cast<T*>(a.mutable_data());
}

// NumPy gives strides no meaning where there is nothing to step over: they are looked at only beyond one row or column.
template <class T>
Mat<const T> matrix(const py::array& a) {
    constexpr int64_t size = sizeof(T);
    if (a.ndim() != 2 || a.itemsize() != size) unexpected("a matrix");
    const int64_t rows = a.shape(0), cols = a.shape(1);
    if (a.size() > 0 && ((cols > 1 && a.strides(1) != size) || (rows > 1 && a.strides(0) % size != 0)))
        unexpected("a matrix with contiguous rows");
    return {static_cast<const T*>(a.data()), rows, cols, rows > 1 ? a.strides(0) / size : cols};
}

template <class T>
Mat<T> writable_matrix(py::array& a) {
    const Mat<const T> m = matrix<T>(a);
    return {static_cast<T*>(a.mutable_data()), m.rows, m.cols, m.stride};
}

// An array to return. The memory of a large one is kept when it dies, for the next: malloc gives blocks of 32 MiB and
// more back to the system, whose fresh pages cost coalesce half of its time at 4M x 128.
inline py::array result(const std::vector<py::ssize_t>& shape, const py::dtype& dtype) {
    constexpr size_t large = 32 << 20, most = 256 << 20;
    static SparePool* const pool = new SparePool(most, most);  // for ever: arrays may outlive what is static
    static std::mutex* const in_use = new std::mutex;          // a free-threaded Python has no lock of its own
    struct Block {
        void* data;
        size_t size;
    };
    size_t size = size_t(dtype.itemsize());
    for (const py::ssize_t length : shape) size *= size_t(length);
    if (size < large) return py::array(dtype, shape);
    void* data;
    {
        const std::lock_guard<std::mutex> lock(*in_use);
        data = pool->take(size);
    }
    const py::capsule owner(new Block{data, size}, [](void* p) {
        const Block* const block = static_cast<const Block*>(p);
        {
            const std::lock_guard<std::mutex> lock(*in_use);
            pool->give(block->data, block->size);
        }
        delete block;
    });
    return py::array(dtype, shape, data, owner);
}

}  // namespace hotrow
