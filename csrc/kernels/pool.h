// The output rows of the words of a block and of its pool of negatives.
#pragma once
#include "kernels/copies.h"
#include "kernels/windows.h"

namespace hotrow {
namespace HOTROW_ISA {
namespace {

constexpr int64_t kRowsAhead = 4;  // before a row of the table is written

// Where several threads train, each has copies of the rows of its pool while it is at work on the block: five of six
// rows that a window writes.
template <class F, class I>
struct OutputRows {
    F** of_pool;  // in step with Windows::pool

    HOTROW_INLINE OutputRows(const Epoch<I>& job, const Windows<I>& windows, Mat<F> out_table, Scratch& scratch)
        : of_pool(scratch.take<F*>(windows.pool_size + job.negative)),
          table(out_table),
          copied(job.threads > 1),
          copies(copied ? windows.pool_size : 0, table.cols, scratch) {
        for (int64_t j = 0; j < windows.pool_size; ++j) prefetch_row(table.row(windows.pool[j]), table.cols);
        if (copied) copy(windows, scratch);
        else
            for (int64_t j = 0; j < windows.pool_size; ++j) of_pool[j] = table.row(windows.pool[j]);
        for (int64_t k = 0; k < job.negative; ++k) of_pool[windows.pool_size + k] = of_pool[k];
    }
    HOTROW_INLINE F* row(I word) const {
        if (!copied) return table.row(word);
        const int64_t i = find(word);
        return slots[i] < 0 ? table.row(word) : copies.mine.row(slots[i]);
    }
    HOTROW_INLINE void finish() const {
        for (int64_t r = 0; r < count; ++r) {
            if (r + kRowsAhead < count) prefetch_row<true>(table.row(words[r + kRowsAhead]), table.cols);
            copies.template hand_over<false>(r, table.row(words[r]));
        }
    }

private:
    // Words by hash, in a table that is a quarter full at most: the slot of a word, or where it would be.
    HOTROW_INLINE int64_t find(I word) const {
        int64_t i = int64_t(uint32_t(uint64_t(word)) * 0x9E3779B1u >> shift);
        while (slots[i] >= 0 && words[slots[i]] != word) i = (i + 1) & mask;
        return i;
    }
    HOTROW_INLINE void copy(const Windows<I>& windows, Scratch& scratch) {
        const int64_t n = windows.pool_size;
        while ((int64_t(1) << (32 - shift)) < 4 * n) --shift;
        mask = (int64_t(1) << (32 - shift)) - 1;
        slots = scratch.take<int32_t>(mask + 1);
        words = scratch.take<I>(n);
        for (int64_t i = 0; i <= mask; ++i) slots[i] = -1;
        for (int64_t j = 0; j < n; ++j) {
            const int64_t i = find(windows.pool[j]);
            if (slots[i] < 0) {
                slots[i] = int32_t(count);
                words[count] = windows.pool[j];
                copies.copy(count++, table.row(windows.pool[j]));
            }
            of_pool[j] = copies.mine.row(slots[i]);
        }
    }

    Mat<F> table;
    bool copied;
    Copies<F> copies;
    int shift = 31;
    int64_t mask = 0, count = 0;
    int32_t* slots = nullptr;
    I* words = nullptr;
};

}  // namespace
}  // namespace HOTROW_ISA
}  // namespace hotrow
