"""Any kind of corpus as encoded sentences, with a vocabulary of its own or numbered by one that is there already."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

import numpy as np

from hotrow import _check, _encode, text
from hotrow._encode import Array
from hotrow.text import Corpus

_CHUNK = 1 << 20  # numbers worked on at a time, so that no copy of a corpus is made
_KINDS = "a path, an iterable of str or of lists of str, a hotrow.text.Corpus, or integers with offsets"


def encode(
    corpus: Any,
    offsets: Any = None,
    *,
    min_count: int = 5,
    max_final_vocab: int | None = None,
    threads: int | None = None,
    bar: bool | None = None,
) -> Corpus:
    """The sentences of a corpus of any kind; see Word2Vec.fit.

    Raises:
        TypeError: it is of no such kind, or holds something else.
        ValueError, OSError: as text.encode_file.
        IndexError: a negative number.
    """
    if offsets is not None:
        return _of_numbers(*_numbers(corpus, offsets), min_count, max_final_vocab)
    limits: dict[str, Any] = {"min_count": min_count, "max_final_vocab": max_final_vocab}
    if isinstance(corpus, Corpus):
        return _checked(corpus)
    if isinstance(corpus, (str, os.PathLike)):
        return text.encode_file(corpus, **limits, threads=threads, bar=bar)
    if isinstance(corpus, np.ndarray) and corpus.dtype.kind not in "UO":
        raise TypeError(f"a corpus that is an array of {corpus.dtype} needs offsets")
    if isinstance(corpus, (bytes, bytearray)) or not isinstance(corpus, Iterable):
        raise TypeError(f"corpus must be {_KINDS}, not {type(corpus).__name__}")
    remaining = iter(corpus)
    start = list(islice(remaining, 1))
    sentences = chain(start, remaining)
    if start and isinstance(start[0], str):
        return text.encode_lines(_lines(sentences), **limits, threads=threads, bar=bar)
    return text.encode(_lists(sentences), **limits)


def _lines(lines: Iterable[Any]) -> Iterator[str]:
    for i, line in enumerate(lines):
        if not isinstance(line, str):
            raise TypeError(f"corpus[{i}] must be a str as corpus[0] is, not {type(line).__name__}")
        yield line


def _lists(sentences: Iterable[Any]) -> Iterator[list[str]]:
    for i, sentence in enumerate(sentences):
        if isinstance(sentence, (str, bytes)) or not isinstance(sentence, Iterable):
            wanted = "a list of str" if i else "a str or a list of str"
            raise TypeError(f"corpus[{i}] must be {wanted}, not {type(sentence).__name__}")
        words = list(sentence)
        for kind in set(map(type, words)):
            if not issubclass(kind, str):
                hint = ": numbers go as an array, with offsets" if issubclass(kind, (int, np.integer)) else ""
                raise TypeError(f"corpus[{i}] must hold str, not {kind.__name__}{hint}")
        yield words


def _numbers(tokens: Any, offsets: Any, name: str = "corpus") -> tuple[Array, Array]:
    """Word numbers and where sentences start, checked but for numbers that are too large."""
    arrays = []
    for called, values in ((name, tokens), ("offsets", offsets)):
        beside = " beside offsets" if called == "corpus" else ""
        try:
            a = np.asarray(values)
        except ValueError:  # sequences of different lengths
            raise TypeError(f"{called} must be one array of int32 or int64{beside}, not sequences") from None
        if a.dtype not in (np.int32, np.int64):
            raise TypeError(f"{called} must be int32 or int64{beside}, not {a.dtype.name}")
        if a.ndim != 1:
            raise TypeError(f"{called} must have 1 dimension, not {a.ndim}")
        arrays.append(np.ascontiguousarray(a))
    tokens, offsets = arrays[0], arrays[1].astype(np.int64, copy=False)
    if offsets.size == 0:
        raise ValueError(f"offsets must have at least 1 entry: 0, and {tokens.size} at the end")
    _check.offsets(offsets, tokens.size, name)
    if tokens.size == 0:
        raise ValueError("the text has no words")
    if tokens.min() < 0:
        i = int(np.argmax(tokens < 0))
        raise IndexError(f"{name}[{i}] = {tokens[i]} is negative")
    return tokens, offsets


def _of_numbers(tokens: Array, offsets: Array, min_count: int, max_final_vocab: int | None) -> Corpus:
    size = int(tokens.max()) + 1
    if size >= 2**31:
        raise ValueError(f"corpus[{int(tokens.argmax())}] = {size - 1} is too large: number words from 0, without gaps")
    counts = np.zeros(size, np.int64)
    for chunk in _chunks(tokens, max(_CHUNK, size)):
        counts += np.bincount(chunk, minlength=size)
    settings = _encode.Settings(min_count, max_final_vocab, None)
    least = _encode.least_count(counts, tokens.size, settings) if min_count or max_final_vocab else 0
    order = np.flatnonzero(counts >= least)
    number = np.full(size, -1, np.int32)
    number[order] = np.arange(order.size, dtype=np.int32)
    return Corpus([str(i) for i in order.tolist()], counts[order], *renumber(number, tokens, offsets))


def _checked(corpus: Corpus) -> Corpus:
    """A Corpus as it is, if its parts fit together."""
    tokens, offsets = _numbers(corpus.tokens, corpus.offsets, "tokens")
    words, counts = corpus.words, np.asarray(corpus.counts)
    if counts.shape != (len(words),) or counts.dtype.kind != "i":
        raise ValueError(f"{len(words)} words need as many counts, not {counts.dtype.name} of shape {counts.shape}")
    for word in words:
        if not isinstance(word, str):
            raise TypeError(f"words must be strings, not {type(word).__name__}: {word!r}")
    if len(set(words)) < len(words):
        raise ValueError(f"of {len(words)} words only {len(set(words))} are different")
    if (last := int(tokens.max())) >= len(words):
        raise IndexError(f"tokens[{int(tokens.argmax())}] = {last} is out of range for {len(words)} words")
    return Corpus(words, counts, tokens, offsets)


def extend(corpus: Corpus, known: Sequence[str], min_count: int, most: int | None) -> Corpus:
    """The corpus numbered by the words known, then those of its others that occur `min_count` times, the most frequent
    first, up to `most` in all. What is left is left out. Counts are those in this corpus.

    Raises:
        ValueError: no word stays.
    """
    row = {word: i for i, word in enumerate(known)}
    number = np.array([row.get(word, -1) for word in corpus.words], np.int32)
    new = np.flatnonzero((number < 0) & (corpus.counts >= min_count))
    new = new[np.argsort(-corpus.counts[new], kind="stable")]
    if most is not None:
        new = new[: max(0, most - len(known))]
    number[new] = np.arange(len(known), len(known) + new.size, dtype=np.int32)
    kept = number >= 0
    if not kept.any():
        raise ValueError(f"no word of the text is known or occurs {min_count} times: lower min_count")
    words = [*known, *(corpus.words[i] for i in new)]
    counts = np.zeros(len(words), np.int64)
    counts[number[kept]] = corpus.counts[kept]
    return Corpus(words, counts, *renumber(number, corpus.tokens, corpus.offsets))


def renumber(number: Array, tokens: Array, offsets: Array) -> tuple[Array, Array]:
    """Tokens by their new number, those of number -1 left out, and where sentences start then."""
    if np.array_equal(number, np.arange(number.size)):
        return tokens, offsets
    return _encode.renumber(number, _chunks(tokens), _chunks(offsets))


def fingerprint(corpus: Corpus) -> list[int]:
    """Tokens, and the CRC-32 of them and of the offsets, whatever their dtypes."""
    checksums = []
    for values, dtype in ((corpus.tokens, np.int32), (corpus.offsets, np.int64)):
        checksum = 0
        for chunk in _chunks(values):
            checksum = zlib.crc32(np.ascontiguousarray(chunk, dtype).data, checksum)
        checksums.append(checksum)
    return [corpus.tokens.size, *checksums]


def _chunks(values: Array, size: int = _CHUNK) -> Iterator[Array]:
    return (values[i : i + size] for i in range(0, values.size, size))
