"""torch.nn.Embedding and EmbeddingBag, looked up and differentiated by hotrow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from torch import Tensor, nn

from hotrow import _check
from hotrow.torch._functional import embedding, embedding_bag
from hotrow.torch._share import tensor
from hotrow.vectors import WordVectors

Vocabulary = Sequence[str] | Mapping[str, int]


class _Layer(nn.Module):
    """What both layers add to torch's."""

    fallback: bool = False

    def extra_repr(self) -> str:
        return super().extra_repr() + ", fallback=True" * self.fallback

    @classmethod
    def from_word_vectors(
        cls,
        vectors: WordVectors,
        vocabulary: Vocabulary | None = None,
        *,
        freeze: bool = True,
        padding_idx: int | None = None,
        unknown: str = "normal",
        seed: int = 0,
        **options: Any,
    ) -> Self:
        """A layer whose row i is the vector of word i, in a copy.

        Args:
            vectors (WordVectors): words and a vector for each, of whose dtype and width the layer is.
            vocabulary (sequence of str, or mapping of str to int): the word of each row, or the row of each word, from
                0 to the largest given; default: vectors.words.
            freeze (bool): the weight does not require gradients, the default.
            padding_idx (int): a row of zeros, whatever its word, that has no gradient; default: none.
            unknown ("normal" | "mean" | "zeros"): rows of words that `vectors` lack, and rows without a word: draws
                from the normal distribution with mean and deviation of each column of the vectors, the default; their
                mean; zeros.
            seed (int): of the draws, which are made row after row; default 0.
            **options: of the layer: max_norm, sparse, mode, ...

        Raises:
            TypeError: vectors are no WordVectors, a word is no str, a row no int.
            ValueError: a row below 0 or given to two words; unknown is none of the above.
            IndexError: padding_idx out of range.
        """
        table = _table(vectors, vocabulary, unknown, seed)
        if padding_idx is not None:
            rows = len(table)
            if not -rows <= padding_idx < rows:
                raise IndexError(f"padding_idx = {padding_idx} is out of range for a table of {rows} rows")
            table[padding_idx] = 0
        fallback = options.pop("fallback", False)
        made: Any = cls.from_pretrained(tensor(table), freeze=freeze, padding_idx=padding_idx, **options)  # type: ignore[attr-defined]
        made.fallback = _check.boolean("fallback", fallback)
        layer: Self = made
        return layer


def _table(vectors: WordVectors, vocabulary: Vocabulary | None, unknown: str, seed: int) -> Any:
    if not isinstance(vectors, WordVectors):
        raise TypeError(f"vectors must be hotrow.WordVectors, not {type(vectors).__name__}")
    if unknown not in ("normal", "mean", "zeros"):
        raise ValueError(f"unknown must be 'normal', 'mean' or 'zeros', not {unknown!r}")
    if vocabulary is None:
        return vectors.vectors.copy()
    if isinstance(vocabulary, str) or not isinstance(vocabulary, (Mapping, Sequence)):
        raise TypeError(f"vocabulary must be a sequence or mapping of words, not {type(vocabulary).__name__}")
    rows = _rows(vocabulary if isinstance(vocabulary, Mapping) else enumerate(vocabulary))
    width, index = vectors.vectors.shape[1], vectors.index
    known = {row: index[word] for row, word in rows.items() if word in index}
    table = np.zeros((max(rows, default=-1) + 1, width), vectors.vectors.dtype)
    missing = np.setdiff1d(np.arange(len(table)), list(known))
    if unknown != "zeros" and len(missing) and len(vectors):
        given = vectors.vectors.astype(np.float64)
        spread = given.std(axis=0) if unknown == "normal" else 0.0
        draws = np.random.default_rng(seed).standard_normal((len(missing), width))
        table[missing] = given.mean(axis=0) + spread * draws
    table[list(known)] = vectors.vectors[list(known.values())]
    return table


def _rows(vocabulary: Any) -> dict[int, str]:
    """The word of each row."""
    pairs = ((row, word) for word, row in vocabulary.items()) if isinstance(vocabulary, Mapping) else vocabulary
    rows: dict[int, str] = {}
    for row, word in pairs:
        if not isinstance(word, str):
            raise TypeError(f"words must be strings, not {type(word).__name__}: {word!r}")
        row = _check.integer(f"vocabulary[{word!r}]", row, 0)
        if row in rows:
            raise ValueError(f"row {row} is given to two words, {rows[row]!r} and {word!r}")
        rows[row] = word
    return rows


class Embedding(_Layer, nn.Embedding):
    """torch.nn.Embedding: look rows of a table up, by hotrow.

    Args:
        num_embeddings, embedding_dim, padding_idx, max_norm, norm_type, device, dtype: as torch.nn.Embedding's.
        scale_grad_by_freq, sparse: as torch.nn.Embedding's; sparse gradients are coalesced and can be scaled by
            frequency.
        fallback (bool): tensors on other devices are left to torch; default: an error.

    Shape:
        input (int32 or int64[...], or jagged) -> float[..., D]

    Raises:
        TypeError, IndexError: in forward, as hotrow.torch.embedding.

    Source:
        torch.nn.Embedding.
    """

    def __init__(self, *args: Any, fallback: bool = False, **options: Any) -> None:
        super().__init__(*args, **options)
        self.fallback = _check.boolean("fallback", fallback)

    def forward(self, input: Tensor) -> Tensor:
        """Rows of the weight."""
        weight: Tensor | None = self._parameters.get("weight")  # nn.Module.__getattr__ takes half a microsecond longer
        if weight is None:  # parametrized
            weight = self.weight
        return embedding(
            input, weight, self.padding_idx, self.max_norm, self.norm_type, self.scale_grad_by_freq, self.sparse,
            fallback=self.fallback,
        )  # fmt: skip


class EmbeddingBag(_Layer, nn.EmbeddingBag):
    """torch.nn.EmbeddingBag: look bags of rows up and pool each, by hotrow.

    Args:
        num_embeddings, embedding_dim, max_norm, norm_type, padding_idx, device, dtype: as torch.nn.EmbeddingBag's.
        mode, sparse, scale_grad_by_freq, include_last_offset: as torch.nn.EmbeddingBag's; every mode takes
            per_sample_weights, sparse and scale_grad_by_freq, and there is mode "sqrtn".
        fallback (bool): tensors on other devices are left to torch; default: an error.

    Shape:
        input (int32 or int64[N], [B, L] or jagged), offsets (int32 or int64[B] or [B + 1]) -> float[B, D]

    Raises:
        TypeError, ValueError, IndexError: in forward, as hotrow.torch.embedding_bag.

    Source:
        torch.nn.EmbeddingBag.
    """

    def __init__(self, *args: Any, fallback: bool = False, **options: Any) -> None:
        super().__init__(*args, **options)
        self.fallback = _check.boolean("fallback", fallback)

    def forward(self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None) -> Tensor:
        """Bags of rows of the weight."""
        return embedding_bag(
            input, self.weight, offsets, self.max_norm, self.norm_type, self.scale_grad_by_freq, self.mode, self.sparse,
            per_sample_weights, self.include_last_offset, self.padding_idx, fallback=self.fallback,
        )  # fmt: skip
