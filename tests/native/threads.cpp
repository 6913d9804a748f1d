// The plans on several threads at once, without Python: for ThreadSanitizer, which sees all of a program or nothing.
// Every operator is called from two threads that share inputs and write outputs of their own, each call on kThreads;
// deterministic ones must give the bits of one thread. Epochs race by design, see tsan.ignore.
#include <algorithm>
#include <cstring>
#include <string>
#include <thread>

#include "check.h"
#include "ops/cbow.h"
#include "ops/embedding_bag.h"
#include "ops/gather.h"
#include "ops/hierarchical.h"
#include "ops/optim.h"
#include "ops/skipgram.h"
#include "text/encoder.h"

namespace hotrow {
namespace {

using F = float;
using I = int32_t;
constexpr int kThreads = 4;
constexpr int64_t kCols = 24, kTableRows = 3000, kMany = 40000, kBags = 5000;

struct Inputs {
    Rows<F> table{kTableRows, kCols}, grads{kMany, kCols}, bag_grads{kBags, kCols};
    std::vector<I> indices = std::vector<I>(kMany);
    std::vector<int64_t> offsets = std::vector<int64_t>(kBags + 1);
    std::vector<F> weights = std::vector<F>(kMany);

    Inputs() {
        Random random;
        for (Rows<F>* rows : {&table, &grads, &bag_grads})
            for (int64_t r = 0; r < rows->mat.rows; ++r)
                for (int64_t d = 0; d < kCols; ++d) rows->at(r, d) = F(random.real() - 0.5);
        // A quarter of the lookups are of one row: its run is summed in chunks by all threads.
        for (I& index : indices) index = random.below(4) ? I(random.below(kTableRows)) : 7;
        for (F& weight : weights) weight = F(random.real() + 0.5);
        for (int64_t b = 1; b < kBags; ++b) offsets[size_t(b)] = random.below(kMany);
        offsets[kBags] = kMany;
        std::sort(offsets.begin(), offsets.end());
    }
    Pooled<F, I> single() const {
        return {{indices.data(), nullptr, nullptr, 5, Mode::sum, {}, nullptr}, kMany, kMany, {}, grads.view(), false};
    }
    Pooled<F, I> bagged(Mode mode, bool weighted, bool by_frequency, Mat<const int32_t> argmax) const {
        const F* const w = weighted ? weights.data() : nullptr;
        return {{indices.data(), offsets.data(), w, 5, mode, {}, nullptr}, kMany, kBags, argmax, bag_grads.view(),
                by_frequency};
    }
};

using Result = std::vector<F>;

void append(Result& result, const Rows<F>& rows) { result.insert(result.end(), rows.data.begin(), rows.data.end()); }

// Every operator whose bits do not depend on threads.
Result deterministic(const Inputs& in, int threads) {
    Result result;
    Rows<F> gathered(kMany, kCols);
    plan::gather<F>(in.table.view(), in.indices.data(), nullptr, kMany, gathered.mat, threads);
    append(result, gathered);
    for (const Mode mode : {Mode::sum, Mode::mean, Mode::max}) {
        Rows<F> out(kBags, kCols);
        Rows<int32_t> argmax(kBags, kCols);
        const bool weighted = mode != Mode::sum;
        Pooled<F, I> pooled = in.bagged(mode, weighted, mode == Mode::mean, argmax.view());
        Bags<F, I> bags = pooled.bags;
        if (mode == Mode::max) bags.argmax = argmax.mat;
        expect(plan::embedding_bag<F>(in.table.view(), bags, kBags, out.mat, threads), "embedding_bag: in range");
        append(result, out);
        std::vector<F> products(kMany);
        const Mat<const int32_t> places = mode == Mode::max ? argmax.view() : Mat<const int32_t>{};
        plan::weights_grad<F>(in.table.view(), pooled.bags, kBags, Gradient<F>{pooled.grads, nullptr, nullptr, places},
                              products.data(), threads);
        result.insert(result.end(), products.begin(), products.end());
        Rows<F> added(in.table);
        plan::scatter_add(pooled, 0.5, added.mat, threads);
        append(result, added);
    }
    plan::coalesce(
        in.single(),
        [&](int64_t size) {
            static thread_local std::vector<I> rows;
            rows.resize(size_t(size));
            const size_t before = result.size();
            result.resize(before + size_t(size * kCols));
            return std::pair<I*, Mat<F>>(rows.data(), Mat<F>{result.data() + before, size, kCols, kCols});
        },
        threads);
    Rows<F> table(in.table), first(kTableRows, kCols), second(kTableRows, kCols);
    std::vector<int32_t> steps(kTableRows);
    const std::vector<F> corrections = {2, 1, F(1.5), 1};
    const AdamRule<F> rule{F(0.9), F(0.99), F(0.1), F(0.01), F(0.1), F(1e-8), {corrections.data(), 2, 2, 2}};
    plan::adam_step(in.single(), {1.0, 0.5, 0.01, false, 2.0, {}}, 0.1, rule, first.mat, second.mat, steps.data(),
                    table.mat, threads);
    append(result, table);
    append(result, second);
    return result;
}

// Every epoch, whose threads write shared rows.
double hogwild(const Inputs& in, int threads) {
    std::vector<I> tokens = in.indices;
    const std::vector<uint32_t> keep(kTableRows, ~uint32_t(0)), accept(kTableRows, ~uint32_t(0));
    const std::vector<int32_t> other(kTableRows);
    const Epoch job{Words(tokens.data()), in.offsets.data(), kBags, keep.data(), accept.data(), other.data(), kTableRows,
                    3, 4, true, true, 0.01, 0.001, 1, threads};
    Epoch pairs = job;
    pairs.shared_negatives = false;
    const Range all{0, kMany};
    // Paths of one length, some of their nodes among those that all threads copy.
    std::vector<int64_t> ends(kTableRows + 1);
    std::vector<int32_t> points;
    std::vector<uint8_t> codes;
    for (int64_t word = 0; word < kTableRows; ++word) {
        for (int64_t k = 0; k < 8; ++k) {
            points.push_back(int32_t(kTableRows - 1 - 64 * k - (word >> k) % 64));
            codes.push_back(uint8_t(word >> k & 1));
        }
        ends[size_t(word) + 1] = int64_t(points.size());
    }
    const Paths paths{ends.data(), points.data(), codes.data(), 8};
    Epoch tree = job;
    tree.negative = 0;
    double total = 0;
    const auto run = [&](const auto& epoch) {
        Rows<F> inputs(in.table), outputs(in.table);
        const Loss loss = epoch(inputs.mat, outputs.mat);
        expect(loss.terms > 0 && std::isfinite(loss.sum), "epoch");
        total += loss.sum / double(loss.terms);
    };
    const Mat<const I> negatives{tokens.data(), kMany / 4, 4, 4};
    run([&](Mat<F> a, Mat<F> b) {
        return plan::skipgram_step(tokens.data(), tokens.data() + kMany / 4, kMany / 4, negatives, 0.01, a, b, threads);
    });
    run([&](Mat<F> a, Mat<F> b) { return plan::skipgram_epoch(job, all, a, b); });
    run([&](Mat<F> a, Mat<F> b) { return plan::skipgram_epoch(pairs, all, a, b); });
    run([&](Mat<F> a, Mat<F> b) { return plan::cbow_epoch(job, true, all, a, b); });
    run([&](Mat<F> a, Mat<F> b) { return plan::skipgram_hs_epoch(tree, paths, all, a, b); });
    run([&](Mat<F> a, Mat<F> b) { return plan::cbow_hs_epoch(tree, paths, false, all, a, b); });
    return total;
}

// Word numbers of a text that is fed in blocks which cut words and lines, those of the rarest left out.
std::vector<int32_t> encode(int threads) {
    Random random;
    std::string text;
    while (text.size() < 400000) {
        text += "word" + std::to_string(random.below(1 + random.below(5000)));
        text += random.below(9) ? " " : random.below(2) ? "\n" : "\xE2\x80\x83";
        if (random.below(500) == 0) text += "broken\xFF ";
    }
    text::Encoder encoder(threads);
    std::vector<int32_t> tokens;
    std::vector<int64_t> ends = {0};
    const auto take = [&](const std::vector<text::Encoder::Piece>& pieces) {
        for (const auto& piece : pieces) {
            tokens.insert(tokens.end(), piece.tokens, piece.tokens + piece.count);
            ends.insert(ends.end(), piece.ends->begin(), piece.ends->end());
        }
    };
    for (size_t at = 0; at < text.size(); at += 70001) {
        const std::string block = text.substr(at, 70001);
        take(encoder.feed(reinterpret_cast<const text::Byte*>(block.data()), int64_t(block.size())));
    }
    take(encoder.close());
    while (!encoder.merge(1000)) {
    }
    // Numbers by where a word stands first, which does not depend on threads.
    std::vector<int64_t> order;
    for (int64_t id = 0; id < encoder.words().size(); ++id)
        if (encoder.counts()[size_t(id)] > 2) order.push_back(id);
    const auto& first = encoder.words().first();
    std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return first[size_t(a)] < first[size_t(b)]; });
    std::vector<int32_t> number(size_t(encoder.words().size()), -1);
    for (size_t k = 0; k < order.size(); ++k) number[size_t(order[k])] = int32_t(k);
    encoder.renumber(number.data());
    while (!encoder.compact(tokens.data(), ends.data(), int64_t(ends.size()), 10000)) {
    }
    tokens.resize(size_t(encoder.tokens_kept()));
    for (int64_t e = 0; e < encoder.ends_kept(); ++e) tokens.push_back(int32_t(ends[size_t(e)]));
    return tokens;
}

bool same_bits(const Result& a, const Result& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(F)) == 0;
}

}  // namespace
}  // namespace hotrow

int main() {
    using namespace hotrow;
    const Inputs in;
    const Result want = deterministic(in, 1);
    const double loss = hogwild(in, 1);
    const std::vector<int32_t> words = encode(1);
    bool equal[2], encoded[2];
    double found[2];
    const auto caller = [&](int c) {
        equal[c] = same_bits(deterministic(in, kThreads), want);
        encoded[c] = encode(kThreads) == words;
        found[c] = hogwild(in, kThreads);
    };
    std::thread beside(caller, 1);
    caller(0);
    beside.join();
    for (int c = 0; c < 2; ++c) {
        expect(equal[c], "the bits of one thread", c);
        expect(encoded[c], "the words of one thread", c);
        expect(std::abs(found[c] - loss) < 0.05 * loss, "the loss of one thread, about", c);
    }
    release_threads();
    std::printf("%s\n", failures ? "FAILED" : "passed");
    return failures != 0;
}
