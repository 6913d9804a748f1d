"""From text to encoded sentences."""

from __future__ import annotations

import contextlib
import gzip
import importlib
import lzma
import os
import re
import sysconfig
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
_TRIPLE_QUOTED = re.compile(r'"""(.*?)"""', re.DOTALL)
_BLANK_LINE = re.compile(r"\n\s*\n")


@dataclass(frozen=True, slots=True)
class Corpus:
    """Encoded sentences.

    Attributes:
        words (list of str, length V): the vocabulary, most frequent first.
        counts (int64[V]): how often each occurs.
        tokens (int32[T]): word numbers, sentence after sentence.
        offsets (int64[S + 1]): where each sentence starts in tokens, and T.
    """

    words: list[str]
    counts: NDArray[np.int64]
    tokens: NDArray[np.int32]
    offsets: NDArray[np.int64]


def tokenize(text: str) -> list[str]:
    """Lower-cased runs of letters and digits, with an apostrophe inside: "Don't!" gives ["don't"]."""
    return _WORD.findall(text.lower())


def open_text(path: str | os.PathLike[str]) -> IO[str]:
    """Open a text file, a .gz or an .xz one, as UTF-8; bytes that are not become U+FFFD."""
    opener = {".gz": gzip.open, ".xz": lzma.open}.get(Path(path).suffix, open)
    return opener(path, "rt", encoding="utf-8", errors="replace")  # type: ignore[operator, no-any-return]


def read_sentences(path: str | os.PathLike[str]) -> Iterator[list[str]]:
    """The words of each line of a text file."""
    with open_text(path) as lines:
        for line in lines:
            yield tokenize(line)


def python_sentences() -> Iterator[list[str]]:
    """English that ships with Python: the language reference in pydoc_data.topics and the standard library's
    docstrings, a paragraph a sentence.
    """
    texts: list[str] = []
    with contextlib.suppress(ImportError):  # some distributions leave it out
        texts += importlib.import_module("pydoc_data.topics").topics.values()
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.rglob("*.py")):
        if not {"site-packages", "dist-packages", "test", "tests", "idle_test"} & set(path.relative_to(library).parts):
            texts += _TRIPLE_QUOTED.findall(path.read_text(encoding="utf-8", errors="replace"))
    for text in texts:
        for paragraph in _BLANK_LINE.split(text):
            yield tokenize(paragraph)


def encode(sentences: Iterable[list[str]], min_count: int = 5) -> Corpus:
    """Number the words by falling frequency; words rarer than min_count are left out of the sentences.

    Raises:
        ValueError: no word occurs min_count times.
    """
    number: defaultdict[str, int] = defaultdict()
    number.default_factory = number.__len__
    tokens, ends = array("i"), array("q", [0])
    for sentence in sentences:
        tokens.extend([number[word] for word in sentence])
        ends.append(len(tokens))
    first = np.frombuffer(tokens, np.int32) if tokens else np.empty(0, np.int32)
    counts = np.bincount(first, minlength=len(number))
    order = np.argsort(-counts, kind="stable")
    order = order[counts[order] >= min_count]
    if not tokens:
        raise ValueError("the text has no words")
    if order.size == 0:
        raise ValueError(f"no word occurs {min_count} times among the text's {len(tokens)}: lower min_count")
    renumber = np.full(len(number), -1, np.int32)
    renumber[order] = np.arange(order.size, dtype=np.int32)
    encoded = renumber[first]
    kept = encoded >= 0
    before = np.concatenate([[0], np.cumsum(kept)])
    offsets = np.unique(before[np.frombuffer(ends, np.int64)])  # sentences left without words go
    words = list(number)
    return Corpus([words[i] for i in order], counts[order], encoded[kept], offsets)
