// Skip-gram and continuous bag of words with hierarchical softmax (Morin and Bengio 2005; Mikolov et al. 2013): the
// outputs of a window are the inner nodes on the path to its centre in a Huffman tree, code 0 being the positive label.
// They take the place of the negatives, which a window shares just so; no node stands in a path twice.
#pragma once
#include "kernels/cbow.h"
#include "kernels/copies.h"

namespace hotrow {
namespace HOTROW_ISA {
namespace {

constexpr int kPathsAhead = 8;         // centres before the rows of a path are fetched, the path is
constexpr int64_t kNodesNear = 512;    // whose rows stay near: the last ones, in most paths
constexpr int64_t kPairsApart = 1024;  // trained on before a thread hands over what it did to the shared nodes

// Where several threads train, each has copies of the nodes at the top of the tree. Every kPairsApart pairs of an input
// and a path, the table gets what the copies have gained and the copies get the table. Of two threads that did so with
// one node at the same time, one would lose its gain: each node has a lock.
template <class F>
struct SharedNodes {
    HOTROW_INLINE SharedNodes(Mat<F> out_table, int threads, bool* node_locks, Scratch& scratch)
        : table(out_table),
          locks(node_locks),
          rows(threads > 1 ? out_table.rows < kSharedNodes ? out_table.rows : kSharedNodes : 0),
          first(out_table.rows - rows),
          copies(rows, table.cols, scratch) {
        for (int64_t r = 0; r < rows; ++r) copies.copy(r, table.row(first + r));
    }
    HOTROW_INLINE void exchange() {
        pairs = 0;
        for (int64_t r = 0; r < rows; ++r) {
            bool* const lock = locks + r * kLockBytes;
            while (__atomic_test_and_set(lock, __ATOMIC_ACQUIRE)) {
            }
            copies.template hand_over<true>(r, table.row(first + r));
            __atomic_clear(lock, __ATOMIC_RELEASE);
        }
    }
    HOTROW_INLINE F* row(int64_t node) const { return node >= first ? copies.mine.row(node - first) : table.row(node); }
    HOTROW_INLINE void trained(int64_t more) {
        pairs += more;
        if (pairs >= kPairsApart) exchange();
    }

private:
    Mat<F> table;
    bool* locks;
    int64_t rows, first;
    Copies<F> copies;
    int64_t pairs = 0;
};

// The centres and contexts of for_contexts; train(inputs, m, n, codes, repeats, lr, meanwhile) gets n rows in outputs
// too, those of the points of the centre's path, and their codes, and returns how many pairs it trained on; `repeats`
// says whether a row may be among the inputs twice.
template <int32_t Ahead, class F, class Fetch, class Train>
HOTROW_INLINE void for_paths(const Epoch& job, const Paths& paths, Range range, Scratch& scratch, Mat<F> in_table,
                             Mat<F> out_table, F** outputs, const Fetch& fetch, const Train& train) {
    const KeptWords kept(job, range, scratch);
    const Windows windows(job, kept, scratch);
    SharedNodes<F> nodes(out_table, job.threads, paths.locks, scratch);
    const auto fetch_outputs = [&](int32_t t) HOTROW_INLINE_LAMBDA {
        if (t + kPathsAhead < kept.centers_end) {
            const int64_t ahead = paths.offsets[kept.word[t + kPathsAhead]];
            __builtin_prefetch(paths.points + ahead);
            __builtin_prefetch(paths.codes + ahead);
        }
        const int64_t begin = paths.offsets[kept.word[t]], end = paths.offsets[kept.word[t] + 1];
        for (int64_t k = begin; k < end; ++k)
            if (paths.points[k] < out_table.rows - kNodesNear) fetch(out_table.row(paths.points[k]));
    };
    const auto with_path = [&](int32_t t, F** inputs, int64_t m, F lr, const auto& meanwhile) HOTROW_INLINE_LAMBDA {
        const int64_t begin = paths.offsets[kept.word[t]], n = paths.offsets[kept.word[t] + 1] - begin;
        for (int64_t b = 0; b < n; ++b) outputs[b] = nodes.row(paths.points[begin + b]);
        nodes.trained(train(inputs, m, n, paths.codes + begin, windows.repeats[t] != 0, lr, meanwhile));
    };
    for_contexts<Ahead>(job, kept, windows, scratch, in_table, fetch, fetch_outputs, with_path);
    nodes.exchange();
}

// -1 for each lane whose bit in `ones` is 0, else 1.
template <class F>
HOTROW_INLINE pack<F> signs_of_bits(uint32_t ones) {
    pack<bits<F>> lane;
    for (int i = 0; i < lanes<F>; ++i) lane[i] = i;
    return __builtin_convertvector((((pack<bits<F>>{} + bits<F>(ones)) >> lane) & 1) * 2 - 1, pack<F>);
}

// Sets the signs of a window to those of the codes of its path: outputs of code 0 are positive.
template <class F>
HOTROW_INLINE void set_signs(Window<F>& w, const uint8_t* codes) {
    const Pairs<F> signs{w.signs, w.m, w.n};
    for (int64_t q = 0; q < w.n; q += kOutputs) {
        const int64_t width = signs.width(q);
        uint32_t ones = 0;
        for (int64_t b = 0; b < width; ++b) ones |= uint32_t(codes[q + b]) << b;
        for (int64_t a = 0; a < w.m; ++a)
            for (int k = 0; k < width; k += lanes<F>)
                store(signs.chunk(q) + a * width + k, signs_of_bits<F>(ones >> k));
    }
}

// With h[a] and o[b] the inputs and outputs of for_paths and sign[b] = -1 for code 0, 1 for code 1:
//   loss = sum_ab softplus(sign[b] h[a] . o[b]);   h[a] -= lr d loss / d h[a];   o[b] -= lr d loss / d o[b]
// from the values before it, repeated rows added up.
template <class F>
void skipgram_hs_epoch(const Epoch& job, const Paths& paths, Range range, void* memory, Mat<F> in_table,
                       Mat<F> out_table, Loss& loss) {
    Scratch scratch{static_cast<char*>(memory)};
    Window<F> w(scratch, 2 * job.window, paths.longest, in_table.cols);
    SoftplusSum<F> sum;
    const auto fetch = [cols = in_table.cols](const F* row) HOTROW_INLINE_LAMBDA { prefetch_row(row, cols); };
    const auto train = [&](F** inputs, int64_t m, int64_t n, const uint8_t* codes, bool repeats, F lr,
                           const auto& meanwhile) HOTROW_INLINE_LAMBDA {
        w.set_inputs(inputs, m, repeats);
        w.n = n;
        set_signs(w, codes);
        train_window(w, in_table.cols, lr, repeats, meanwhile, sum);
        loss.terms += m;
        return m;
    };
    for_paths<2>(job, paths, range, scratch, in_table, out_table, w.outputs, fetch, train);
    sum.flush();
    loss.sum += sum.total;
}

// With C[a] and o[b] the m inputs and the outputs of for_paths, in turn, h = sum_a C[a], over m if cbow_mean, and
// sign[b] as above:
//   loss = sum_b softplus(sign[b] h . o[b]);   o[b] -= lr d loss / d o[b]
//   C[a] -= lr d loss / d h, over m unless cbow_mean: as gensim has it
template <class F>
void cbow_hs_epoch(const Epoch& job, const Paths& paths, bool cbow_mean, Range range, void* memory, Mat<F> in_table,
                   Mat<F> out_table, Loss& loss) {
    Scratch scratch{static_cast<char*>(memory)};
    const int64_t cols = in_table.cols;
    Window<F> w(scratch, 1, paths.longest, cols);
    w.inputs[0] = scratch.take<F>(cols);
    w.m = 1;
    SoftplusSum<F> sum;
    const auto fetch = [cols](const F* row) HOTROW_INLINE_LAMBDA { prefetch_row(row, cols); };
    const auto train = [&](F** contexts, int64_t m, int64_t n, const uint8_t* codes, bool, F lr, const auto& meanwhile)
                           HOTROW_INLINE_LAMBDA {
        const F one_over_m = F(1) / F(m);
        pool_bag(contexts, m, cbow_mean ? one_over_m : F(1), cols, w.inputs[0]);
        w.n = n;
        set_signs(w, codes);
        dots_of(w, cols);
        meanwhile();
        coefficients_of(w.coefficients.numbers, w.signs, n, lr, sum);
        update_bag(contexts, m, cbow_mean ? F(1) : one_over_m, w, cols);
        ++loss.terms;
        return int64_t(1);
    };
    for_paths<4>(job, paths, range, scratch, in_table, out_table, w.outputs, fetch, train);
    sum.flush();
    loss.sum += sum.total;
}

}  // namespace
}  // namespace HOTROW_ISA
}  // namespace hotrow
