// From text to numbered words in one pass. Each block of text is cut among threads at white space; every thread numbers
// the words it meets in a table of its own. When the text has ended the tables are merged and the numbers replaced.
#pragma once
#include <string>
#include <vector>

#include "text/words.h"
#include "view.h"

namespace hotrow::text {

class Encoder {
public:
    // Word numbers of a part of a block, and the numbers of words before each end of a line in it.
    struct Piece {
        const int32_t* tokens;
        int64_t count;
        const std::vector<int64_t>* ends;
    };

    explicit Encoder(int threads) : tables_(size_t(threads)), scratch_(size_t(threads)), numbers_(size_t(threads)) {}

    // The pieces of the next bytes of the text, in order; they hold until the next call.
    std::vector<Piece> feed(const Byte* data, int64_t size);
    // The last word, if no white space followed it.
    std::vector<Piece> close();

    // Puts up to `most` more words into one table, invalid UTF-8 replaced; returns whether all are there.
    bool merge(int64_t most);
    const Words& words() const { return tables_[0]; }
    const std::vector<int64_t>& counts() const { return counts_; }  // 0 for words that were invalid

    // From here on words have these numbers, -1 for those that leave. Once, after merge().
    void renumber(const int32_t* number);
    // Renumbers up to `most` more of all tokens the pieces held and closes the gaps, in both arrays; ends of lines that
    // have no words go. `ends` begins with 0. Returns whether all is done.
    bool compact(int32_t* tokens, int64_t* ends, int64_t ends_count, int64_t most);
    int64_t tokens_kept() const { return tokens_kept_; }
    int64_t ends_kept() const { return ends_kept_; }

private:
    struct Scratch {
        std::vector<int32_t> tokens;
        std::vector<int64_t> ends;
        int64_t count = 0;
    };
    struct Segment {
        int64_t end;  // tokens before its end
        int thread;   // whose numbers they are
    };

    void number_words(int thread, Range range, const Byte* data, const Byte* limit);
    void number_carried(int64_t length);
    std::vector<Piece> pieces();
    int64_t renumber_piece(Range range, int32_t* tokens, int64_t* end, const int64_t* last_end) const;

    std::vector<Words> tables_;     // of each thread
    std::vector<Scratch> scratch_;  // of each thread
    std::vector<Segment> segments_;
    std::vector<Byte> carried_;  // a word that may go on in the next block
    int64_t position_ = 0;       // bytes before the next block
    int64_t tokens_ = 0;

    std::vector<std::vector<int32_t>> numbers_;  // what becomes of each thread's numbers
    std::vector<int64_t> counts_;                // in the table that is being merged, then of all words
    size_t merging_ = 0;                         // the table that is next, and the word in it
    int64_t merged_ = 0;
    int64_t done_ = 0, tokens_kept_ = 0, ends_done_ = 1, ends_kept_ = 1;
};

}  // namespace hotrow::text
