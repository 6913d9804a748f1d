"""What must hold whatever the numbers are: the lookup and its gradient are adjoint and linear, sums may be split and
permuted, rows nobody names stay as they are, and encoding and sampling lose nothing.

Values are small integers and powers of two where sums must be exact, so that equality needs no tolerance.
"""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hotrow
from cases import Array
from hotrow import Sampling, text

# The backend fixture is set once for all examples of a test, which is what is wanted.
properties = settings(
    derandomize=True, deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class Lookups(NamedTuple):
    """Tables of small integers: any sum of them is exact in float32."""

    table: Array
    indices: Array
    grads: Array
    offsets: Array
    rng: np.random.Generator


@st.composite
def lookups(draw: st.DrawFn, real: bool = False) -> Lookups:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows, width, n = draw(st.integers(1, 12)), draw(st.integers(1, 40)), draw(st.integers(0, 70))
    float_t, index_t = draw(st.sampled_from([np.float32, np.float64])), draw(st.sampled_from([np.int32, np.int64]))
    cuts = rng.integers(0, n + 1, draw(st.integers(0, 6)))

    def numbers(*shape: int) -> Array:
        return (rng.standard_normal(shape) if real else rng.integers(-50, 51, shape)).astype(float_t)

    indices = rng.integers(0, rows, n).astype(index_t)
    return Lookups(numbers(rows, width), indices, numbers(n, width), np.sort(np.r_[0, cuts, n]), rng)


def scattered(like: Array, indices: Array, grads: Array, scale: float = 1.0) -> Array:
    """The gradient of a table, dense."""
    table = np.zeros_like(like)
    hotrow.scatter_add(table, indices, grads, scale=scale)
    return table


@given(x=lookups())
@properties
def test_scatter_add_is_the_adjoint_of_gather(backend: ModuleType, x: Lookups) -> None:
    """<gather(T, i), G> == <T, scatter(i, G)>"""
    forward = np.vdot(hotrow.gather(x.table, x.indices).astype(np.int64), x.grads.astype(np.int64))
    assert forward == np.vdot(x.table.astype(np.int64), scattered(x.table, x.indices, x.grads).astype(np.int64))


@given(x=lookups(), a=st.sampled_from([-2, 0.5, 3]))
@properties
def test_operators_are_linear(backend: ModuleType, x: Lookups, a: float) -> None:
    other = x.rng.integers(-50, 51, x.table.shape).astype(x.table.dtype)
    for look_up in (
        lambda t: hotrow.gather(t, x.indices),
        lambda t: hotrow.embedding_bag(t, x.indices, x.offsets),
        lambda t: hotrow.embedding_bag(t, x.indices, x.offsets, weights=np.full(x.indices.size, a, t.dtype)),
    ):
        mixed = look_up((a * x.table + other).astype(x.table.dtype))
        np.testing.assert_array_equal(mixed, a * look_up(x.table) + look_up(other))
    gradient = scattered(x.table, x.indices, x.grads)
    np.testing.assert_array_equal(scattered(x.table, x.indices, x.grads, scale=a), a * gradient)


@given(x=lookups())
@properties
def test_bags_cut_in_two_add_up(backend: ModuleType, x: Lookups) -> None:
    middle = x.offsets[:-1] + (x.offsets[1:] - x.offsets[:-1]) // 2
    cut = np.sort(np.concatenate([x.offsets, middle]))
    halves = hotrow.embedding_bag(x.table, x.indices, cut)
    np.testing.assert_array_equal(halves[::2] + halves[1::2], hotrow.embedding_bag(x.table, x.indices, x.offsets))


@given(x=lookups())
@properties
def test_a_bag_is_a_sum_of_gathered_rows(backend: ModuleType, x: Lookups) -> None:
    rows = hotrow.gather(x.table, x.indices)
    bags = hotrow.embedding_bag(x.table, x.indices, x.offsets)
    for b, (begin, end) in enumerate(zip(x.offsets[:-1], x.offsets[1:], strict=True)):
        np.testing.assert_array_equal(bags[b], rows[begin:end].sum(axis=0))


@given(x=lookups(real=True))
@properties
def test_order_of_lookups_changes_rounding_alone(backend: ModuleType, x: Lookups) -> None:
    order = x.rng.permutation(x.indices.size)
    found = scattered(x.table, x.indices, x.grads) - scattered(x.table, x.indices[order], x.grads[order])
    bound = 2 * x.indices.size * np.finfo(x.table.dtype).eps * scattered(x.table, x.indices, abs(x.grads))
    assert (abs(found) <= bound).all()


@given(x=lookups())
@properties
def test_coalescing_first_changes_nothing(backend: ModuleType, x: Lookups) -> None:
    gradient = hotrow.coalesce(x.indices, x.grads)
    assert gradient.rows.dtype == x.indices.dtype
    np.testing.assert_array_equal(gradient.rows, np.unique(x.indices))
    direct, stepped = scattered(x.table, x.indices, x.grads), np.zeros_like(x.table)
    np.testing.assert_array_equal(scattered(x.table, *gradient), direct)
    hotrow.sgd_step(stepped, x.indices, x.grads, lr=0.5)
    np.testing.assert_array_equal(stepped, -0.5 * direct)


@given(x=lookups(real=True), bits=st.integers(0, 2**32 - 1))
@properties
def test_rows_nobody_names_keep_their_bits(backend: ModuleType, x: Lookups, bits: int) -> None:
    other = np.setdiff1d(np.arange(len(x.table)), x.indices)
    for update in (
        lambda t: hotrow.scatter_add(t, x.indices, x.grads),
        lambda t: hotrow.sgd_step(t, x.indices, x.grads, lr=0.1),
        lambda t: hotrow.skipgram_step(t, x.table.copy(), x.indices, x.indices, x.indices[:, None], lr=0.1),
    ):
        table = x.table.copy()
        table[other] = np.full(table.itemsize // 4, bits, np.uint32).view(table.dtype)[0]  # NaN, -0.0 and all
        before = table[other].tobytes()
        update(table)
        assert table[other].tobytes() == before


@given(sentences=st.lists(st.lists(st.sampled_from("abcdefg"), max_size=8), max_size=8), min_count=st.integers(1, 4))
@properties
def test_encoding_keeps_words_counts_and_sentences(sentences: list[list[str]], min_count: int) -> None:
    counts = Counter(word for sentence in sentences for word in sentence)
    frequent = {word for word, n in counts.items() if n >= min_count}
    if not frequent:
        with pytest.raises(ValueError, match=f"no word occurs {min_count} times among" if counts else "has no words"):
            text.encode(sentences, min_count)
        return
    corpus = text.encode(sentences, min_count)
    assert set(corpus.words) == frequent
    assert corpus.counts.tolist() == sorted((counts[w] for w in frequent), reverse=True)
    assert [counts[w] for w in corpus.words] == corpus.counts.tolist()
    decoded = [[corpus.words[t] for t in part] for part in np.split(corpus.tokens, corpus.offsets[1:-1])]
    thinned = [[w for w in sentence if w in frequent] for sentence in sentences]
    assert decoded == [sentence for sentence in thinned if sentence]
    assert corpus.offsets[0] == 0
    assert corpus.offsets[-1] == corpus.tokens.size


@given(line=st.text())
@properties
def test_tokens_are_lower_case_runs_of_letters_and_digits(line: str) -> None:
    words = text.tokenize(line)
    assert words == text.tokenize(line.lower())
    assert all(word.replace("'", "").isalnum() for word in words)
    assert [w for word in words for w in text.tokenize(word)] == words
    kept = "".join(words).replace("'", "")
    assert kept == "".join(c for c in line.lower() if c.isalnum())


@given(
    counts=st.lists(st.integers(0, 10**9), min_size=1, max_size=60).filter(any),
    exponent=st.sampled_from([0.75, 0.0, 1.0, -0.5]),
)
@properties
def test_alias_table_holds_the_distribution(counts: list[int], exponent: float) -> None:
    """Every bucket has (accept + 1) / 2^32 of its share for its own word and the rest for the other."""
    sampling = Sampling.from_counts(counts, ns_exponent=exponent)
    mass = [Fraction(0)] * len(counts)
    for word, (accept, other) in enumerate(zip(sampling.alias_accept, sampling.alias_other, strict=True)):
        own = Fraction(int(accept) + 1, 2**32)
        mass[word] += own
        mass[int(other)] += 1 - own
    weight = np.array([c**exponent if c else 0.0 for c in counts])
    want = weight / weight.sum()
    for word, total in enumerate(mass):
        assert abs(float(total / len(counts)) - want[word]) <= 2**-30
        if counts[word] == 0:
            assert total <= Fraction(1, 2**32)  # the smallest threshold there is


@given(counts=st.lists(st.integers(1, 10**9), min_size=1, max_size=30), sample=st.sampled_from([0.0, 1e-4, 1e-2, 1.0]))
@properties
def test_frequent_words_are_thinned(counts: list[int], sample: float) -> None:
    keep = (Sampling.from_counts(counts, sample=sample).keep + 1.0) / 2**32
    share = sample * sum(counts) / np.array(counts, float)
    want = np.minimum(1, np.sqrt(share) + share) if sample else np.ones(len(counts))
    np.testing.assert_allclose(keep, want, rtol=0, atol=2**-32)


@pytest.mark.parametrize(
    ("counts", "options", "error", "message"),
    [
        ([], {}, ValueError, r"counts must have 1 to 2\^31 - 1 entries, not 0"),
        ([0, 0], {}, ValueError, "counts are all 0: there is nothing to draw"),
        ([1, -1], {}, ValueError, r"counts\[1\] = -1\.0 must be finite and at least 0"),
        ([np.nan], {}, ValueError, r"counts\[0\] = nan must be finite and at least 0"),
        ([[1]], {}, TypeError, "counts must be a vector of numbers, not int64 of 2 dimensions"),
        (["a"], {}, TypeError, "counts must be a vector of numbers, not str32 of 1 dimensions"),
        ([1], {"sample": -1}, ValueError, r"sample = -1\.0 must be at least 0"),
        ([1], {"ns_exponent": np.inf}, ValueError, "ns_exponent = inf must be finite"),
    ],
)
def test_bad_counts(counts: Any, options: dict[str, float], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}$"):
        Sampling.from_counts(counts, **options)


@pytest.mark.parametrize("counts", [[1e6, 1, 0], [1e308] * 3, [1e-300, 1e-300]])
def test_counts_of_any_size_make_a_table(counts: list[float]) -> None:
    sampling = Sampling.from_counts(counts, sample=0.1)
    share = np.array(counts) / max(counts)
    share = share**0.75 / (share**0.75).sum()
    own = (sampling.alias_accept + 1.0) / 2**32
    mass = own.copy()
    np.add.at(mass, sampling.alias_other, 1 - own)
    np.testing.assert_allclose(mass / len(counts), share, atol=2.0**-30)


def test_exponents_too_far_from_zero() -> None:
    with pytest.raises(ValueError, match=r"^ns_exponent = -60.0 is too far from 0 for these counts$"):
        Sampling.from_counts([1e6, 1, 0], ns_exponent=-60)
