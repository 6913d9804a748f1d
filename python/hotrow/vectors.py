"""Word vectors: look up, compare, save."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import numpy as np

from hotrow import _check
from hotrow.ops import Floats


class WordVectors:
    """Words and a vector for each.

    Args:
        words (sequence of str, length V): no repeats.
        vectors (float[V, D]): row i belongs to words[i]; kept, not copied.

    Raises:
        ValueError: lengths differ, or a word stands twice.
    """

    def __init__(self, words: Sequence[str], vectors: Floats) -> None:
        self.words = list(words)
        self.vectors = vectors = np.asarray(vectors)
        self.index = {word: i for i, word in enumerate(self.words)}
        if vectors.ndim != 2 or len(self.words) != len(vectors):
            raise ValueError(f"{len(self.words)} words need as many vectors, not an array of shape {vectors.shape}")
        if len(self.index) != len(self.words):
            twice = next(w for i, w in enumerate(self.words) if self.index[w] != i)
            raise ValueError(f"the word {twice!r} stands twice")

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: object) -> bool:
        return word in self.index

    def __getitem__(self, word: str) -> Floats:
        """The vector of a word (a view); KeyError if it is not in the vocabulary."""
        vector: Floats = self.vectors[self._row(word)]
        return vector

    def _row(self, word: str) -> int:
        try:
            return self.index[word]
        except KeyError:
            raise KeyError(f"{word!r} is not among the {len(self)} words") from None

    def most_similar(self, word: str, topn: int = 10) -> list[tuple[str, float]]:
        """The words whose vectors have the largest cosine with that of `word`, best first.

        Raises:
            KeyError: the word is not in the vocabulary.
        """
        row, topn = self._row(word), _check.integer("topn", topn, 0)
        v = self.vectors
        norms = np.sqrt(np.einsum("ij,ij->i", v, v))
        with np.errstate(divide="ignore", invalid="ignore"):
            cosine = np.nan_to_num((v @ v[row]) / (norms * norms[row]))
        cosine[row] = -np.inf
        best = np.argsort(-cosine, kind="stable")[: min(topn, len(self) - 1)]
        return [(self.words[i], float(cosine[i])) for i in best]

    def save_word2vec(self, path: str | os.PathLike[str]) -> None:
        """Write word2vec text format: a line "V D", then a word and its D numbers a line, space between.

        Numbers have the digits to read the same float back. A regular file appears whole or not at all; links are
        followed; a pipe or a device is written to as it is.

        Raises:
            ValueError: a word holds white space or is empty, which the format cannot tell apart.
            OSError: the file cannot be written; one that was there before is unchanged.
        """
        for word in self.words:
            if len(word.split()) != 1 or word.split()[0] != word:
                raise ValueError(f"word2vec text format cannot hold the word {word!r}")
        path = Path(os.path.realpath(path))
        if path.exists() and not path.is_file():
            with open(path, "w", encoding="utf-8", newline="\n") as file:
                self._write(file)
            return
        handle, name = tempfile.mkstemp(prefix=path.name + ".", suffix=".part", dir=path.parent)
        try:
            with open(handle, "w", encoding="utf-8", newline="\n") as file:
                self._write(file)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o666 & ~_umask())
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise

    def _write(self, file: TextIO) -> None:
        digits = ".9g" if self.vectors.dtype == np.float32 else ".17g"
        file.write(f"{len(self)} {self.vectors.shape[1]}\n")
        for word, row in zip(self.words, self.vectors, strict=True):
            file.write(f"{word} {' '.join([format(x, digits) for x in row.tolist()])}\n")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
