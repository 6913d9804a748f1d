"""Scores of word vectors on test sets: word similarity and analogies."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hotrow import _check
from hotrow._cosine import unit
from hotrow._files import StrPath
from hotrow.ops import Floats

_SCORES = 1 << 23  # at most, of all words in questions with a block of the vocabulary: 32 MB
_COLUMNS = 8192  # at most, of the vocabulary in a block
_QUESTIONS = 64  # at a time: with _COLUMNS 2 MB, which stay in the cache from sum to argmax (2048 x 256: 1.2x slower)


@dataclass(frozen=True, slots=True)
class PairScores:
    """How similarities agree with human judgement.

    Attributes:
        pearson, spearman (float): correlation, rank correlation; NaN where one side is constant.
        out_of_vocabulary (float): share of the pairs with an unknown word.
        pairs (int): how many were scored.
        skipped (int): lines of the file that are no pair, comments not counted.
    """

    pearson: float
    spearman: float
    out_of_vocabulary: float
    pairs: int
    skipped: int


@dataclass(frozen=True, slots=True)
class AnalogySection:
    """A section of an analogy test: its name, the questions scored, and how many of them were answered right."""

    name: str
    correct: int
    total: int

    @property
    def accuracy(self) -> float:
        """correct / total; 0 without questions."""
        return self.correct / self.total if self.total else 0.0


@dataclass(frozen=True, slots=True)
class AnalogyScores:
    """Answers to "a is to b as c is to ?".

    Attributes:
        sections (tuple of AnalogySection): as in the file.
        out_of_vocabulary (float): share of the questions with an unknown word.
        skipped (int): lines of the file that are neither a question nor a section.
    """

    sections: tuple[AnalogySection, ...]
    out_of_vocabulary: float
    skipped: int

    @property
    def correct(self) -> int:
        """Questions answered right, in all sections."""
        return sum(s.correct for s in self.sections)

    @property
    def total(self) -> int:
        """Questions scored, in all sections."""
        return sum(s.total for s in self.sections)

    @property
    def accuracy(self) -> float:
        """correct / total; 0 without questions."""
        return AnalogySection("", self.correct, self.total).accuracy


def _lines(path: StrPath) -> Iterator[tuple[int, str]]:
    with open(path, "rb") as file:
        for i, line in enumerate(file, 1):
            try:
                yield i, line.decode()
            except UnicodeDecodeError:
                raise ValueError(f"{path}, line {i}: {line[:60]!r} is not UTF-8") from None


def _numbering(words: Sequence[str], case_insensitive: bool) -> dict[str, int]:
    """Numbers of words, in upper case if case does not matter: of the variants of a word, the first."""
    return {word.upper() if case_insensitive else word: i for i, word in reversed(list(enumerate(words)))}


def _ranks(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1; equal values share the mean of theirs."""
    _, which, counts = np.unique(x, return_inverse=True, return_counts=True)
    shared: NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2)[which]
    return shared


def _correlation(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    if (x == x[0]).all() or (y == y[0]).all():
        return math.nan
    x, y = x - x.mean(), y - y.mean()
    return float(np.clip((x / np.linalg.norm(x)) @ (y / np.linalg.norm(y)), -1, 1))


def pairs(
    path: StrPath,
    words: Sequence[str],
    vectors: Floats,
    delimiter: str,
    case_insensitive: bool,
    dummy4unknown: bool,
) -> PairScores:
    """See WordVectors.evaluate_pairs."""
    number = _numbering(words, case_insensitive)
    known: list[tuple[int, int]] = []
    judged: list[float] = []
    unknown: list[float] = []
    skipped = 0
    for _, line in _lines(path):
        if line.startswith("#"):
            continue
        fields = (line.upper() if case_insensitive else line).split(delimiter)
        try:
            a, b, judgement = fields[0], fields[1], float(fields[2])
        except (IndexError, ValueError):
            judgement = math.nan
        if len(fields) != 3 or not math.isfinite(judgement):
            skipped += 1
        elif a in number and b in number:
            known.append((number[a], number[b]))
            judged.append(judgement)
        else:
            unknown.append(judgement)
    scored = len(known) + len(unknown) * dummy4unknown
    if scored == 0:
        raise ValueError(
            f"{path}: no pair to score: {len(unknown)} with unknown words, {skipped} lines that are no pair"
        )
    rows = np.array(known, np.int64).reshape(-1, 2)
    a_unit, b_unit = (unit(vectors[rows[:, side]]).astype(np.float64) for side in (0, 1))
    cosine = np.nan_to_num(np.einsum("ij,ij->i", a_unit, b_unit))
    if dummy4unknown:
        cosine, judged = np.append(cosine, np.zeros(len(unknown))), judged + unknown
    human = np.array(judged)
    pearson, spearman = _correlation(human, cosine), _correlation(_ranks(human), _ranks(cosine))
    return PairScores(pearson, spearman, len(unknown) / (len(known) + len(unknown)), scored, skipped)


def analogies(
    path: StrPath,
    words: Sequence[str],
    vectors: Floats,
    case_insensitive: bool,
    dummy4unknown: bool,
) -> AnalogyScores:
    """See WordVectors.evaluate_analogies."""
    number = _numbering(words, case_insensitive)
    names: list[str] = []
    totals: list[int] = []
    asked: list[list[int]] = []
    section: list[int] = []
    unknown = skipped = 0
    for i, line in _lines(path):
        fields = (line.upper() if case_insensitive else line).split()
        if line.startswith(": "):
            names.append(line.lstrip(": ").strip())
            totals.append(0)
        elif not names:
            raise ValueError(f"{path}, line {i}: expected a line ': section' before the first question")
        elif len(fields) != 4:
            skipped += 1
        else:
            question = [number.get(word, -1) for word in fields]
            known = min(question) >= 0
            unknown += not known
            totals[-1] += known or dummy4unknown
            if known:
                asked.append(question)
                section.append(len(names) - 1)
    questions = np.array(asked, np.int64).reshape(-1, 4)
    if not len(questions) + unknown:
        raise ValueError(f"{path}: the file has no questions")
    folded = [word.upper() for word in words] if case_insensitive else words
    first = np.array([number[word] for word in folded], np.int64)
    right = _answers(vectors, first, questions[:, :3]) == questions[:, 3]
    correct = np.bincount(np.array(section, np.int64)[right], minlength=len(names))
    sections = tuple(AnalogySection(*s) for s in zip(names, correct.tolist(), totals, strict=True))
    return AnalogyScores(sections, unknown / (len(questions) + unknown), skipped)


def _answers(vectors: Floats, first: NDArray[np.int64], questions: NDArray[np.int64]) -> NDArray[np.int64]:
    """The answer first[argmax_i u_i . (u_b - u_a + u_c)] to each question (a, b, c), with u_i the unit vectors; -1 if
    there is none. Words i with first[i] in (a, b, c) do not count. first[i] is the first case variant of word i.

    Few words make up all questions, so their scores are computed once for a block of the vocabulary, by a matrix
    product, and a question is a sum of three rows of them: for 19,544 questions, 905 words instead of 19,544 sums of
    vectors are multiplied with the vocabulary.
    """
    asked, which = np.unique(questions, return_inverse=True)
    which = which.reshape(questions.shape)
    queries = unit(vectors[asked])
    best = np.full(len(questions), -1, np.int64)
    best_score = np.full(len(questions), -np.inf, _check.real_dtype(vectors.dtype))
    columns = min(_COLUMNS, max(256, _SCORES // max(1, len(asked))))
    for start in range(0, len(vectors), columns):
        scores = queries @ unit(vectors[start : start + columns]).T
        np.nan_to_num(scores, copy=False, posinf=0, neginf=0)
        for i in range(0, len(questions), _QUESTIONS):
            part = slice(i, i + _QUESTIONS)
            a, b, c = which[part].T
            sums = scores[b]
            sums -= scores[a]
            sums += scores[c]
            found, score = _largest(sums, first[start : start + columns], questions[part])
            better = score > best_score[part]
            best[part][better] = first[start + found[better]]
            best_score[part][better] = score[better]
    return best


def _largest(sums: Floats, first: NDArray[np.int64], barred: NDArray[np.int64]) -> tuple[NDArray[np.int64], Floats]:
    """Where the largest sum of each row is, words barred[i] left out of row i, and the sum; -inf if none is left."""
    rows = np.arange(len(sums))
    found = sums.argmax(1)
    score = sums[rows, found]
    while True:
        again = np.flatnonzero((first[found][:, None] == barred).any(1) & (score > -np.inf))
        if again.size == 0:
            return found, score
        sums[again, found[again]] = -np.inf
        found[again] = sums[again].argmax(1)
        score[again] = sums[again, found[again]]
