// The words of a block of tokens: which are kept, how far their windows reach, what is drawn for them.
#pragma once
#include "kernels/scratch.h"
#include "kernels/simd.h"
#include "runtime/random.h"

namespace hotrow {
namespace HOTROW_ISA {
namespace {

// The words of a token range that survive subsampling, the centres, each with the bounds of its sentence among them; up
// to `window` words on either side of the range serve as contexts only, and are looked for only if there are centres.
struct KeptWords {
    int32_t* word;
    int64_t* position;
    int32_t* sentence_begin;
    int32_t* sentence_end;
    int32_t centers_begin, centers_end, count;

    HOTROW_INLINE KeptWords(const Epoch& job, Range range, Scratch& scratch) {
        const int64_t room = kTokensPerBlock + 2 * job.window;
        word = scratch.take<int32_t>(room);
        position = scratch.take<int64_t>(room);
        sentence_begin = scratch.take<int32_t>(room);
        sentence_end = scratch.take<int32_t>(room);
        const Draws draws(job.seed, Stream::keep);
        const auto kept = [&](int64_t p) { return low(draws[uint64_t(p)]) <= job.keep[job.tokens[p]]; };

        count = centers_begin = int32_t(job.window);
        const int64_t first = sentence_of(job, range.begin);
        int32_t first_end = count, last_begin = count;  // centres of the first and of the last sentence
        int64_t p = range.begin, s = first;
        for (; p < range.end; ++s) {
            last_begin = count;
            for (; p < job.offsets[s + 1] && p < range.end; ++p) push(job, p, kept(p));
            if (s == first) first_end = count;
            set_bounds(last_begin, count, last_begin, count);
        }
        centers_end = count;
        if (last_begin < centers_end) {  // the last sentence may go on
            for (; p < job.offsets[s] && count < centers_end + job.window; ++p) push(job, p, kept(p));
            set_bounds(last_begin, centers_end, last_begin, count);
        }
        if (centers_begin < first_end) {  // the first one may have begun before
            int32_t begin = centers_begin;
            for (p = range.begin - 1; p >= job.offsets[first] && begin > 0; --p)
                if (kept(p)) word[--begin] = job.tokens[p];
            for (int32_t i = centers_begin; i < first_end; ++i) sentence_begin[i] = begin;
        }
    }
    HOTROW_INLINE void set_bounds(int32_t i, int32_t end, int32_t sentence_from, int32_t sentence_to) {
        for (; i < end; ++i) {
            sentence_begin[i] = sentence_from;
            sentence_end[i] = sentence_to;
        }
    }
    HOTROW_INLINE void push(const Epoch& job, int64_t p, bool kept) {  // no branch: nobody could foresee it
        word[count] = job.tokens[p];
        position[count] = p;
        count += kept;
    }
    // The sentence that token p belongs to: the last one that starts at or before p.
    static HOTROW_INLINE int64_t sentence_of(const Epoch& job, int64_t p) {
        int64_t low = 0, high = job.sentences;
        while (high - low > 1) {
            const int64_t middle = low + (high - low) / 2;
            (job.offsets[middle] <= p ? low : high) = middle;
        }
        return low;
    }
};

// The word that a draw stands for.
HOTROW_INLINE int32_t word_drawn(const Epoch& job, uint64_t draw) {
    const int64_t bucket = int64_t(scale_high(draw, uint64_t(job.vocabulary)));
    const int32_t other = job.alias_other[bucket], reject = -int32_t(low(draw) > job.alias_accept[bucket]);
    return (int32_t(bucket) & ~reject) | (other & reject);  // the choice is a coin toss: no branch
}

// Where the windows of the centres of a block begin and end among the kept words, in loops that compilers make vectors
// of.
struct Windows {
    int32_t* begin;
    int32_t* end;
    int32_t* repeats;  // whether a word stands twice among the contexts or is the centre, too; if not, it does not
    int64_t room;
    int32_t first;  // of the words that windows may reach

    HOTROW_INLINE int64_t contexts(int32_t t) const { return end[t] - begin[t] - 1; }
    HOTROW_INLINE Windows(const Epoch& job, const KeptWords& kept, Scratch& scratch)
        : begin(kept.sentence_begin), end(kept.sentence_end), room(kTokensPerBlock + 2 * job.window) {
        const bool any = kept.centers_begin < kept.centers_end;
        first = any ? begin[kept.centers_begin] : kept.count;
        repeats = scratch.take<int32_t>(room);
        Scratch temporary = scratch;
        if (any) draw_windows(job, kept, temporary.take<int32_t>(room));
    }

private:
    // latest[c]: the last of the words before c that stands again, up to c and no more than a window after itself.
    void draw_windows(const Epoch& job, const KeptWords& kept, int32_t* latest) const {
        const Draws draws(job.seed, Stream::window);
        const int32_t window = int32_t(job.window);
        for (int32_t c = first; c < kept.count; ++c) latest[c] = -1;
        for (int32_t k = 2 * window; k > 0; --k)
            for (int32_t c = first + k; c < kept.count; ++c)
                latest[c] = kept.word[c] == kept.word[c - k] ? c - k : latest[c];
        for (int32_t c = first + 1; c < kept.count; ++c)
            latest[c] = latest[c] > latest[c - 1] ? latest[c] : latest[c - 1];

        for (int32_t t = kept.centers_begin; t < kept.centers_end; ++t) {
            const int32_t drawn = 1 + int32_t(scale_high(draws[uint64_t(kept.position[t])], uint64_t(window)));
            const int32_t reach = job.shrink_windows ? drawn : window;
            begin[t] = begin[t] > t - reach ? begin[t] : t - reach;
            end[t] = end[t] < t + reach + 1 ? end[t] : t + reach + 1;
            repeats[t] = latest[end[t] - 1] >= begin[t];
        }
    }
};

// For each kept word of a block in turn, the centre t: its contexts are the kept words of its sentence within a drawn
// window. Of centres that have any, train(t, inputs, m, lr, meanwhile) gets m rows in inputs, in_table[context]. lr
// falls linearly from lr_begin to lr_end over all tokens. fetch(row) brings the row of a context near and
// fetch_outputs(t) those of outputs, `Ahead` centres before they are needed; train() calls meanwhile(), which does so,
// where it waits for its scores.
template <int32_t Ahead, class F, class Fetch, class FetchOutputs, class Train>
HOTROW_INLINE void for_contexts(const Epoch& job, const KeptWords& kept, const Windows& windows,
                                Scratch& scratch, Mat<F> in_table, const Fetch& fetch,
                                const FetchOutputs& fetch_outputs, const Train& train) {
    const double lr_slope = (job.lr_end - job.lr_begin) / double(job.offsets[job.sentences]);

    // Rows of all kept words but the centre t: of word c at c before t, at c - 1 after it.
    F** const inputs = scratch.take<F*>(windows.room);
    for (int32_t c = windows.first; c < kept.centers_begin; ++c) inputs[c] = in_table.row(kept.word[c]);
    for (int32_t c = kept.centers_begin + 1; c < kept.count; ++c) inputs[c - 1] = in_table.row(kept.word[c]);

    for (int32_t t = kept.centers_begin - Ahead; t < kept.centers_end; ++t) {
        const auto fetch_ahead = [&, ahead = t + Ahead]() HOTROW_INLINE_LAMBDA {
            if (ahead < kept.centers_end) fetch_outputs(ahead);
            if (ahead + job.window < kept.count) fetch(in_table.row(kept.word[ahead + job.window]));
        };
        if (t < kept.centers_begin) {
            fetch_ahead();
            continue;
        }
        if (t > kept.centers_begin) inputs[t - 1] = in_table.row(kept.word[t - 1]);
        const int64_t m = windows.contexts(t);
        if (m == 0) {
            fetch_ahead();
            continue;
        }
        const double lr = job.lr_begin + lr_slope * double(kept.position[t]);
        train(t, inputs + windows.begin[t], m, F(lr), fetch_ahead);
    }
}

}  // namespace
}  // namespace HOTROW_ISA
}  // namespace hotrow
