// Memory: 64-byte aligned, large blocks on huge pages, not initialised. std::bad_alloc when there is none.
#pragma once
#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace hotrow {

// Whether blocks have just the size that was asked for and are freed at once: a sanitizer sees what goes beyond them.
#if defined(HOTROW_EXACT_MEMORY)
constexpr bool kExactMemory = true;
#else
constexpr bool kExactMemory = false;
#endif

// Blocks that were freed, kept for the next call: pages fresh from the system are cleared first, which took a quarter of
// an optimizer step on 262,144 lookups.
class SparePool {
public:
    // Keeps so many bytes, in blocks of at most `largest`.
    SparePool(size_t most, size_t largest) : most_(most), largest_(largest) {}
    ~SparePool() { clear(); }
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
        if (!kExactMemory) size += size / 8;  // the next call may ask for a little more
        void* data = ::operator new(size, alignment(size), std::nothrow);
        if (!data) {
            clear();  // what is kept may be what is missing
            data = ::operator new(size, alignment(size));
        }
#if defined(__linux__)
        if (size >= kHuge) madvise(data, size, MADV_HUGEPAGE);
#endif
        return data;
    }
    void give(void* data, size_t size) noexcept {
        if (kExactMemory || size > largest_) return free(data, size);
        while (total_ + size > most_ || spare_.size() == kBlocks) {
            total_ -= spare_.front().second;
            free(spare_.front().first, spare_.front().second);
            spare_.erase(spare_.begin());
        }
        try {
            spare_.emplace_back(data, size);
            total_ += size;
        } catch (const std::bad_alloc&) {
            free(data, size);
        }
    }
    // Scratch of this thread.
    static SparePool& mine() {
        static thread_local SparePool pool(128 << 20, 32 << 20);
        return pool;
    }

private:
    static constexpr size_t kBlocks = 32, kHuge = 4 << 20;
    static std::align_val_t alignment(size_t size) { return std::align_val_t(size >= kHuge ? 2 << 20 : 64); }
    void clear() noexcept {
        for (const auto& [data, size] : spare_) free(data, size);
        spare_.clear();
        total_ = 0;
    }
    static void free(void* data, size_t size) { ::operator delete(data, alignment(size)); }

    const size_t most_, largest_;
    std::vector<std::pair<void*, size_t>> spare_;
    size_t total_ = 0;
};

// Scratch memory, freed with its owner. Lives and dies on one thread.
template <class T>
class Buffer {
public:
    explicit Buffer(int64_t count) : size_(size_t(count) * sizeof(T)) {
        if (count > 0) data_ = static_cast<T*>(SparePool::mine().take(size_));
    }
    ~Buffer() {
        if (data_) SparePool::mine().give(data_, size_);
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
