// White space as Python's str.split() sees it, found in UTF-8. All its characters begin with a byte that can be no
// later byte of another character: it is found alike whatever stands before it, invalid bytes included.
#pragma once
#include <cstdint>
#include <cstring>

namespace hotrow::text {

using Byte = unsigned char;

constexpr bool is_ascii_space(Byte c) { return c == ' ' || (c >= 9 && c <= 13) || (c >= 28 && c <= 31); }

// Bytes of the white space that begins at p; 0 if none does.
inline int space_at(const Byte* p, const Byte* end) {
    if (is_ascii_space(*p)) return 1;
    if (*p < 0xC2 || *p > 0xE3 || end - p < 2) return 0;
    if (*p == 0xC2) return p[1] == 0x85 || p[1] == 0xA0 ? 2 : 0;  // U+0085, U+00A0
    if (*p < 0xE1 || end - p < 3) return 0;
    const int low = p[1] << 8 | p[2];
    if (*p == 0xE1) return low == 0x9A80 ? 3 : 0;  // U+1680
    if (*p == 0xE3) return low == 0x8080 ? 3 : 0;  // U+3000
    // U+2000 to U+200A, U+2028, U+2029, U+202F, U+205F
    return (low >= 0x8080 && low <= 0x808A) || low == 0x80A8 || low == 0x80A9 || low == 0x80AF || low == 0x819F ? 3 : 0;
}

// Where the first white space from p on begins; `end` if there is none.
inline const Byte* find_space(const Byte* p, const Byte* end) {
    while (p < end && space_at(p, end) == 0) ++p;
    return p;
}

// Where the last white space before `end` ends; `begin` if there is none.
inline const Byte* last_space(const Byte* begin, const Byte* end) {
    for (const Byte* p = end; p > begin; --p)
        if (const int n = space_at(p - 1, end)) return p - 1 + n;
    return begin;
}

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the first of eight bytes is taken to be the lowest of a number"
#endif

// The eight bytes from p on; zeros from `end` on.
inline uint64_t load8(const Byte* p, const Byte* end) {
    uint64_t bytes = 0;
    if (end - p >= 8) std::memcpy(&bytes, p, 8);
    else std::memcpy(&bytes, p, size_t(end - p));
    return bytes;
}

// find_space() where there is one: eight bytes at a time over ASCII above the space.
inline const Byte* word_end(const Byte* p, const Byte* end) {
    constexpr uint64_t each = 0x0101010101010101u, high = 0x80 * each;
    for (;;) {
        const uint64_t bytes = load8(p, end);
        // Bit 7 of bytes below 0x21 or above 0x7F: exact up to the first of them, and no other is looked at.
        const uint64_t found = ((bytes - 0x21 * each) & ~bytes & high) | (bytes & high);
        if (found == 0) {
            p += 8;
            continue;
        }
        p += __builtin_ctzll(found) >> 3;
        if (space_at(p, end)) return p;
        ++p;
    }
}

}  // namespace hotrow::text
