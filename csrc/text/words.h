// Different words, numbered in the order they are met, with their counts: a hash table with open addressing.
#pragma once
#include <cstring>
#include <stdexcept>
#include <string_view>
#include <vector>

#include "text/spaces.h"

namespace hotrow::text {

// Both halves of the product: every bit of a and b moves every bit of it.
inline uint64_t fold(uint64_t a, uint64_t b) {
    const unsigned __int128 product = static_cast<unsigned __int128>(a) * b;
    return uint64_t(product) ^ uint64_t(product >> 64);
}

// A word with what the table wants to know of it. Words of up to eight bytes are their own key; others have a hash.
struct Key {
    const Byte* data;
    int64_t length;
    uint64_t key;
    uint32_t short_length;  // or 2^32 - 1 if it is longer

    // A word of at least one byte; `limit` is where memory that may be read ends.
    static Key of(const Byte* data, int64_t length, const Byte* limit) {
        const uint32_t short_length = length < UINT32_MAX ? uint32_t(length) : UINT32_MAX;
        if (length <= 8) return {data, length, load8(data, limit) & (~uint64_t(0) >> (64 - 8 * length)), short_length};
        uint64_t key = uint64_t(length);
        const Byte* const last = data + length - 8;
        for (const Byte* p = data; p < last; p += 8) key = fold(key ^ load8(p, limit) ^ kOdd, kOther);
        return {data, length, fold(key ^ load8(last, limit) ^ kOdd, kOther), short_length};
    }

    static constexpr uint64_t kOdd = 0x9E3779B97F4A7C15u, kOther = 0xD1B54A32D192ED03u;  // of no pattern
};

class Words {
public:
    Words() : slots_(size_t(1) << (64 - shift_), Slot{0, 0, 0, 0, -1}), begin_(1, 0) {}

    int64_t size() const { return int64_t(first_.size()); }
    std::string_view operator[](int64_t id) const {
        return {bytes_.data() + begin_[size_t(id)], size_t(begin_[size_t(id) + 1] - begin_[size_t(id)])};
    }
    Key key(int64_t id) const {
        const std::string_view word = (*this)[id];
        const auto* const end = reinterpret_cast<const Byte*>(bytes_.data() + bytes_.size());
        return Key::of(reinterpret_cast<const Byte*>(word.data()), int64_t(word.size()), end);
    }
    // Where the first byte of each word first stands in the text.
    const std::vector<int64_t>& first() const { return first_; }
    // How often each word occurs.
    std::vector<int64_t> counts() const {
        std::vector<int64_t> counts(first_.size());
        for (const Slot& slot : slots_)
            if (slot.id >= 0) counts[size_t(slot.id)] = slot.count;
        return counts;
    }

    void prefetch(const Key& word) const { __builtin_prefetch(&slots_[home(word.key, word.short_length)], 1); }

    // The number of a word that stands at `position` of the text, later than when it was last added; new ones get the
    // next number.
    int32_t add(const Key& word, int64_t position) { return find(word, position, 1).id; }

    // The same for `count` of them, the first of which may be earlier.
    int32_t merge(const Key& word, int64_t position, int64_t count) {
        const int32_t id = find(word, position, count).id;
        if (position < first_[size_t(id)]) first_[size_t(id)] = position;
        return id;
    }
    // Takes a word away that has been merged into another; its number stays.
    void clear(const Key& word) {
        Slot& slot = find(word, 0, 0);
        slot.count = 0;
    }

private:
    // All that a word asks for, in half a cache line: 14 million words, 3.8 million of them different, took 1.25 s of
    // one thread, and 2.0 with counts and beginnings in vectors by number.
    struct alignas(32) Slot {
        uint64_t key;
        int64_t begin;  // of its bytes
        int64_t count;
        uint32_t length;  // the key's short_length
        int32_t id;       // -1 in an empty slot
    };

    size_t home(uint64_t key, uint32_t length) const {
        return size_t(fold(key ^ Key::kOther, Key::kOdd + 2 * uint64_t(length)) >> shift_);
    }

    Slot& find(const Key& word, int64_t position, int64_t count) {
        size_t at = home(word.key, word.short_length);
        for (; slots_[at].id >= 0; at = (at + 1) & (slots_.size() - 1)) {
            Slot& slot = slots_[at];
            if (slot.key != word.key || slot.length != word.short_length) continue;
            if (word.length > 8 && !equal(slot, word)) continue;
            slot.count += count;
            return slot;
        }
        if (size() == INT32_MAX) throw std::length_error("the text has 2^31 different words or more");
        if (3 * (first_.size() + 1) > 2 * slots_.size()) {
            grow();
            return find(word, position, count);
        }
        slots_[at] = {word.key, begin_.back(), count, word.short_length, int32_t(size())};
        const char* const data = reinterpret_cast<const char*>(word.data);
        bytes_.insert(bytes_.end(), data, data + word.length);
        begin_.push_back(int64_t(bytes_.size()));
        first_.push_back(position);
        return slots_[at];
    }

    bool equal(const Slot& slot, const Key& word) const {
        return (slot.length < UINT32_MAX || (*this)[slot.id].size() == size_t(word.length)) &&
               std::memcmp(bytes_.data() + slot.begin, word.data, size_t(word.length)) == 0;
    }

    void grow() {
        std::vector<Slot> larger(slots_.size() * 2, Slot{0, 0, 0, 0, -1});
        --shift_;
        for (const Slot& slot : slots_) {
            if (slot.id < 0) continue;
            size_t at = home(slot.key, slot.length);
            while (larger[at].id >= 0) at = (at + 1) & (larger.size() - 1);
            larger[at] = slot;
        }
        slots_.swap(larger);
    }

    int shift_ = 64 - 12;  // a hash's upper bits are a place: 64 less the power of two that slots_ has
    std::vector<Slot> slots_;
    std::vector<char> bytes_;     // of all words, one after the other
    std::vector<int64_t> begin_;  // where each word begins in them, and their end
    std::vector<int64_t> first_;
};

}  // namespace hotrow::text
