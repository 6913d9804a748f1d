"""The tree of hierarchical softmax: that of word2vec.c, shortest paths, probabilities that sum up to 1."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from hotrow import HuffmanTree, Sampling, reference


def word2vec_c(counts: list[int]) -> list[tuple[list[int], list[int]]]:
    """CreateBinaryTree: points and codes of each word, words sorted with the most frequent first."""
    size = len(counts)
    count, parent, binary = [*counts, *[10**15] * size], [0] * 2 * size, [0] * 2 * size
    word, node = size - 1, size
    for a in range(size, 2 * size - 1):
        pair = []
        for _ in range(2):
            if word >= 0 and count[word] < count[node]:
                pair.append(word)
                word -= 1
            else:
                pair.append(node)
                node += 1
        count[a] = count[pair[0]] + count[pair[1]]
        parent[pair[0]] = parent[pair[1]] = a
        binary[pair[1]] = 1
    paths = []
    for b in range(size):
        points, codes = [], []
        while b != 2 * size - 2:
            codes.append(binary[b])
            b = parent[b]
            points.append(b - size)
        paths.append((points[::-1], codes[::-1]))
    return paths


def paths(tree: HuffmanTree) -> list[tuple[list[int], list[int]]]:
    return [(tree.points[a:b].tolist(), tree.codes[a:b].tolist()) for a, b in pairwise(tree.path_offsets.tolist())]


COUNTS: dict[str, list[int]] = {
    "one": [5],
    "two": [5, 5],
    "ties": [9, 4, 4, 4, 3, 1, 1, 1],
    "equal": [2] * 37,
    "halves": [2**k for k in range(30, -1, -1)],
    "zipf": sorted(np.random.default_rng(0).zipf(1.3, 300).clip(max=10**6).tolist(), reverse=True),
}


@pytest.mark.parametrize("name", COUNTS)
def test_tree_is_that_of_word2vec_c(name: str) -> None:
    assert paths(HuffmanTree.from_counts(COUNTS[name])) == word2vec_c(COUNTS[name])


def test_order_of_words_changes_no_length() -> None:
    counts = np.array(COUNTS["zipf"])
    order = np.random.default_rng(1).permutation(counts.size)
    lengths, shuffled = (np.diff(HuffmanTree.from_counts(c).path_offsets) for c in (counts, counts[order]))
    assert (shuffled * counts[order]).sum() == (lengths * counts).sum()
    entropy = -(counts * np.log2(counts / counts.sum())).sum()
    assert entropy <= (lengths * counts).sum() < entropy + counts.sum()


def test_words_that_never_occur_have_short_paths() -> None:
    """Those of a balanced tree, below the place that one of them would have."""
    lengths = [np.diff(HuffmanTree.from_counts([*[0] * 4096, *more]).path_offsets) for more in ([], [1, 2, 4, 9])]
    assert (lengths[0] == 12).all()
    assert lengths[1][4096:].tolist() == [4, 3, 2, 1]
    assert (lengths[1][:4096] == 12 + 4).all()


def test_probabilities_sum_up_to_one() -> None:
    """exp(-loss) of each word for one context: the loss of the reference is -log of a distribution."""
    rng, tree = np.random.default_rng(2), HuffmanTree.from_counts(COUNTS["ties"])
    h, out_table = rng.standard_normal((1, 5)), rng.standard_normal((7, 5))
    losses = [reference.skipgram_loss(h, out_table[points], np.array(codes) == 0) for points, codes in paths(tree)]
    assert np.exp(-np.array(losses)).sum() == pytest.approx(1, rel=1e-14)


def test_reference_descends_its_loss() -> None:
    """One window: both tables move by the gradient of the loss, by central differences."""
    rng, lr, step = np.random.default_rng(3), 0.3, 1e-5
    tree = HuffmanTree.from_counts([5, 3, 2, 1])
    case: dict[str, Any] = {"tokens": np.array([0, 2]), "offsets": np.array([0, 2]), "tree": tree, "window": 1}
    case["sampling"] = Sampling.from_counts([5, 3, 2, 1], sample=0)
    before = {"in_table": rng.standard_normal((4, 3)), "out_table": rng.standard_normal((3, 3))}
    # The second window alone, centre 2 and context 0: the first one trains at a rate of 0.
    case |= {"lr": 0.0, "lr_end": 2 * lr}
    after = {name: table.copy() for name, table in before.items()}
    reference.skipgram_hs_epoch(**after, **case)
    points, codes = paths(tree)[2]
    for name, table in before.items():
        gradient = np.zeros_like(table)
        for at in np.ndindex(table.shape):
            sides = []
            for change in (step, -step):
                moved = {key: value.copy() for key, value in before.items()}
                moved[name][at] += change
                x = moved["out_table"][points] @ moved["in_table"][0]
                sides.append(np.logaddexp(0, np.where(codes, 1, -1) * x).sum())
            gradient[at] = (sides[0] - sides[1]) / (2 * step)
        np.testing.assert_allclose((table - after[name]) / lr, gradient, atol=1e-8)


@pytest.mark.parametrize(
    ("counts", "error", "text"),
    [
        ([], ValueError, "counts must have 1 to 2^31 - 1 entries, not 0"),
        ([1.0, -2.0], ValueError, "counts[1] = -2.0 must be finite and at least 0"),
        ([[1]], TypeError, "counts must be a vector of numbers, not int64 of 2 dimensions"),
    ],
)
def test_bad_counts(counts: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error) as raised:
        HuffmanTree.from_counts(counts if counts else np.zeros(0))
    assert str(raised.value) == text
