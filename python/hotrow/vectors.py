"""Word vectors: look up, compare, score, load and save."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from numbers import Real
from types import MappingProxyType
from typing import Any

import numpy as np

from hotrow import _check, _evaluate, _formats
from hotrow._cosine import cosines, largest, unit
from hotrow._evaluate import AnalogyScores, PairScores
from hotrow._files import StrPath
from hotrow.ops import Floats

Key = str | Floats | tuple[str | Floats, float]


class WordVectors:
    """Words and a vector for each.

    Args:
        words (sequence of str, length V): no repeats.
        vectors (float16, bfloat16, float32 or float64[V, D]): row i belongs to words[i]; kept, not copied.

    Raises:
        TypeError: a word is no str; vectors of another dtype.
        ValueError: lengths differ, or a word stands twice.
    """

    def __init__(self, words: Sequence[str], vectors: Floats) -> None:
        self.vectors = vectors = np.asarray(vectors)
        self._words = tuple(words)
        self._index = {word: i for i, word in enumerate(self._words)}
        for word in self._words:
            if not isinstance(word, str):
                raise TypeError(f"words must be strings, not {type(word).__name__}: {word!r}")
        if vectors.ndim != 2 or len(self._words) != len(vectors):
            raise ValueError(f"{len(self._words)} words need as many vectors, not an array of shape {vectors.shape}")
        _check.table(vectors, "vectors")
        if len(self._index) != len(self._words):
            twice = next(w for i, w in enumerate(self._words) if self._index[w] != i)
            raise ValueError(f"the word {twice!r} stands twice")

    @property
    def words(self) -> tuple[str, ...]:
        """The words, in the order of the rows of `vectors`."""
        return self._words

    @property
    def index(self) -> Mapping[str, int]:
        """The row of each word; read-only."""
        return MappingProxyType(self._index)

    def __repr__(self) -> str:
        return f"<WordVectors: {len(self)} words, {self.vectors.shape[1]} x {self.vectors.dtype}>"

    def __len__(self) -> int:
        return len(self._words)

    def __iter__(self) -> Iterator[str]:
        return iter(self._words)

    def __contains__(self, word: object) -> bool:
        return word in self._index

    def __getitem__(self, word: str | Sequence[str]) -> Floats:
        """The vector of a word, float[D], a view; of a list of N words a copy, float[N, D].

        Raises:
            KeyError: a word is not in the vocabulary.
        """
        rows = self._row(word) if isinstance(word, str) else [self._row(w) for w in word]
        vectors: Floats = self.vectors[np.array(rows, np.int64) if isinstance(rows, list) else rows]
        return vectors

    def _row(self, word: str) -> int:
        try:
            return self._index[word]
        except KeyError:
            raise KeyError(f"{word!r} is not among the {len(self)} words") from None

    def similarity(self, a: str, b: str) -> float:
        """The cosine of the vectors of two words; 0 if one of them is zero.

        Raises:
            KeyError: a word is not in the vocabulary.
        """
        return float(cosines(self[[a]], self[b])[0])

    def most_similar(
        self, positive: Key | Sequence[Key] | None = None, negative: Key | Sequence[Key] | None = None, topn: int = 10
    ) -> list[tuple[str, float]]:
        """The words whose vectors have the largest cosine with a mean of vectors, best first.

        The mean is that of the unit vectors of words, times 1 where they are positive and -1 where they are negative.
        "king" - "man" + "woman" is most_similar(["king", "woman"], "man"). Words asked about are left out.

        Args:
            positive, negative: a word or a vector (float[D], counts with its own length), a pair of one and its weight
                (which stands in place of 1 or -1), or a sequence of these.
            topn (int): how many; default: 10.

        Raises:
            KeyError: a word is not in the vocabulary.
            TypeError: a key is none of the above.
            ValueError: no key, a vector of another length, topn below 0.

        Source:
            gensim's KeyedVectors.most_similar, whose answers these are.
        """
        topn = _check.integer("topn", topn, 0)
        keys = [self._weighted(key, 1.0, "positive") for key in _keys(positive)]
        keys += [self._weighted(key, -1.0, "negative") for key in _keys(negative)]
        if not keys:
            raise ValueError("most_similar needs a word or a vector")
        cosine = cosines(self.vectors, np.sum([weight * vector for vector, weight, _ in keys], axis=0))
        asked = [row for _, _, row in keys if row is not None]
        cosine[asked] = -np.inf
        best = largest(cosine, min(topn, len(self) - len(set(asked))))
        return [(self._words[i], float(cosine[i])) for i in best]

    def _weighted(self, key: Any, weight: float, name: str) -> tuple[Floats, float, int | None]:
        """The vector of a key, its weight, and its row if it is a word."""
        if isinstance(key, tuple):
            if len(key) != 2:
                raise TypeError(f"{name} must hold words, vectors or pairs with a weight, not {key!r}")
            key, weight = key[0], _check.real(f"the weight in {name}", key[1])
        if isinstance(key, str):
            row = self._row(key)
            return unit(self.vectors[row : row + 1])[0], weight, row
        if not isinstance(key, np.ndarray) or not np.issubdtype(key.dtype, np.number):
            raise TypeError(f"{name} must hold words, vectors or pairs with a weight, not {type(key).__name__}")
        if key.shape != self.vectors.shape[1:]:
            raise ValueError(f"{name} holds a vector of shape {key.shape}, the words have {self.vectors.shape[1:]}")
        return key, weight, None

    def evaluate_pairs(
        self,
        path: StrPath,
        *,
        delimiter: str = "\t",
        restrict_vocab: int = 300_000,
        case_insensitive: bool = True,
        dummy4unknown: bool = False,
    ) -> PairScores:
        """Compare similarities with human judgement: WordSim-353, SimLex-999.

        Args:
            path: a file with two words and a number a line; lines that start with # are comments, others that are no
                pair are counted as `skipped`.
            delimiter (str): between them; default: a tab.
            restrict_vocab (int): only so many words are known, the first; default: 300,000.
            case_insensitive (bool): compare words in upper case; of variants, the first one's vector counts.
            dummy4unknown (bool): pairs with unknown words count as similarity 0; default: they are left out.

        Raises:
            ValueError: no pair to score, or the file is not UTF-8.

        Source:
            gensim's KeyedVectors.evaluate_word_pairs, whose numbers these are.
        """
        words, vectors = self._first(restrict_vocab)
        if not isinstance(delimiter, str) or not delimiter:
            raise ValueError(f"delimiter must be a string of at least one character, not {delimiter!r}")
        return _evaluate.pairs(path, words, vectors, delimiter, case_insensitive, dummy4unknown)

    def evaluate_analogies(
        self,
        path: StrPath,
        *,
        restrict_vocab: int = 300_000,
        case_insensitive: bool = True,
        dummy4unknown: bool = False,
    ) -> AnalogyScores:
        """Answer "a is to b as c is to ?" by the word nearest to b - a + c, the three left out.

        Args:
            path: a file of questions, four words a line, under lines ": section": questions-words.txt.
            restrict_vocab (int): only so many words are known, the first; default: 300,000.
            case_insensitive (bool): compare words in upper case; of variants, the first one's vector is asked with.
            dummy4unknown (bool): questions with unknown words count as wrong; default: they are left out.

        Raises:
            ValueError: no question, a question before the first section, or the file is not UTF-8.

        Source:
            Mikolov et al., "Efficient Estimation of Word Representations in Vector Space", 2013; gensim's
            KeyedVectors.evaluate_word_analogies, whose accuracies these are (but that it gives up when the five nearest
            words are all case variants of the three).
        """
        words, vectors = self._first(restrict_vocab)
        return _evaluate.analogies(path, words, vectors, case_insensitive, dummy4unknown)

    def _first(self, restrict_vocab: int) -> tuple[tuple[str, ...], Floats]:
        n = _check.integer("restrict_vocab", restrict_vocab, 1)
        return self._words[:n], self.vectors[:n]

    def to_keyedvectors(self) -> Any:
        """A gensim.models.KeyedVectors with a copy of the vectors, float32 for 16 bits.

        Raises:
            ImportError: gensim is not installed.
        """
        try:
            from gensim.models import KeyedVectors
        except ImportError as error:
            raise ImportError(f'to_keyedvectors needs gensim ({error}): pip install "hotrow[gensim]"') from error
        vectors = self.vectors.astype(_check.real_dtype(self.vectors.dtype), copy=False)
        keyed = KeyedVectors(vectors.shape[1], dtype=vectors.dtype)
        keyed.add_vectors(self._words, vectors)
        return keyed

    @classmethod
    def load(
        cls, path: StrPath, format: str | None = None, *, dtype: Any = None, errors: str = "strict", mmap: bool = False
    ) -> WordVectors:
        """Read what `save`, word2vec, GloVe, fastText or gensim wrote.

        Args:
            path: .gz and .xz are decompressed, but for safetensors and .npy.
            format: as in `save`; default: what the suffix says.
            dtype: float32 or float64, for text; default: float32. Other formats say it themselves.
            errors: for words that are not UTF-8: "strict" refuses, "replace" and "ignore" do as bytes.decode does.
            mmap (bool): map a .npy file, read-only, instead of reading it; default: False.

        Raises:
            ValueError: the file is damaged or not of this format: which file, where, and what is wrong.
            OSError: it cannot be read.
            ImportError: safetensors is not installed.
        """
        words, vectors = _formats.read(path, _formats.choose(path, format), dtype, errors, mmap)
        try:
            return cls(words, vectors)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def save(self, path: StrPath, format: str | None = None) -> None:
        """Write the words and vectors to a file.

        - "word2vec" (.txt, .vec): a line "V D", then a word and its D numbers a line; also fastText's .vec
        - "word2vec-binary" (.bin): a line "V D", then words and float32
        - "glove" (.glove): "word2vec" without the first line
        - "safetensors" (.safetensors): a tensor "vectors"; the words as JSON in the metadata "words"
        - "npy" (.npy): an array and, after it, the words; beside it path + ".vocab", a word a line, for others

        Text has the digits to read the same float back. A file appears whole or not at all, whatever ends the process;
        links are followed; a pipe or a device is written to as it is. A killed save leaves a file named
        path + ".*.hotrow.part", which the next one to this path removes (but on Windows). One killed between the two
        files of "npy" leaves the old vocabulary beside the new vectors: `load` reads the words in the .npy, and the
        vocabulary only beside an array that has none, as numpy.save writes it.

        Args:
            path: where to write.
            format: one of the above; default: what the suffix of path says.

        Raises:
            TypeError: the format has no such dtype.
            ValueError: no vectors, or the format cannot hold a word: white space in text and binary, line ends in .npy.
            OSError: the file cannot be written; one that was there before is unchanged.
            ImportError: safetensors is not installed.
        """
        _formats.write(path, _formats.choose(path, format), self._words, self.vectors)


def _keys(given: Any) -> list[Any]:
    """Keys as a list; a str, a vector or a pair with a weight is one."""
    if given is None:
        return []
    pair = isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], Real)
    if isinstance(given, str) or pair or (isinstance(given, np.ndarray) and given.ndim == 1):
        return [given]
    if not isinstance(given, (Sequence, np.ndarray)):
        raise TypeError(f"keys must be words, vectors, pairs with a weight or a sequence of them, not {given!r}")
    return list(given)
