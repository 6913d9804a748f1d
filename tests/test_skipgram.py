"""What tables of samples cannot say of skip-gram and CBOW, with negatives and with a tree: that the reference descends
its own loss, that draws follow the stated distributions, that training repeats, learns, and can be stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise, product
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import hotrow
from cases import Array, Case, corpus
from hotrow import HuffmanTree, Sampling, num_threads, reference
from hotrow.reference.skipgram import GROUP, TOKENS_PER_BLOCK

GOLDEN = 0x9E3779B97F4A7C15
PAIRS = "skipgram_epoch without shared negatives"
EPOCHS = ("skipgram_epoch", PAIRS, "cbow_epoch", "skipgram_hs_epoch", "cbow_hs_epoch")
SPLITMIX64 = (0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F)  # its first outputs for seed 0


def epoch(seed: int = 3, tokens: int = 4000, rows: int = 60, width: int = 20, float_t: Any = np.float32) -> Case:
    """Arguments of an epoch over sentences of every length up to several blocks."""
    rng = np.random.default_rng(seed)
    words, offsets = corpus(rng, np.int32, (1, 30, 0, tokens - 31), rows)
    return {
        "in_table": ((rng.random((rows, width)) - 0.5) / width).astype(float_t),
        "out_table": ((rng.random((rows, width)) - 0.5) / width).astype(float_t),
        "tokens": words,
        "offsets": offsets,
        "sampling": Sampling.from_counts(np.bincount(words, minlength=rows), sample=1e-2),
    }


def run(module: ModuleType, op: str, case: Case, **options: Any) -> float:
    """An epoch; with the tree of the words' counts in place of negatives where it takes one."""
    given = case | options
    if op == PAIRS:
        op, given = "skipgram_epoch", {"shared_negatives": False} | given
    if "hs" in op:
        given.pop("negative", None)
        given["tree"] = HuffmanTree.from_counts(np.bincount(case["tokens"], minlength=len(case["in_table"])))
    return float(getattr(module, op)(**given))


each_epoch = pytest.mark.parametrize("op", EPOCHS)


def tables(case: Case) -> bytes:
    return case["in_table"].tobytes() + case["out_table"].tobytes()


# --- the reference ----------------------------------------------------------------------------------------------------


def _by_differences(loss: Callable[[], float], table: Array, step: float) -> Array:
    """The gradient of a loss by central differences."""
    gradient = np.zeros(table.shape)
    for i, d in np.ndindex(table.shape):
        kept = table[i, d]
        table[i, d] = kept + step
        above = loss()
        table[i, d] = kept - step
        below = loss()
        table[i, d] = kept
        gradient[i, d] = (above - below) / (2 * step)
    return gradient


def test_reference_gradient_is_that_of_its_loss() -> None:
    """Central differences, wrong by step^2 / 6 of the third derivative (|softplus'''| < 0.1) and by rounding."""
    rng, step = np.random.default_rng(0), 1e-4
    h, o = rng.standard_normal((3, 4)), rng.standard_normal((5, 4))
    positive = np.array([True, False, False, True, False])

    def loss() -> float:
        return reference.skipgram_loss(h, o, positive)

    for x, other, gradient in zip((h, o), (o, h), reference.skipgram_gradient(h, o, positive), strict=True):
        bound = step**2 / 6 * 0.1 * (abs(other) ** 3).sum(axis=0) + 100 * np.finfo(float).eps * loss() / step
        assert (abs(_by_differences(loss, x, step) - gradient) <= bound).all()


@pytest.mark.parametrize("cbow_mean", [True, False])
def test_reference_cbow_descends_its_loss(cbow_mean: bool) -> None:
    """out_table by the gradient; contexts by that times their number (of a mean) or over it (of a sum), as gensim."""
    rng, contexts, outputs, lr = np.random.default_rng(9), [0, 2, 2, 4], [1, 3, 0, 3], 0.3
    before = {name: rng.standard_normal((5, 3)) for name in ("in_table", "out_table")}
    one_hot = reference.one_hot(contexts, 5)

    def loss() -> float:
        rows = before["in_table"][contexts]
        x = before["out_table"][outputs] @ (rows.mean(axis=0) if cbow_mean else rows.sum(axis=0))
        return float(np.logaddexp(0, [-x[0], *x[1:]]).sum())

    after = {name: table.copy() for name, table in before.items()}
    matrices = reference.cbow_matrices(one_hot, cbow_mean)
    positive = np.arange(4) == 0
    window = reference.skipgram.Window(*matrices, outputs, positive, lr)
    found = reference.skipgram._group(*after.values(), [window], 1, [window.pool @ after["in_table"]])
    assert found == pytest.approx(loss(), rel=1e-14)
    for name, factor in (("in_table", 4 if cbow_mean else 1 / 4), ("out_table", 1)):
        moved = (before[name] - after[name]) / lr
        np.testing.assert_allclose(moved, factor * _by_differences(loss, before[name], 1e-4), atol=1e-6)


@pytest.mark.parametrize("stream", [1, 2, 3])
def test_draws_are_splitmix64(stream: int) -> None:
    """Seeds that cancel the stream's key leave the generator at its state 0."""
    high, low = reference.draws(-stream * GOLDEN % 2**64, stream, range(3))
    assert [int(h) << 32 | int(x) for h, x in zip(high, low, strict=True)] == list(SPLITMIX64)


def test_numba_draws_as_the_reference() -> None:
    pytest.importorskip("numba")
    from hotrow import _numba

    for seed, stream, index in product((0, 1, 2**64 - 1), (1, 2, 3), (0, 1, 2**40)):
        high, low = reference.draws(seed, stream, [index])
        drawn = _numba._draw(np.uint64(seed), np.uint64(stream), np.int64(index))
        assert int(drawn) == int(high[0]) << 32 | int(low[0])


# --- draws ------------------------------------------------------------------------------------------------------------


def _windows(case: Case, window: int) -> Iterator[tuple[float, int, list[int]]]:
    """Every window an epoch over one sentence can draw: its probability, its centre, its contexts (as words)."""
    words = case["tokens"].tolist()
    keep = (case["sampling"].keep[case["tokens"]] + 1.0) / 2**32
    for kept in product((False, True), repeat=len(words)):
        chance = float(np.where(kept, keep, 1 - keep).prod())
        left = [w for w, k in zip(words, kept, strict=True) if k]
        for t, reach in product(range(len(left)), range(1, window + 1)):
            near = left[max(0, t - reach) : t] + left[t + 1 : t + 1 + reach]
            yield chance / window, left[t], near


@pytest.mark.parametrize("shared", [True, False])
def test_mean_update_is_the_expected_gradient(shared: bool, backend: ModuleType) -> None:
    """Over seeds, to first order in lr; within 5 standard errors."""
    rng, window, negative, lr, seeds = np.random.default_rng(4), 2, 3, 1e-7, 3000
    counts = np.array([5.0, 3, 2, 1])
    shape = (counts.size, 3)
    case = {"tokens": np.array([0, 1, 2, 0, 3], np.int32), "offsets": np.array([0, 5])}
    case["sampling"] = Sampling.from_counts(counts, sample=0.05)
    start = {name: rng.standard_normal(shape) for name in ("in_table", "out_table")}

    drawn = counts**0.75 / (counts**0.75).sum()
    want = {name: np.zeros(shape) for name in start}
    for chance, center, contexts in _windows(case, window):
        outputs = [center, *(w for w in range(counts.size) if w != center)]
        often = np.array([1, *negative * drawn[outputs[1:]]])
        for context in contexts:
            h, o = start["in_table"][context], start["out_table"][outputs]
            sign = np.where(np.arange(len(outputs)) == 0, -1, 1)
            g = chance * often * sign / (1 + np.exp(-sign * (o @ h)))
            want["in_table"][context] -= g @ o
            np.subtract.at(want["out_table"], outputs, g[:, None] * h)

    found: dict[str, list[Array]] = {name: [] for name in start}
    with num_threads(1):
        for seed in range(seeds):
            now = {name: table.copy() for name, table in start.items()}
            options: Case = {"window": window, "negative": negative, "shared_negatives": shared}
            hotrow.skipgram_epoch(**now, **case, **options, lr=lr, seed=seed)
            for name, table in now.items():
                found[name].append((table - start[name]) / lr)
    for name in start:
        error = np.std(found[name], axis=0) / seeds**0.5
        assert error.min() > 0
        assert (abs(np.mean(found[name], axis=0) - want[name]) <= 5 * error + 100 * lr).all()


@pytest.mark.parametrize("op", ["skipgram_epoch", "cbow_epoch"])
def test_groups_share_their_negatives(op: str, backend: ModuleType) -> None:
    """Of 50,000 words that are as frequent, those drawn for the first centre of each group, and no others."""
    rng, negative, rows = np.random.default_rng(9), 2, 50_000
    tokens, offsets, counts = rng.integers(0, rows, 2500), np.array([0, 2500]), np.ones(rows)
    in_table, before = rng.standard_normal((2, rows, 3))
    out_table, sampling = before.copy(), Sampling.from_counts(counts, sample=0)
    run(hotrow, op, {"in_table": in_table, "out_table": out_table, "tokens": tokens, "offsets": offsets,
                     "sampling": sampling, "negative": negative})  # fmt: skip
    changed = np.flatnonzero((out_table != before).any(axis=1))
    firsts = [*range(128), *range(1024, 1024 + 128), *range(2048, 2048 + 57)]  # 452 words are 7 streams of 57 and 53
    drawn = reference.skipgram._words_drawn(sampling, 1, 2500, negative)[firsts]
    assert set(changed) == set(tokens) | set(drawn.ravel())


@pytest.mark.parametrize("threads", [1, 2])
@each_epoch
def test_blocks_without_a_word_left_change_nothing(op: str, backend: ModuleType, threads: int) -> None:
    case = epoch(tokens=4000)
    case["sampling"] = replace(case["sampling"], keep=np.zeros(60, np.uint32))
    before = tables(case)
    with num_threads(threads):
        assert run(hotrow, op, case) == 0
    assert tables(case) == before


@pytest.mark.parametrize("threads", [2, 3])
@each_epoch
def test_threads_together_do_what_one_does(op: str, backend: ModuleType, threads: int) -> None:
    """To first order in lr, but for updates that threads lose to each other."""
    moved = {}
    for t in (1, threads):
        case = epoch(tokens=20_000, rows=2000, float_t=np.float64)
        before = {name: case[name].copy() for name in ("in_table", "out_table")}
        before["out_table"][:] = case["out_table"][:] = np.random.default_rng(1).standard_normal((2000, 20))
        with num_threads(t):
            run(hotrow, op, case, lr=1e-6, lr_end=1e-6)
        moved[t] = {name: case[name] - before[name] for name in before}
    for name, alone in moved[1].items():
        assert np.linalg.norm(moved[threads][name] - alone) < 0.4 * np.linalg.norm(alone)


@pytest.mark.parametrize("width", [8, 20, 100])
@pytest.mark.parametrize("op", ["skipgram_hs_epoch", "cbow_hs_epoch"])
def test_nodes_at_the_top_of_the_tree_lose_nothing(op: str, width: int, backend: ModuleType) -> None:
    """All nodes of a tree this small are shared: to first order in lr, they get what one thread gives them."""
    if "numba" in backend.__name__:
        pytest.skip("its threads have no copies of nodes")
    found = {}
    for threads in (1, 2, 3):
        case = epoch(tokens=60_000, rows=120, width=width, float_t=np.float64)
        case["out_table"][:] = 0
        with num_threads(threads):
            run(hotrow, op, case, lr=1e-9, lr_end=1e-9)
        found[threads] = case["out_table"]
    for nodes in found.values():
        np.testing.assert_allclose(nodes, found[1], rtol=0, atol=1e-5 * abs(found[1]).max())


def test_learning_rate_falls_linearly(backend: ModuleType) -> None:
    """Sentences of two words of their own: every input row shows the rate of one group, that of its first centre."""
    rng, size, lr, lr_end = np.random.default_rng(5), 4000, 0.1, 0.02
    tokens, offsets = np.arange(size), np.arange(0, size + 1, 2)
    before, out_table = rng.standard_normal((size, 3)), rng.standard_normal((size, 3))
    outputs, in_table = out_table.copy(), before.copy()
    sampling = Sampling.from_counts(np.ones(size), sample=0)
    hotrow.skipgram_epoch(in_table, out_table, tokens, offsets, sampling, negative=0, lr=lr, lr_end=lr_end)
    center = tokens ^ 1
    sigmoid = 1 / (1 + np.exp((before * outputs[center]).sum(axis=1)))
    moved = ((in_table - before) / outputs[center] / sigmoid[:, None]).mean(axis=1)
    block = center // TOKENS_PER_BLOCK * TOKENS_PER_BLOCK
    groups = -(-np.minimum(TOKENS_PER_BLOCK, size - block) // GROUP)
    first = block + (center - block) % groups
    np.testing.assert_allclose(moved, lr + (lr_end - lr) * first / size, rtol=1e-9)


# --- repeating --------------------------------------------------------------------------------------------------------


@each_epoch
def test_one_thread_and_a_seed_repeat(op: str, backend: ModuleType) -> None:
    def trained(seed: int) -> tuple[float, bytes]:
        case = epoch()
        loss = run(hotrow, op, case, seed=seed)
        return loss, tables(case)

    with num_threads(1):
        assert trained(8) == trained(8)
        assert trained(8) != trained(9)


@pytest.mark.parametrize("cuts", [[], [1024], [1024, 2048, 3072], [3072]])
@each_epoch
def test_calls_may_cut_an_epoch_anywhere(op: str, backend: ModuleType, cuts: list[int]) -> None:
    whole, parts = epoch(), epoch()
    with num_threads(1):
        loss = run(hotrow, op, whole, window=7, negative=4, lr=0.05, lr_end=0.01, seed=5)
    s, size = parts["sampling"], parts["tokens"].size
    more = {PAIRS: [False], "skipgram_hs_epoch": []}.get(op, [True])
    tree = HuffmanTree.from_counts(np.bincount(parts["tokens"], minlength=60))
    outputs: list[Any] = [s.alias_accept, s.alias_other, 7, 4]
    if "hs" in op:
        outputs = [tree.path_offsets, tree.points, tree.codes, 7, int(np.diff(tree.path_offsets).max())]
    assert backend.tokens_per_block == 1024
    found = [
        getattr(backend, op.split()[0])(
            parts["tokens"], parts["offsets"], s.keep, *outputs, True, 0.05, 0.01, 5, begin, end, *more,
            parts["in_table"], parts["out_table"], 1,
        )
        for begin, end in pairwise([0, *cuts, size])
    ]  # fmt: skip
    assert tables(parts) == tables(whole)
    assert sum(part for part, _ in found) / sum(terms for _, terms in found) == loss


@each_epoch
def test_an_epoch_goes_on_where_it_stopped(op: str, backend: ModuleType) -> None:
    whole, parts, reference_parts = (epoch(tokens=9000) for _ in range(3))
    options: dict[str, Any] = {"window": 7, "negative": 4, "lr": 0.05, "lr_end": 0.01, "seed": 5}
    calls: list[tuple[int, float, int]] = []

    def stop(*call: Any) -> None:
        calls.append(call)
        raise KeyboardInterrupt

    with num_threads(1):
        loss = run(hotrow, op, whole, **options)
        with pytest.raises(KeyboardInterrupt):
            run(hotrow, op, parts, **options, progress=stop)
        done = calls[0][0]
        for name in ("in_table", "out_table"):
            reference_parts[name] = parts[name].astype(np.float64)
        rest = run(hotrow, op, parts, **options, begin=done)
        assert tables(parts) == tables(whole)
        assert run(hotrow, op, parts, **options, begin=9000) == 0
        assert tables(parts) == tables(whole)
    assert 0 < done < 9000
    assert min(calls[0][1], rest) < loss < max(calls[0][1], rest)
    assert run(reference, op, reference_parts, **options, begin=done) == pytest.approx(rest, rel=1e-4)
    np.testing.assert_allclose(reference_parts["in_table"], parts["in_table"], atol=1e-5)


@pytest.mark.parametrize("negative", [0, 5, 7])
def test_a_window_without_shared_negatives_is_a_sequence_of_steps(negative: int, backend: ModuleType) -> None:
    """Same bits as steps on the pairs, in the order and with the draws that define an epoch of them."""
    case, window, seed, pairs, drawn = epoch(tokens=300), 3, 6, [], []
    steps = {name: case[name].copy() for name in ("in_table", "out_table")}
    s, tokens = Sampling.from_counts(np.bincount(case["tokens"], minlength=60), sample=0), case["tokens"]
    for start, end in pairwise(case["offsets"]):
        for p in range(start, end):
            near = [c for c in range(max(start, p - window), min(end, p + window + 1)) if c != p]
            for a, c in enumerate(near):
                high, low = reference.draws(seed, 3, (p * 2 * window + a) * negative + np.arange(negative))
                bucket = (high * np.uint64(60) >> np.uint64(32)).astype(int)
                drawn.append(np.where(low <= s.alias_accept[bucket], bucket, s.alias_other[bucket]))
                pairs.append((tokens[c], tokens[p]))
    centers, contexts = np.array(pairs).T.copy()
    with num_threads(1):
        loss = hotrow.skipgram_step(
            **steps, centers=centers, contexts=contexts, negatives=np.array(drawn, np.int32), lr=0.1
        )
        options: Case = {"sampling": s, "window": window, "negative": negative, "shrink_windows": False, "lr": 0.1}
        assert run(hotrow, PAIRS, case, **options, seed=seed) == pytest.approx(loss, rel=1e-5)
    assert tables(case) == tables(steps)


def test_a_step_is_a_sequence_of_pairs(backend: ModuleType) -> None:
    rng = np.random.default_rng(6)
    centers, contexts, negatives = rng.integers(0, 9, 30), rng.integers(0, 9, 30), rng.integers(0, 9, (30, 4))
    one, two = ([rng.standard_normal((9, 5)) for _ in range(2)] for _ in range(2))
    two[0][:], two[1][:] = one
    with num_threads(1):
        hotrow.skipgram_step(*one, centers, contexts, negatives, lr=0.1)
        for i in range(30):
            hotrow.skipgram_step(*two, centers[i : i + 1], contexts[i : i + 1], negatives[i : i + 1], lr=0.1)
    np.testing.assert_array_equal(one, two)


# --- learning, watching, stopping -------------------------------------------------------------------------------------


def _topics() -> Case:
    """Sentences whose ten words all come from one of 20 topics of 10 words."""
    rng, sentences = np.random.default_rng(7), 4000
    tokens = (10 * rng.integers(0, 20, (sentences, 1)) + rng.integers(0, 10, (sentences, 10))).astype(np.int32).ravel()
    return {
        "in_table": ((rng.random((200, 32)) - 0.5) / 32).astype(np.float32),
        "out_table": np.zeros((200, 32), np.float32),
        "tokens": tokens,
        "offsets": np.arange(0, tokens.size + 1, 10),
        "sampling": Sampling.from_counts(np.bincount(tokens), sample=0),
    }


# Learning rates at which the loss falls by far in the fourth epoch, however threads are delayed.
RATES = {"skipgram_epoch": 0.003, PAIRS: 0.004, "cbow_epoch": 0.007, "skipgram_hs_epoch": 0.003, "cbow_hs_epoch": 0.006}


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize(
    ("op", "options"),
    [*((op, {"lr": RATES[op]}) for op in EPOCHS), ("cbow_epoch", {"lr": 0.01, "cbow_mean": False})],
)
def test_training_finds_the_topics(op: str, options: Case, backend: ModuleType, threads: int) -> None:
    case = _topics()
    with num_threads(threads):
        losses = [run(hotrow, op, case, **options, seed=seed) for seed in range(4)]
    assert np.isfinite(case["in_table"]).all()
    assert np.isfinite(case["out_table"]).all()
    assert losses == sorted(losses, reverse=True)
    v = case["in_table"] / np.linalg.norm(case["in_table"], axis=1, keepdims=True)
    cosine, topic = v @ v.T - 2 * np.eye(200), np.arange(200) // 10
    assert (topic[cosine.argmax(axis=1)] == topic).mean() > 0.95


@pytest.mark.parametrize("threads", [1, 2])
def test_steps_by_several_threads_learn(backend: ModuleType, threads: int) -> None:
    rng, n = np.random.default_rng(8), 20_000
    in_table, out_table = rng.standard_normal((50, 32)) / 32, np.zeros((50, 32))
    centers, negatives = rng.integers(0, 50, n), rng.integers(0, 50, (n, 5))
    with num_threads(threads):
        first, second = (
            hotrow.skipgram_step(in_table, out_table, centers, (centers + 1) % 50, negatives, lr=0.05) for _ in range(2)
        )
    assert second < first < 6 * np.log(2) + 0.01


@each_epoch
def test_progress_counts_every_token(op: str, backend: ModuleType) -> None:
    calls: list[tuple[int, float, int]] = []
    case = epoch(tokens=9000)
    with num_threads(1):
        loss = run(hotrow, op, case, progress=lambda *call: calls.append(call))
    assert sum(tokens for tokens, _, _ in calls) == 9000
    assert len(calls) > 1
    assert all(tokens % 1024 == 0 for tokens, _, _ in calls[:-1])
    terms = sum(count for _, _, count in calls)
    assert sum(mean * count for _, mean, count in calls) / terms == pytest.approx(loss, rel=1e-12)


@each_epoch
def test_an_interrupt_leaves_tables_that_can_be_used(op: str, backend: ModuleType) -> None:
    case, before = epoch(tokens=9000), tables(epoch(tokens=9000))

    def stop(*call: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(hotrow, op, case, progress=stop)
    assert tables(case) != before
    assert np.isfinite(case["in_table"]).all()
    assert np.isfinite(case["out_table"]).all()
    run(hotrow, op, case)
