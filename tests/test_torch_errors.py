"""Errors of hotrow.torch: their types, and what and where is wrong; other devices; what is not installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from conftest import run_python

torch = pytest.importorskip("torch")

import hotrow.torch as ht  # noqa: E402

ROWS, WIDTH = 12, 5
INDICES = torch.tensor([[7, 1, 3, 7], [2, 2, 0, 11], [2, 2, 2, 2]])
OFFSETS = torch.tensor([0, 0, 3, 4, 12])
FLAT = INDICES.reshape(-1)
BAD: dict[str, tuple[type[Exception], str, Callable[[], Any]]] = {
    "index above": (IndexError, r"input\[1, 0\] = 15 is out of range for a table of 12 rows",
        lambda: ht.Embedding(ROWS, WIDTH)(torch.tensor([[0, 5], [15, 1]]))),
    "index below": (IndexError, r"input\[2\] = -1 is out of range for a table of 12 rows \(negative indices .*\)",
        lambda: ht.Embedding(ROWS, WIDTH)(torch.tensor([0, 5, -1]))),
    "index of 0 dimensions": (IndexError, r"input = 12 is out of range for a table of 12 rows",
        lambda: ht.Embedding(ROWS, WIDTH)(torch.tensor(12))),
    "index with max_norm": (IndexError, r"input\[1\] = 12 is out of range for a table of 12 rows",
        lambda: ht.Embedding(ROWS, WIDTH, max_norm=1.0)(torch.tensor([0, 12]))),
    "index of float16": (IndexError, r"input\[1\] = 12 is out of range for a table of 12 rows",
        lambda: ht.Embedding(ROWS, WIDTH, dtype=torch.float16)(torch.tensor([0, 12]))),
    "float indices": (TypeError, r"input must be int32 or int64, not float32",
        lambda: ht.Embedding(ROWS, WIDTH)(torch.tensor([1.5]))),
    "bool indices": (TypeError, r"input must be int32 or int64, not bool",
        lambda: ht.EmbeddingBag(ROWS, WIDTH)(torch.tensor([[True]]))),
    "a list": (TypeError, r"input must be a torch.Tensor, not list", lambda: ht.Embedding(ROWS, WIDTH)([1, 2])),
    "an array": (TypeError, r"weight must be a torch.Tensor, not ndarray",
        lambda: ht.embedding_bag(INDICES, np.ones((3, 2)))),
    "device": (TypeError, r"input is on device meta: hotrow works on the CPU \(fallback=True: .*\)",
        lambda: ht.Embedding(ROWS, WIDTH)(INDICES.to("meta"))),
    "device of weight": (TypeError, r"weight is on device meta: hotrow works on the CPU \(fallback=True.*\)",
        lambda: ht.EmbeddingBag(ROWS, WIDTH, device="meta")(INDICES)),
    "device of offsets": (TypeError, r"offsets is on device meta: .*",
        lambda: ht.EmbeddingBag(ROWS, WIDTH)(FLAT, OFFSETS.to("meta"))),
    "sparse weight": (TypeError, r"weight must be a dense tensor, not of layout torch.sparse_coo",
        lambda: ht.embedding(INDICES, torch.eye(ROWS).to_sparse())),
    "rank of weight": (TypeError, r"weight must have 2 dimensions, not 3",
        lambda: ht.embedding(INDICES, torch.ones(2, 2, 2))),
    "integer bags": (TypeError, r"weight must be float32, float64, float16 or bfloat16, not int64",
        lambda: ht.embedding_bag(INDICES, torch.ones(20, 2, dtype=torch.long))),
    "padding": (IndexError, r"padding_idx = 12 is out of range for a table of 12 rows",
        lambda: ht.embedding(INDICES, torch.ones(ROWS, 2, requires_grad=True), padding_idx=12).sum().backward()),
    "padding below": (IndexError, r"padding_idx = -13 is out of range for a table of 12 rows",
        lambda: ht.embedding_bag(INDICES, torch.ones(ROWS, 2), padding_idx=-13)),
    "index of a bag": (IndexError, r"input\[2, 1\] = 99 is out of range for a table of 12 rows",
        lambda: ht.EmbeddingBag(ROWS, WIDTH)(torch.tensor([[0, 1], [2, 3], [4, 99]]))),
    "descending": (ValueError, r"offsets must not descend: offsets\[1\] = 4, offsets\[2\] = 2",
        lambda: ht.EmbeddingBag(ROWS, WIDTH)(FLAT, torch.tensor([0, 4, 2]))),
    "first offset": (ValueError, r"offsets\[0\] = 1: the first bag must start at 0",
        lambda: ht.EmbeddingBag(ROWS, WIDTH)(FLAT, torch.tensor([1, 4]))),
    "last offset": (ValueError, r"offsets\[1\] = 100 is past the 12 lookups of input",
        lambda: ht.EmbeddingBag(ROWS, WIDTH)(FLAT, torch.tensor([0, 100]))),
    "negative offset": (ValueError, r"offsets must not descend: offsets\[0\] = 0, offsets\[1\] = -3",
        lambda: ht.EmbeddingBag(ROWS, WIDTH)(FLAT, torch.tensor([0, -3, 4]))),
    "last offset alone": (ValueError, r"offsets of 1 entry name no bag for the 12 lookups of input",
        lambda: ht.EmbeddingBag(ROWS, WIDTH, include_last_offset=True)(FLAT, OFFSETS[:1])),
    "no last offset": (ValueError, r"offsets is empty: with include_last_offset it must end with the number of lookups",
        lambda: ht.EmbeddingBag(ROWS, WIDTH, include_last_offset=True)(FLAT, FLAT[:0])),
    "float offsets": (TypeError, r"offsets must be int32 or int64, not float32",
        lambda: ht.EmbeddingBag(ROWS, WIDTH)(FLAT, OFFSETS.float())),
    "offsets of 2 dimensions": (TypeError, r"offsets must have 1 dimension, not 2",
        lambda: ht.EmbeddingBag(ROWS, WIDTH)(FLAT, OFFSETS[None])),
    "offsets beside bags": (ValueError, r"offsets must be None beside an input of 2 dimensions, .*",
        lambda: ht.EmbeddingBag(ROWS, WIDTH)(INDICES, OFFSETS)),
    "no offsets": (ValueError, r"an input of 1 dimension needs offsets, which say where its bags start",
        lambda: ht.EmbeddingBag(ROWS, WIDTH)(FLAT)),
    "rank of input": (TypeError, r"input must have 1 or 2 dimensions, not 3",
        lambda: ht.EmbeddingBag(ROWS, WIDTH)(INDICES[None])),
    "shape of weights": (ValueError, r"per_sample_weights must have the same shape as input, \(3, 4\), not \(12,\)",
        lambda: ht.EmbeddingBag(ROWS, WIDTH)(INDICES, per_sample_weights=torch.ones(12))),
    "dtype of weights": (TypeError, r"per_sample_weights must be float32 as weight is, not float64",
        lambda: ht.EmbeddingBag(ROWS, WIDTH)(INDICES, per_sample_weights=torch.ones(3, 4, dtype=torch.double))),
    "mode": (ValueError, r"mode must be one of 'sum', 'mean', 'sqrtn', 'max', not 'min'",
        lambda: ht.EmbeddingBag(ROWS, WIDTH, mode="min")(INDICES)),
    "fallback": (TypeError, r"fallback must be True or False, not str", lambda: ht.Embedding(2, 2, fallback="yes")),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_errors_say_what_and_where(name: str) -> None:
    kind, text, call = BAD[name]
    with pytest.raises(kind, match=f"^{text}$") as caught:
        call()
    assert isinstance(caught.value, RuntimeError) or name == "fallback"  # as torch's own


def test_an_error_changes_nothing() -> None:
    layer = ht.Embedding(ROWS, WIDTH, max_norm=0.1)
    before = layer.weight.detach().clone()
    with pytest.raises(IndexError):
        layer(torch.tensor([0, 1, -1]))
    torch.testing.assert_close(layer.weight.detach(), before, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["dtype of weights", "mode", "offsets descend"])
def test_an_error_of_a_bag_changes_nothing(name: str) -> None:
    arguments: dict[str, Any] = {
        "dtype of weights": {"offsets": OFFSETS, "per_sample_weights": torch.ones(12, dtype=torch.double)},
        "mode": {"offsets": OFFSETS, "mode": "min"},
        "offsets descend": {"offsets": torch.tensor([0, 3, 2])},
    }
    weight = torch.full((ROWS, WIDTH), 5.0)
    with pytest.raises((TypeError, ValueError)):
        ht.embedding_bag(FLAT, weight, max_norm=0.1, **arguments[name])
    assert weight.eq(5).all()


class _Refused(RuntimeError):
    def __init__(self, what: str, why: str) -> None:
        super().__init__(what, why)


@pytest.mark.parametrize("kind", [ht.Embedding, ht.EmbeddingBag])
def test_errors_of_hooks_are_theirs(kind: Any) -> None:
    def refuse(_: Any) -> None:
        raise _Refused("saving", "a test")

    with torch.autograd.graph.saved_tensors_hooks(refuse, refuse), pytest.raises(_Refused):
        kind(ROWS, WIDTH)(INDICES)


def test_fallback_leaves_other_devices_to_torch() -> None:
    assert ht.Embedding(ROWS, WIDTH, device="meta", fallback=True)(INDICES.to("meta")).shape == (3, 4, WIDTH)
    out = ht.EmbeddingBag(ROWS, WIDTH, device="meta", fallback=True)(FLAT.to("meta"), OFFSETS.to("meta"))
    assert out.shape == (5, WIDTH)
    layer = ht.Embedding(ROWS, WIDTH, fallback=True)
    assert type(layer(INDICES).grad_fn).__name__ == "_EmbeddingBackward"  # hotrow's own, on the CPU


def test_a_missing_torch_is_named() -> None:
    done = run_python("import sys; sys.modules['torch'] = None; import hotrow.torch", ok=False)
    assert done.stderr.splitlines()[-1].startswith("ImportError: hotrow.torch needs torch (")
    assert done.stderr.splitlines()[-1].endswith('pip install "hotrow[torch]"')


def test_hotrow_does_not_import_torch() -> None:
    assert run_python("import hotrow, sys; print('torch' in sys.modules)").stdout == "False\n"
