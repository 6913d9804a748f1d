"""The tree of hierarchical softmax."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hotrow.sampling import checked_counts


@dataclass(frozen=True, slots=True)
class HuffmanTree:
    """The path from the root of a Huffman tree to each of V words, over V - 1 inner nodes.

    The path of word w is at path_offsets[w] ... path_offsets[w + 1] - 1. A frequent word has a short one.

    Attributes:
        path_offsets (int64[V + 1]): where each path starts.
        points (int32[P]): inner nodes, rows of the output table, the root first. No node stands in a path twice.
        codes (uint8[P]): 0 where the path goes on to the first child of the node, the lighter one, else 1.

    Source:
        Huffman 1952; word2vec.c, whose tree this is where words come with the most frequent first, ties included.
    """

    path_offsets: NDArray[np.int64]
    points: NDArray[np.int32]
    codes: NDArray[np.uint8]

    @classmethod
    def from_counts(cls, counts: ArrayLike) -> HuffmanTree:
        """The tree of words that occur `counts` times.

        Inner nodes are numbered in the order they are made, the root last. Of equal weights inner nodes come before
        words, the oldest first, and words before those of a lower number. Words that never occur weigh alike, and all
        of them together no more than any other: paths through weights of 0 would grow by a node with each of them.

        Args:
            counts (int or float[V]): at least 0; V < 2^31.

        Raises:
            TypeError, ValueError: as Sampling.from_counts.
        """
        weights = checked_counts(counts)
        size = weights.size
        weights[weights == 0] = weights.min(initial=1.0, where=weights > 0) / size
        order = size - 1 - np.argsort(weights[::-1], kind="stable")
        parent, second = np.full(2 * size - 1, -1, np.int32), np.zeros(2 * size - 1, np.uint8)
        children = _merge(weights[order].tolist())  # words numbered by weight, then inner nodes
        parent[children] = np.arange(size, 2 * size - 1, dtype=np.int32)[:, None]
        second[children[:, 1]] = 1

        lengths, node = np.zeros(size, np.int64), parent[:size]
        while (inside := node >= 0).any():
            lengths[order] += inside
            node = np.where(inside, parent[node], -1)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        points, codes = np.empty(offsets[-1], np.int32), np.empty(offsets[-1], np.uint8)
        node, end = np.arange(size, dtype=np.int32), offsets[1:][order]
        while node.size:  # up the paths, all words at once
            inside = parent[node] >= 0
            node, end = node[inside], end[inside] - 1
            codes[end] = second[node]
            node = parent[node]
            points[end] = node - size
        return cls(offsets, points, codes)


def _merge(leaves: list[float]) -> NDArray[np.int32]:
    """The lighter and the heavier child of each inner node, for leaves with ascending weights.

    Inner nodes come about with ascending weights too: the two lightest nodes are at the heads of two queues.
    """
    size = len(leaves)
    weights, children = leaves + [float("inf")] * size, []
    leaf, inner = 0, size
    for made in range(size, 2 * size - 1):
        pair, weight = [], 0.0
        for _ in range(2):
            if leaf < size and (inner == made or leaves[leaf] < weights[inner]):
                pair.append(leaf)
                weight += leaves[leaf]
                leaf += 1
            else:
                pair.append(inner)
                weight += weights[inner]
                inner += 1
        weights[made] = weight
        children.append(pair)
    return np.array(children, np.int32).reshape(-1, 2)
