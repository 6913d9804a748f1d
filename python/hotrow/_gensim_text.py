"""What hotrow.gensim trains on: files of lines, which stay encoded, and sentences, which pass by in chunks."""

from __future__ import annotations

import lzma
import os
import stat
import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import chain, islice, repeat
from typing import Any, NamedTuple

import numpy as np
from gensim import utils
from gensim.models import word2vec

from hotrow import _corpus, _encode, text
from hotrow._encode import Array

_CHUNK = 1 << 18  # words trained on at a time: some 50 ms, and 16 MB while they are strings
_SLICE = 1 << 22  # the same where they are numbers: 2.5% faster on two threads than 2^18
_BLOCK = 4 << 20  # bytes read at a time
_LINES = 10_000  # read at a time where their number is limited


class Source(NamedTuple):
    """Files of lines, in the state they are in."""

    files: tuple[str, ...]
    states: tuple[tuple[int, ...], ...]
    most: int  # words of a sentence
    limit: int | None  # lines of a file


class Text(NamedTuple):
    """A source, encoded."""

    source: Source
    sentences: int
    total: int  # words, unknown ones included
    tokens: Array  # int32
    offsets: Array  # int64
    words: list[str]  # what the numbers stand for
    counts: Array | None  # of these words; None once it is numbered as a model is and unknown words are left out


class Chunk(NamedTuple):
    tokens: Array
    offsets: Array
    examples: int  # sentences, empty ones included
    raw: int  # words, unknown ones included


def source_of(corpus: Any) -> Source | None:
    """The source of what gensim would read line by line; None for any other corpus."""
    if type(corpus) is word2vec.LineSentence:
        files = (corpus.source,)
    elif type(corpus) is word2vec.PathLineSentences:
        files = tuple(corpus.input_files)
    else:
        return None
    most, limit = corpus.max_sentence_length, corpus.limit
    if not isinstance(most, int) or most < 1 or not all(isinstance(file, (str, os.PathLike)) for file in files):
        return None
    try:
        states = [os.stat(file) for file in files]
    except (OSError, ValueError):  # a URL, perhaps
        return None
    if not all(stat.S_ISREG(state.st_mode) for state in states):
        return None
    marks = tuple((state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns) for state in states)
    return Source(tuple(map(os.fspath, files)), marks, most, limit)


def _blocks(source: Source) -> Iterator[bytes]:
    for path in source.files:
        with utils.open(path, "rb") as file:
            if source.limit is None:
                while block := file.read(_BLOCK):
                    yield block
            else:
                lines = islice(file, source.limit)
                while batch := list(islice(lines, _LINES)):
                    yield b"".join(batch)
        yield b"\n"


def read(source: Source) -> Text | None:
    """The text with its words numbered as they first appear. None if it has no words, is not UTF-8, cannot be read, or
    there is no room for it: who reads it line by line then finds out which.
    """
    encoder = text._encoder(None)
    with closing(text._read_ahead(_blocks(source))) as blocks:

        def pieces() -> _encode.Pieces:
            for block in blocks:
                yield from encoder.feed(block)
            yield from encoder.close()

        settings = _encode.Settings(min_count=1, max_final_vocab=None, directory=None)
        try:
            words, counts, tokens, offsets = _encode.encode(pieces(), encoder, settings, by_count=False)
        except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error):
            return None
    if "\ufffd" in "".join(words):
        return None
    offsets = _cut(offsets, source.most)
    return Text(source, offsets.size - 1, tokens.size, tokens, offsets, words, counts)


def _cut(offsets: Array, most: int) -> Array:
    """Sentences cut after `most` words."""
    parts = -(-np.diff(offsets) // most)
    if parts.max() == 1:
        return offsets
    within = np.arange(parts.sum()) - np.repeat(np.cumsum(parts) - parts, parts)
    return np.append(np.repeat(offsets[:-1], parts) + most * within, offsets[-1])


def numbered(encoded: Text, row: dict[str, int], words: list[str]) -> Text | None:
    """The text numbered by `row`, of which `words` is the inverse, without other words. None if there is no room."""
    if encoded.words == words:
        return encoded
    number = np.array([row.get(word, -1) for word in encoded.words], np.int32)
    try:
        tokens, offsets = _corpus.renumber(number, encoded.tokens, encoded.offsets)
    except OSError:
        return None
    return encoded._replace(tokens=tokens, offsets=offsets, words=list(words), counts=None)


def slices(encoded: Text) -> Iterator[Chunk]:
    """The sentences in chunks. What was left out of them is shared out evenly."""
    tokens, offsets = encoded.tokens, encoded.offsets
    begin = examples = raw = 0
    while examples < encoded.sentences:
        end = max(begin + 1, int(np.searchsorted(offsets, offsets[begin] + _SLICE, "right")) - 1)
        end = min(end, offsets.size - 1)
        first, last = int(offsets[begin]), int(offsets[end])
        done = (last, tokens.size) if last < tokens.size else (1, 1)
        examples_then, raw_then = (n * done[0] // done[1] for n in (encoded.sentences, encoded.total))
        yield Chunk(tokens[first:last], offsets[begin : end + 1] - first, examples_then - examples, raw_then - raw)
        begin, examples, raw = end, examples_then, raw_then


def encoded_chunks(sentences: Iterable[Any], row: dict[Any, int]) -> Iterator[Chunk]:
    """Sentences that are sequences of words in chunks, words without a row left out."""
    remaining = iter(sentences)
    while True:
        batch, lengths, raw = [], [0], 0
        for sentence in remaining:
            batch.append(sentence)
            lengths.append(len(sentence))
            raw += lengths[-1]
            if raw >= _CHUNK:
                break
        if not batch:
            return
        numbers = np.fromiter(map(row.get, chain.from_iterable(batch), repeat(-1)), np.int32, raw)
        known = numbers >= 0
        before = np.concatenate([[0], np.cumsum(known)])
        yield Chunk(numbers[known], before[np.cumsum(lengths)], len(batch), raw)
