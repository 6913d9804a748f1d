// Scratch memory: 64-byte aligned, not initialised, freed with its owner. std::bad_alloc when there is none.
#pragma once
#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>
#include <vector>

namespace hotrow {
namespace detail {

// Blocks that this thread has freed, kept for its next call: pages fresh from the system are cleared first, which
// took a quarter of an optimizer step on 262,144 lookups.
class SparePool {
public:
    static constexpr size_t kMost = 128 << 20, kBlocks = 32;  // bytes and blocks to keep

    ~SparePool() {
        for (const auto& [data, size] : spare_) free(data);
    }
    // At least `size` bytes; `size` becomes how many.
    void* take(size_t& size) {
        for (size_t i = 0; i < spare_.size(); ++i)
            if (spare_[i].second >= size && spare_[i].second / 4 <= size) {
                const auto [data, found] = spare_[i];
                spare_.erase(spare_.begin() + std::ptrdiff_t(i));
                total_ -= found;
                size = found;
                return data;
            }
        size += size / 8;  // the next call may ask for a little more
        return ::operator new(size, std::align_val_t(64));
    }
    void give(void* data, size_t size) noexcept {
        if (size > kMost / 4) return free(data);
        while (total_ + size > kMost || spare_.size() == kBlocks) {
            total_ -= spare_.front().second;
            free(spare_.front().first);
            spare_.erase(spare_.begin());
        }
        try {
            spare_.emplace_back(data, size);
            total_ += size;
        } catch (const std::bad_alloc&) {
            free(data);
        }
    }
    static SparePool& mine() {
        static thread_local SparePool pool;
        return pool;
    }

private:
    static void free(void* data) { ::operator delete(data, std::align_val_t(64)); }
    std::vector<std::pair<void*, size_t>> spare_;
    size_t total_ = 0;
};

}  // namespace detail

// Lives and dies on one thread.
template <class T>
class Buffer {
public:
    explicit Buffer(int64_t count) : size_(size_t(count) * sizeof(T)) {
        if (count > 0) data_ = static_cast<T*>(detail::SparePool::mine().take(size_));
    }
    ~Buffer() {
        if (data_) detail::SparePool::mine().give(data_, size_);
    }
    Buffer(Buffer&& other) noexcept : size_(other.size_), data_(std::exchange(other.data_, nullptr)) {}
    Buffer& operator=(Buffer&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        return *this;
    }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;

    T* get() { return data_; }
    const T* get() const { return data_; }
    T& operator[](int64_t i) { return data_[i]; }
    const T& operator[](int64_t i) const { return data_[i]; }

private:
    size_t size_;
    T* data_ = nullptr;
};

}  // namespace hotrow
