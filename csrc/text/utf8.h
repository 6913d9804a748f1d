// Invalid UTF-8 as Python decodes it with errors="replace".
#pragma once
#include <string>

#include "text/spaces.h"

namespace hotrow::text {

// Bytes of the character at p, or as many as one U+FFFD stands for: the longest beginning of a valid character, or one.
struct Character {
    int length;
    bool valid;
};
inline Character character_at(const Byte* p, const Byte* end) {
    const Byte lead = *p;
    if (lead < 0x80) return {1, true};
    if (lead < 0xC2 || lead > 0xF4) return {1, false};
    const int length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    for (int i = 1; i < length; ++i) {
        // The second byte must not make a shorter form, a surrogate or more than U+10FFFF.
        const Byte low = i > 1 ? 0x80 : lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
        const Byte high = i > 1 ? 0xBF : lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
        if (p + i == end || p[i] < low || p[i] > high) return {i, false};
    }
    return {length, true};
}

// Whether anything had to be replaced; `repaired` is then the text.
inline bool repair_utf8(const Byte* data, int64_t size, std::string& repaired) {
    const Byte* const end = data + size;
    const auto copy = [&](const Byte* from, const Byte* to) { repaired.append(from, to); };
    bool any = false;
    const Byte* copied = data;
    for (const Byte* p = data; p < end;) {
        const Character c = character_at(p, end);
        if (!c.valid) {
            if (!any) repaired.clear();
            any = true;
            copy(copied, p);
            repaired += "\xEF\xBF\xBD";
            copied = p + c.length;
        }
        p += c.length;
    }
    if (any) copy(copied, end);
    return any;
}

}  // namespace hotrow::text
