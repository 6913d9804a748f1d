// Scratch memory: 64-byte aligned, not initialised, freed with its owner. std::bad_alloc when there is none.
#pragma once
#include <cstddef>
#include <cstdint>
#include <new>

namespace hotrow {

template <class T>
class Buffer {
public:
    explicit Buffer(int64_t count)
        : data_(static_cast<T*>(::operator new(size_t(count) * sizeof(T), std::align_val_t(64)))) {}
    ~Buffer() { ::operator delete(data_, std::align_val_t(64)); }
    Buffer(Buffer&& other) noexcept : data_(other.data_) { other.data_ = nullptr; }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    Buffer& operator=(Buffer&&) = delete;

    T* get() { return data_; }
    const T* get() const { return data_; }
    T& operator[](int64_t i) { return data_[i]; }
    const T& operator[](int64_t i) const { return data_[i]; }

private:
    T* data_;
};

}  // namespace hotrow
