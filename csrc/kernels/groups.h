// Negatives that windows share. The centres of a block are dealt into kGroup streams of successive words, and the i-th
// of all streams form a group with one draw of negatives. So far apart, windows have little else in common, and each
// centre has other negatives than its neighbours; but rows of negatives stay near while all of them are at work.
#pragma once
#include <cstring>

#include "kernels/window_step.h"
#include "kernels/windows.h"

namespace hotrow {
namespace HOTROW_ISA {
namespace {

// The groups of a block, of which the last may have fewer centres. Negative k of group i is draw p * K + k of
// Stream::negative, p being where its first centre is.
struct Groups {
    int32_t begin, end;  // of the centres
    int32_t count;       // of the groups, and of the centres of a stream
    int32_t* negatives;  // [K, count]
    int32_t* clashes;    // whether a negative of a group is also a centre or another negative of it

    HOTROW_INLINE Groups(const Epoch& job, const KeptWords& kept, Scratch& scratch)
        : begin(kept.centers_begin),
          end(kept.centers_end),
          count((end - begin + kGroup - 1) / kGroup),
          negatives(scratch.take<int32_t>(job.negative * count)),
          clashes(scratch.take<int32_t>(count)) {
        Scratch temporary = scratch;
        uint64_t* const drawn = temporary.take<uint64_t>(count);
        const Draws draws(job.seed, Stream::negative);
        for (int64_t k = 0; k < job.negative; ++k) {
            int32_t* const words = negatives + k * count;
            for (int32_t i = 0; i < count; ++i) drawn[i] = draws[uint64_t(kept.position[begin + i] * job.negative + k)];
            for (int32_t i = 0; i < count; ++i) words[i] = word_drawn(job, drawn[i]);
        }
        for (int32_t i = 0; i < count; ++i) clashes[i] = 0;
        for (int64_t k = 0; k < job.negative; ++k) {
            const int32_t* const words = negatives + k * count;
            for (int64_t e = 0; e < k; ++e)
                for (int32_t i = 0; i < count; ++i) clashes[i] |= words[i] == negatives[e * count + i];
            for (int s = 0; s < kGroup; ++s) {
                const int32_t* const centers = kept.word + center(0, s);
                const int32_t left = end - center(0, s), size = left < count ? left : count;
                for (int32_t i = 0; i < size; ++i) clashes[i] |= words[i] == centers[i];
            }
        }
    }
    // The centre that group i has of stream s; past the end if there is none.
    HOTROW_INLINE int32_t center(int32_t i, int s) const { return begin + s * count + i; }
};

constexpr int64_t kCopied = 8;  // pointers at a time, a register of 64 bytes: so much room there is past the last

// The windows of a group at work: pairs of an input and the own output of its window, window after window.
template <class F>
struct Group {
    F** inputs;
    F** owns;
    F** outputs;  // the negatives, from place 1 on: place 0 is of a window's own
    F* signs;     // of the coefficients
    const Pairs<F> coefficients;
    int windows = 0;
    int64_t first[kGroup + 1] = {};  // of the inputs of each window
    int64_t size[kGroup];            // and how many they are
    bool repeats[kGroup];            // whether one may be there twice

    HOTROW_INLINE Group(Scratch& scratch, int64_t max_inputs, int64_t negative)
        : inputs(scratch.take<F*>(kGroup * max_inputs + kCopied)),
          owns(scratch.take<F*>(kGroup * max_inputs)),
          outputs(scratch.take<F*>(1 + negative)),
          signs(scratch.take<F>(kGroup * max_inputs * (1 + negative) + lanes<F>)),
          coefficients{scratch.take<F>(kGroup * max_inputs * (1 + negative) + lanes<F>), kGroup * max_inputs,
                       1 + negative} {
        for (int64_t i = 0; i < coefficients.m * coefficients.n + lanes<F>; ++i) signs[i] = 1;
        for (int64_t a = 0; a < coefficients.m; ++a) signs[a * coefficients.width(0)] = -1;
    }
    HOTROW_INLINE F* own(int s) const { return owns[first[s]]; }
    // Takes a window whose m inputs stand at inputs + first[windows].
    HOTROW_INLINE void add(int64_t m, bool repeated, F* own_output) {
        const int64_t begin = first[windows], end = begin + m;
        for (int64_t a = begin; a < end; ++a) owns[a] = own_output;
        repeats[windows] = repeated;
        size[windows] = m;
        first[++windows] = end;
    }
    HOTROW_INLINE void merge_inputs(int s) {
        const auto at = [&, from = first[s]](int64_t a, int64_t b) HOTROW_INLINE_LAMBDA -> F& {
            return coefficients.at(from + a, b);
        };
        if (repeats[s]) merge_repeats(inputs + first[s], size[s], coefficients.n, at);
    }
    // A window alone: without negatives that are its own output, repeated rows merged.
    HOTROW_INLINE void take(int s, Window<F>& window) {
        window.set_inputs(inputs + first[s], size[s], true);
        window.n = 0;
        for (int64_t b = 0; b < coefficients.n; ++b)
            if (b == 0 || outputs[b] != own(s)) window.outputs[window.n++] = b == 0 ? own(s) : outputs[b];
        window.coefficients = {window.coefficients.numbers, window.m, window.n};
        for (int64_t b = 0, to = 0; b < coefficients.n; ++b) {
            if (b > 0 && outputs[b] == own(s)) continue;
            for (int64_t a = 0; a < window.m; ++a) window.coefficients.at(a, to) = coefficients.at(first[s] + a, b);
            ++to;
        }
        merge_repeats(window);
    }
};

// The coefficients of all inputs of the windows begin .. end - 1 with all outputs, o[0] being the own one of an input's
// window. Negatives that are a window's own output are left out; without `clash` there are none.
template <class F>
HOTROW_OWN_FUNCTION void coefficients_of(Group<F>& g, int begin, int end, int64_t cols, F lr, bool clash,
                                         SoftplusSum<F>& loss) {
    const Pairs<F> pairs = g.coefficients;
    const int64_t from = g.first[begin], to = g.first[end];
    F** const inputs = g.inputs + from;
    F** const owns = g.owns + from;
    for (int64_t q = 0; q < pairs.n; q += kOutputs) {
        const int64_t n = pairs.width(q);
        F* const x = pairs.chunk(q) + from * n;
        if (q == 0) dots_of_tiles<true>(inputs, owns, to - from, g.outputs, n, cols, x);
        else dots_of_tiles<false>(inputs, owns, to - from, g.outputs + q, n, cols, x);
        for (int64_t b = q > 0 ? q : 1; b < q + n && clash; ++b)
            for (int64_t a = from; a < to; ++a)
                if (g.outputs[b] == g.owns[a]) pairs.at(a, b) = kNoScore;
        coefficients_of(x, g.signs + (x - pairs.numbers), (to - from) * n, lr, loss);
    }
}

// For the windows s from `begin` on in turn: to[a] = h[a] + sum_b coefficient[a, b] o[b] and o[b] += sum_a
// coefficient[a, b] h[a] with their own output as o[0] and B - 1 negatives, none of which is another output of the
// group. InPlace: to is h; else without the term h[a], and each window has one input. One pass over the columns: rows
// of negatives are loaded and stored once.
template <int B, bool InPlace, class F>
void update_outputs(Group<F>& g, int begin, int end, F* const* to, int64_t cols) {
    F* o[B];
    for (int b = 1; b < B; ++b) o[b] = g.outputs[b];
    const auto columns = [&](int64_t d, auto part) HOTROW_INLINE_LAMBDA {
        using V = decltype(load(g.inputs[0] + d, part));
        V before[B], after[B];
        for (int b = 1; b < B; ++b) after[b] = load(o[b] + d, part);
        for (int s = begin; s < end; ++s) {
            const int64_t from = InPlace ? g.first[s] : s;
            F* const own = g.owns[from] + d;
            after[0] = load(own, part);
            for (int b = 0; b < B; ++b) before[b] = after[b];
            for (int64_t a = from; a < (InPlace ? from + g.size[s] : from + 1); ++a) {
                const V x = load(g.inputs[a] + d, part);
                const V moved = InPlace ? x : V{};
                store(to[a] + d, update_pairs<B>(g.coefficients.numbers + a * B, x, moved, before, after), part);
            }
            store(own, after[0], part);
        }
        for (int b = 1; b < B; ++b) store(o[b] + d, after[b], part);
    };
    for_long_registers<F>(cols, columns);
    for_short_registers<F>(cols, columns);
}

// How many windows of a group are scored at once: no more than surely descend the loss of a negative. Its curvature is
// at most a quarter of the sum of squares of its inputs, and a step does not overshoot if lr times that is at most 1.
// The first inputs stand for all, and the group for so many of its block.
constexpr int32_t kGroupsAlike = 4;
template <class F>
HOTROW_OWN_FUNCTION int windows_at_once(const Group<F>& g, F lr, int64_t cols) {
    const int64_t inputs = g.first[g.windows], judged = inputs < 8 ? inputs : 8;
    if (inputs == 0) return kGroup;
    pack<F> squares = zero<F>();
    for (int64_t a = 0; a < judged; ++a)
        for_registers<F>(cols, [&](int64_t d, auto part) HOTROW_INLINE_LAMBDA {
            const pack<F> x = load(g.inputs[a] + d, part);
            squares = fma(x, x, squares);
        });
    const F sum_of_squares = reduce<1, lanes<F>, F>(&squares)[0];
    const F reach = lr / 4 * sum_of_squares * F(inputs), limit = F(judged) * F(g.windows);
    for (int windows = kGroup; windows > 1; --windows)
        if (reach * F(windows) <= limit) return windows;
    return 1;
}

// Trains the windows of a group, so many at once: their scores, then together(begin, end) for all, or alone(s) for each
// where outputs do not fit registers or clash.
template <class F, class Together, class Alone, class Meanwhile>
HOTROW_INLINE void train_group(Group<F>& g, int at_once, int64_t cols, F lr, bool clash, SoftplusSum<F>& loss,
                               const Together& together, const Alone& alone, const Meanwhile& meanwhile) {
    for (int begin = 0, end; begin < g.windows; begin = end) {
        end = begin + at_once < g.windows ? begin + at_once : g.windows;
        coefficients_of(g, begin, end, cols, lr, clash, loss);
        if (begin == 0) meanwhile();
        if (!clash && g.coefficients.n <= kOutputs) {
            with_width<kOutputs>(int(g.coefficients.n), [&](auto width)
                                                            HOTROW_INLINE_LAMBDA { together(width, begin, end); });
        } else {
            for (int s = begin; s < end; ++s) alone(s);
        }
    }
    g.windows = 0;
}

// For each group of the tokens `range`: add(rows, m, repeats, own) for each of its windows that has contexts, with
// their m rows (`repeats`: one may be there twice), which stand in `contexts`, those of a group one after another, and
// that of its own output; then train(at_once, clash, meanwhile) with the rows of its negatives in group.outputs
// (`clash`: one of these may be there twice or be a window's own), which calls meanwhile(), to fetch rows of the next
// group, where it waits for its scores. lr falls linearly from lr_begin to lr_end over all tokens; a group has that of
// its first centre.
template <class F, class Add, class Train>
HOTROW_INLINE void for_groups(const Epoch& job, Range range, Scratch& scratch, Mat<F> in_table, Mat<F> out_table,
                              Group<F>& group, F** contexts, const Add& add, const Train& train) {
    const KeptWords kept(job, range, scratch);
    const Windows windows(job, kept, scratch);
    const Groups groups(job, kept, scratch);
    const double lr_slope = (job.lr_end - job.lr_begin) / double(job.offsets[job.sentences]);
    F** const rows = scratch.take<F*>(windows.room + kCopied);
    for (int32_t c = windows.first; c < kept.count; ++c) rows[c] = in_table.row(kept.word[c]);

    const int32_t window = int32_t(job.window);
    const auto fetch = [cols = out_table.cols](const F* row) HOTROW_INLINE_LAMBDA { prefetch_row(row, cols); };
    const auto for_centers = [&](int32_t i, const auto& body) HOTROW_INLINE_LAMBDA {
        for (int s = 0; s < kGroup && groups.center(i, s) < groups.end; ++s) body(groups.center(i, s));
    };
    const auto fetch_group = [&](int32_t i) HOTROW_INLINE_LAMBDA {
        for (int64_t k = 0; k < job.negative; ++k) fetch(out_table.row(groups.negatives[k * groups.count + i]));
        for_centers(i, [&](int32_t t) HOTROW_INLINE_LAMBDA {
            fetch(out_table.row(kept.word[t]));
            if (t + window < kept.count) fetch(rows[t + window]);
        });
    };
    if (groups.count > 0) fetch_group(0);
    for_centers(0, [&](int32_t t) HOTROW_INLINE_LAMBDA {
        for (int32_t c = t - window < windows.first ? windows.first : t - window; c < t + window && c < kept.count; ++c)
            fetch(rows[c]);
    });
    int at_once = kGroup;
    for (int32_t i = 0; i < groups.count; ++i) {
        F** next = contexts;
        for_centers(i, [&](int32_t t) HOTROW_INLINE_LAMBDA {
            const int64_t m = windows.contexts(t), begin = windows.begin[t];
            if (m == 0) return;
            for (int64_t a = 0; a <= m; a += kCopied) std::memcpy(next + a, rows + begin + a, kCopied * sizeof(F*));
            next[t - begin] = next[m];  // in place of the centre
            add(next, m, windows.repeats[t] != 0, out_table.row(kept.word[t]));
            next += m;
        });
        for (int64_t k = 0; k < job.negative; ++k)
            group.outputs[1 + k] = out_table.row(groups.negatives[k * groups.count + i]);
        const F lr = F(job.lr_begin + lr_slope * double(kept.position[groups.begin + i]));
        if (i % kGroupsAlike == 0) at_once = windows_at_once(group, lr, in_table.cols);
        train(at_once, lr, groups.clashes[i] != 0, [&, ahead = i + 1]() HOTROW_INLINE_LAMBDA {
            if (ahead < groups.count) fetch_group(ahead);
        });
    }
}

}  // namespace
}  // namespace HOTROW_ISA
}  // namespace hotrow
