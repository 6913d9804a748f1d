"""How often words are kept and drawn as negatives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hotrow import _check


@dataclass(frozen=True, slots=True)
class Sampling:
    """Subsampling of frequent words and an alias table of negatives, as integers that every backend draws alike.

    Attributes:
        keep (uint32[V]): a word is kept with probability (keep + 1) / 2^32.
        alias_accept (uint32[V]): a bucket drawn uniformly is taken with probability (alias_accept + 1) / 2^32,
        alias_other (int32[V]): else the word noted here.

    Source:
        Mikolov et al. 2013; the alias method: Walker 1977, Vose, "A linear algorithm for generating random numbers
        with a given distribution", 1991.
    """

    keep: NDArray[np.uint32]
    alias_accept: NDArray[np.uint32]
    alias_other: NDArray[np.int32]

    @classmethod
    def from_counts(cls, counts: ArrayLike, *, sample: float = 1e-3, ns_exponent: float = 0.75) -> Sampling:
        """Sampling for words that occur `counts` times.

            keep[w] = min(1, sqrt(t / counts[w]) + t / counts[w]), t = sample * sum(counts)
            P(negative = w) = counts[w]^ns_exponent / sum

        Args:
            counts (int or float[V]): at least 0, one above 0; V < 2^31.
            sample (float): words more frequent than this share are thinned; 0 keeps all; default 1e-3.
            ns_exponent (float): default 0.75; 1 draws by frequency, 0 uniformly.

        Raises:
            TypeError, ValueError: counts or parameters out of range.
        """
        sample, ns_exponent = _check.real("sample", sample, 0), _check.real("ns_exponent", ns_exponent)
        n = checked_counts(counts)
        if not n.any():
            raise ValueError("counts are all 0: there is nothing to draw")
        n = n / n.max()  # sums and powers of shares do not overflow
        with np.errstate(all="ignore"):
            share = sample * n.sum() / n if sample > 0 else np.full(n.size, np.inf)
            keep = np.where(n > 0, np.minimum(np.sqrt(share) + share, 1.0), 1.0)
            mass = np.where(n > 0, n**ns_exponent, 0.0)
        if not np.isfinite(mass.sum()):
            raise ValueError(f"ns_exponent = {ns_exponent} is too far from 0 for these counts")
        accept, other = _alias_table(mass / mass.sum())
        return cls(_threshold(keep), accept, other)


def checked_counts(counts: ArrayLike) -> NDArray[np.float64]:
    """How often each of 1 to 2^31 - 1 words occurs."""
    n = np.asarray(counts)
    if n.ndim != 1 or n.dtype.kind not in "iuf":
        raise TypeError(f"counts must be a vector of numbers, not {n.dtype.name} of {n.ndim} dimensions")
    n = n.astype(np.float64)
    if n.size == 0 or n.size >= 2**31:
        raise ValueError(f"counts must have 1 to 2^31 - 1 entries, not {n.size}")
    bad = np.flatnonzero(~(np.isfinite(n) & (n >= 0)))
    if bad.size:
        raise ValueError(f"counts[{bad[0]}] = {n[bad[0]]} must be finite and at least 0")
    return n


def _threshold(probability: NDArray[np.float64]) -> NDArray[np.uint32]:
    """The largest 32-bit draw that counts as a success."""
    threshold: NDArray[np.uint32] = np.clip(np.rint(probability * 2.0**32) - 1, 0, 2**32 - 1).astype(np.uint32)
    return threshold


def _alias_table(probability: NDArray[np.float64]) -> tuple[NDArray[np.uint32], NDArray[np.int32]]:
    """Vose's method: every bucket holds 1 / V of the mass, its own word's first, the rest another's."""
    size = probability.size
    left = (probability * size).tolist()
    accept, other = [1.0] * size, list(range(size))
    small = [w for w in range(size) if left[w] < 1]
    large = [w for w in range(size) if left[w] >= 1]
    while small and large:
        lesser, greater = small.pop(), large[-1]
        accept[lesser], other[lesser] = left[lesser], greater
        left[greater] -= 1 - left[lesser]
        if left[greater] < 1:
            small.append(large.pop())
    return _threshold(np.array(accept)), np.array(other, np.int32)
