"""The words of a block of tokens: which are kept, how far their windows reach, what is drawn for them."""

from __future__ import annotations

import numpy as np

from hotrow._numba.random import draw
from hotrow._numba.views import jit, part

_KEEP, _WINDOW, _NEGATIVE = np.uint64(1), np.uint64(2), np.uint64(3)
_LOW = np.uint64(0xFFFFFFFF)
_32, _63 = np.uint64(32), np.uint64(63)


@part
def below(x, n):
    """The high half of a draw as an integer in [0, n)."""
    return np.int64(((x >> _32) * np.uint64(n)) >> _32)


@part
def _kept(tokens, keep, seed, p):
    return (draw(seed, _KEEP, p) & _LOW) <= keep[tokens[p]]


@jit
def kept_words(tokens, offsets, keep, window, shrink, seed, begin, end, word, place, window_begin, window_end):
    """The kept words of tokens begin .. end - 1, the centres, and up to `window` on either side of them; the centres'
    windows among them. Returns the number of words and the bounds of the centres.
    """
    count = centers_begin = centers_end = 0
    s = np.searchsorted(offsets, begin, side="right") - 1
    while s < offsets.size - 1 and offsets[s] < end:
        p, first, left = max(begin, offsets[s]), count, 0
        while p > offsets[s] and left < window:
            p -= 1
            left += _kept(tokens, keep, seed, p)
        centers_begin += left  # only the first sentence may have begun before
        while p < offsets[s + 1] and (p < end or count < centers_end + window):
            word[count], place[count] = tokens[p], p
            count += _kept(tokens, keep, seed, p)  # no branch: nobody could foresee it
            p += 1
            if p <= end:
                centers_end = count
        for t in range(first + left, centers_end):
            reach = 1 + below(draw(seed, _WINDOW, place[t]), window) if shrink else window
            window_begin[t], window_end[t] = max(first, t - reach), min(count, t + reach + 1)
        s += 1
    return count, centers_begin, centers_end


@part
def draw_words(accept, other, seed, first, n, words):
    """words[: n]: the negatives that n draws from number `first` on stand for."""
    for k in range(n):
        x = draw(seed, _NEGATIVE, first + k)
        bucket = below(x, accept.size)
        rejected = np.int64((np.uint64(accept[bucket]) - (x & _LOW)) >> _63)  # 0 or 1; a coin toss, so no branch
        words[k] = bucket + (np.int64(other[bucket]) - bucket) * rejected
