// libFuzzer target: the encoder of texts, on several threads and in small blocks, against itself on one thread and in
// one block. tests/test_fuzz.py builds and runs it for a moment; for longer:
//   clang++ -std=c++17 -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -Icsrc
//     csrc/text/encoder.cpp tests/fuzz_encoder.cpp -o fuzz_encoder && ./fuzz_encoder -max_total_time=600 corpus tests/seeds/text
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <tuple>

#include "text/encoder.h"

namespace {

using hotrow::text::Byte;
using hotrow::text::Encoder;
using Encoded = std::tuple<std::vector<std::string>, std::vector<int64_t>, std::vector<int32_t>, std::vector<int64_t>>;

void require(bool holds, const char* what) {
    if (holds) return;
    std::fprintf(stderr, "%s\n", what);
    std::abort();
}

// Words by first appearance and their counts, tokens, ends of sentences; words that occur less than `least` times left
// out. As hotrow._encode.encode does.
Encoded encode(const Byte* data, int64_t size, int threads, int64_t block, int64_t step, int64_t least) {
    Encoder encoder(threads);
    std::vector<int32_t> tokens;
    std::vector<int64_t> ends{0};
    const auto take = [&](const std::vector<Encoder::Piece>& pieces) {
        for (const auto& [part, count, stops] : pieces) {
            tokens.insert(tokens.end(), part, part + count);
            ends.insert(ends.end(), stops->begin(), stops->end());
        }
    };
    for (int64_t i = 0; i < size; i += block) {
        // Memory of its own, so that a byte read beyond the block is seen.
        const std::vector<Byte> part(data + i, data + std::min(size, i + block));
        take(encoder.feed(part.data(), int64_t(part.size())));
    }
    take(encoder.close());
    ends.push_back(int64_t(tokens.size()));
    if (tokens.empty()) return {};
    while (!encoder.merge(step)) {
    }
    const auto& all = encoder.words();
    std::vector<int32_t> order;
    for (int32_t id = 0; id < all.size(); ++id)
        if (encoder.counts()[size_t(id)] >= std::max<int64_t>(1, least)) order.push_back(id);
    std::sort(order.begin(), order.end(),
              [&](int32_t a, int32_t b) { return all.first()[size_t(a)] < all.first()[size_t(b)]; });
    std::vector<int32_t> number(size_t(all.size()), -1);
    Encoded found;
    auto& [words, counts, kept, stops] = found;
    for (const int32_t id : order) {
        number[size_t(id)] = int32_t(words.size());
        words.emplace_back(all[id]);
        counts.push_back(encoder.counts()[size_t(id)]);
    }
    encoder.renumber(number.data());
    while (!encoder.compact(tokens.data(), ends.data(), int64_t(ends.size()), step)) {
    }
    kept.assign(tokens.begin(), tokens.begin() + encoder.tokens_kept());
    stops.assign(ends.begin(), ends.begin() + encoder.ends_kept());
    return found;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const Byte* data, size_t size) {
    if (size < 4) return 0;
    const int threads = 1 + data[0] % 5;
    const int64_t block = 1 + data[1], step = 1 + data[2] % 64, least = data[3] % 4;
    data += 4;
    size -= 4;
    const Encoded found = encode(data, int64_t(size), threads, block, step, least);
    require(found == encode(data, int64_t(size), 1, int64_t(size) + 1, int64_t(size) + 1, least),
            "threads and blocks show in the result");
    const auto& [words, counts, tokens, ends] = found;
    std::vector<int64_t> occur(words.size(), 0);
    for (const int32_t token : tokens) {
        require(token >= 0 && size_t(token) < words.size(), "a token is no word");
        ++occur[size_t(token)];
    }
    require(occur == counts, "counts are wrong");
    for (size_t i = 1; i < ends.size(); ++i) require(ends[i - 1] < ends[i], "a sentence has no words");
    require(words.empty() ? ends.size() <= 1 : ends.front() == 0 && ends.back() == int64_t(tokens.size()),
            "sentences end elsewhere");
    return 0;
}
