"""hotrow.torch.Embedding and EmbeddingBag beside torch.nn's: numbers, gradients, options, errors."""

from __future__ import annotations

import io
import pickle
import sys
import threading
from copy import deepcopy
from itertools import pairwise, product
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import hotrow

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import hotrow.torch as ht  # noqa: E402
from hotrow.torch._compute import _FEW  # noqa: E402
from hotrow.torch._in_backward import updates  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")

ROWS, WIDTH = 12, 5
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
# The unit roundoff of a dtype, times what a dozen roundings and a few powers of two of magnitude make of it.
ATOL = {torch.float32: 1e-5, torch.float64: 1e-13, torch.float16: 2e-2, torch.bfloat16: 2e-1}
INDICES = torch.tensor([[7, 1, 3, 7], [2, 2, 0, 11], [2, 2, 2, 2]])
OFFSETS = torch.tensor([0, 0, 3, 4, 12])

each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
each_index = pytest.mark.parametrize("index", [torch.int32, torch.int64], ids=str)


def close(found: Any, want: Any, dtype: Any) -> None:
    torch.testing.assert_close(found, want, rtol=8 * torch.finfo(dtype).eps, atol=ATOL[dtype])


def pair(kind: str, dtype: Any, **options: Any) -> tuple[Any, Any]:
    """hotrow's layer and torch's, of equal weights."""
    torch.manual_seed(1)
    theirs = getattr(nn, kind)(ROWS, WIDTH, dtype=dtype, **options)
    ours = getattr(ht, kind)(ROWS, WIDTH, dtype=dtype, **options)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def dense(grad: Any) -> Any:
    return grad.to_dense() if grad.is_sparse else grad


def compare(ours: Any, theirs: Any, dtype: Any, *args: Any) -> None:
    """Forward and backward, twice: gradients add up."""
    for _ in range(2 if dtype in (torch.float32, torch.float64) else 1):  # torch cannot add sparse ones of 16 bits
        outs = [layer(*args) for layer in (ours, theirs)]
        assert outs[0].dtype == dtype
        close(*outs, dtype)
        factor = torch.linspace(-1, 1, outs[1].numel(), dtype=dtype).reshape(outs[1].shape)
        for out in outs:
            (out * factor).sum().backward()
    assert ours.weight.grad.dtype == dtype
    assert ours.weight.grad.layout == theirs.weight.grad.layout
    close(dense(ours.weight.grad), dense(theirs.weight.grad), dtype)
    close(ours.weight, theirs.weight, dtype)  # max_norm


EMBEDDING: list[dict[str, Any]] = [
    {},
    {"padding_idx": 2},
    {"padding_idx": -1},
    {"max_norm": 1.0},
    {"max_norm": 1.0, "norm_type": 1.0, "padding_idx": 7},
    {"scale_grad_by_freq": True},
    {"scale_grad_by_freq": True, "padding_idx": 2},
    {"sparse": True},
    {"sparse": True, "padding_idx": 2, "max_norm": 1.5},
]


@each_dtype
@pytest.mark.parametrize("options", EMBEDDING, ids=str)
def test_embedding(backend: ModuleType, options: dict[str, Any], dtype: Any) -> None:
    for indices in (INDICES, INDICES.int(), INDICES[0, 0], INDICES[:, ::2], INDICES.t(), INDICES[:0]):
        if indices.dim() or not {"sparse", "padding_idx"} <= options.keys():  # torch's backward fails there
            compare(*pair("Embedding", dtype, **options), dtype, indices)


@each_dtype
@each_index
def test_many_lookups(backend: ModuleType, index: Any, dtype: Any) -> None:
    """Few are left to torch's kernel."""
    indices = INDICES.repeat(1, _FEW).to(index)
    ours, theirs = pair("Embedding", dtype)
    for i in (indices, indices.t(), indices[:, ::2]):
        assert i.numel() > _FEW
        assert torch.equal(ours(i), theirs(i))
        with torch.no_grad():
            assert torch.equal(ours(i), theirs(i))
    indices[1, 2] = ROWS
    with pytest.raises(IndexError, match=rf"input\[1, 2\] = {ROWS} is out of range for a table of {ROWS} rows"):
        ours(indices)


BAG = [
    {"mode": mode, "padding_idx": padding_idx} | more
    for mode, padding_idx in product(("sum", "mean", "max"), (None, 2, -1))
    for more in ({}, {"max_norm": 1.0, "norm_type": 1.5}, {"sparse": True})
    if mode != "max" or "sparse" not in more
]


@each_dtype
@pytest.mark.parametrize("options", BAG, ids=str)
def test_embedding_bag(backend: ModuleType, options: dict[str, Any], dtype: Any) -> None:
    flat = INDICES.reshape(-1)
    compare(*pair("EmbeddingBag", dtype, **options), dtype, INDICES)
    compare(*pair("EmbeddingBag", dtype, **options), dtype, flat[::1], OFFSETS)
    compare(*pair("EmbeddingBag", dtype, include_last_offset=True, **options), dtype, flat.int(), OFFSETS.int())


@each_dtype
@each_index
@pytest.mark.parametrize("sparse", [False, True])
def test_weighted_sum(backend: ModuleType, sparse: bool, index: Any, dtype: Any) -> None:
    for padding_idx in (None, 2):
        ours, theirs = pair("EmbeddingBag", dtype, mode="sum", sparse=sparse, padding_idx=padding_idx)
        weights = torch.linspace(-2, 2, INDICES.numel(), dtype=dtype)
        for args in ((INDICES.reshape(-1).to(index), OFFSETS), (INDICES.to(index), None)):
            shares = [weights.reshape(args[0].shape).clone().requires_grad_() for _ in range(2)]
            outs = [layer(*args, share) for layer, share in zip((ours, theirs), shares, strict=True)]
            close(*outs, dtype)
            for layer, out in zip((ours, theirs), outs, strict=True):
                layer.weight.grad = None
                out.square().sum().backward()
            close(dense(ours.weight.grad), dense(theirs.weight.grad), dtype)
            close(shares[0].grad, shares[1].grad, dtype)


@each_dtype
@pytest.mark.parametrize("mode", ["sum", "mean"])
@pytest.mark.parametrize("padding_idx", [None, 2])
def test_bags_scaled_by_frequency(backend: ModuleType, padding_idx: int | None, mode: str, dtype: Any) -> None:
    """torch 2.13 divides by the count of the u-th lookup in place of that of the u-th row: it is asked without."""
    options = {"mode": mode, "padding_idx": padding_idx}
    ours, theirs = pair("EmbeddingBag", dtype, **options)
    ours.scale_grad_by_freq = True
    for layer in (ours, theirs):
        layer(INDICES).sum().backward()
    counts = torch.bincount(INDICES.reshape(-1), minlength=ROWS).clamp(min=1)[:, None]
    close(ours.weight.grad, theirs.weight.grad / counts, dtype)


@pytest.mark.parametrize("padding_idx", [None, 2])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("mode", ["sum", "mean", "sqrtn", "max"])
def test_where_torch_refuses(mode: str, sparse: bool, weighted: bool, padding_idx: int | None) -> None:
    """Every mode with sparse gradients, frequencies and weights, against operations of torch on each bag."""
    torch.manual_seed(2)
    table = torch.randn(ROWS, WIDTH, dtype=torch.double)
    flat, last = INDICES.reshape(-1), torch.tensor([*OFFSETS.tolist(), 12])
    shares = torch.rand(12, dtype=torch.double) + 0.5
    args = [table.clone().requires_grad_(), shares.clone().requires_grad_()]
    refs = [table.clone().requires_grad_(), shares.clone().requires_grad_()]
    bags = []
    for begin, end in pairwise(last):
        keep = [j for j in range(begin, end) if flat[j] != padding_idx]
        rows = refs[0][flat[keep]]
        factor = refs[1][keep] if weighted else torch.ones(len(keep), dtype=torch.double)
        rows = rows * factor[:, None]
        if not keep:
            bags.append(torch.zeros(WIDTH, dtype=torch.double))
        elif mode == "max":
            bags.append(rows.max(0)[0])
        else:
            divisor = {"sum": 1, "mean": factor.sum(), "sqrtn": factor.square().sum().sqrt()}[mode]
            bags.append(rows.sum(0) / divisor)
    want = torch.stack(bags)
    found = ht.embedding_bag(
        flat, args[0], OFFSETS, mode=mode, sparse=sparse, scale_grad_by_freq=True, padding_idx=padding_idx,
        per_sample_weights=args[1] if weighted else None,
    )  # fmt: skip
    close(found, want, torch.float64)
    found.square().sum().backward()
    want.square().sum().backward()
    counts = torch.bincount(flat, minlength=ROWS).clamp(min=1)[:, None]
    assert args[0].grad.is_sparse == sparse
    got = args[0].grad.to_dense() if sparse else args[0].grad
    if mode == "max":  # torch halves the gradient between equal maxima only in amax; here row 2 repeats: the first
        got, refs[0].grad = got * counts, refs[0].grad
        close(got, refs[0].grad, torch.float64)
    else:
        close(got, refs[0].grad / counts, torch.float64)
    if weighted:
        close(args[1].grad, refs[1].grad, torch.float64)


def test_embedding_with_sparse_gradients_scaled_by_frequency() -> None:
    ours, theirs = (
        ht.Embedding(ROWS, WIDTH, sparse=True, scale_grad_by_freq=True),
        nn.Embedding(ROWS, WIDTH, scale_grad_by_freq=True),
    )
    for layer in (ours, theirs):
        layer(INDICES).sum().backward()
    close(ours.weight.grad.to_dense(), theirs.weight.grad, torch.float32)


@each_dtype
@pytest.mark.parametrize("kind", ["Embedding", "EmbeddingBag"])
def test_sparse_gradients_are_coalesced(kind: str, dtype: Any) -> None:
    layer = getattr(ht, kind)(ROWS, WIDTH, sparse=True, dtype=dtype)
    for _ in range(3):
        layer.weight.grad = None
        layer(INDICES).sum().backward()
        grad = layer.weight.grad
        assert grad.is_coalesced()
        assert grad.indices().tolist() == [[0, 1, 2, 3, 7, 11]]
        torch.sparse_coo_tensor(grad.indices(), grad.values(), is_coalesced=True, check_invariants=True)
        assert len(layer.weight._post_accumulate_grad_hooks) == 1
    (grad,) = torch.autograd.grad(layer(INDICES).sum(), layer.weight)
    assert grad.is_coalesced()


def test_a_gradient_of_two_layers_is_not_said_to_be_coalesced() -> None:
    """Where torch puts one beside the other; adding up two that are coalesced it does right."""
    ours, theirs = ht.Embedding(ROWS, WIDTH, sparse=True), nn.Embedding(ROWS, WIDTH, sparse=True)
    theirs.weight = ours.weight
    (ours(INDICES).sum() + theirs(INDICES).sum()).backward()
    assert not ours.weight.grad.is_coalesced()
    want = 2 * torch.bincount(INDICES.reshape(-1), minlength=ROWS)
    assert ours.weight.grad.to_dense()[:, 0].tolist() == want.tolist()
    torch.autograd.grad(ours(INDICES).sum(), ours.weight)  # its gradient never becomes weight.grad
    theirs(INDICES).sum().backward()
    assert ours.weight.grad.to_dense()[:, 0].tolist() == (want * 1.5).tolist()
    assert not ours.weight.grad.is_coalesced()


def test_threads_may_share_a_table_with_sparse_gradients() -> None:
    """No hook comes or goes while another thread calls it."""
    layer, failed = ht.Embedding(ROWS, WIDTH, sparse=True), []

    def train() -> None:
        try:
            for _ in range(500):
                layer(INDICES).sum().backward()
        except Exception as error:
            failed.append(error)

    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=train) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(switch)
    assert not failed
    counts = 2000 * torch.bincount(INDICES.reshape(-1), minlength=ROWS)
    assert layer.weight.grad.to_dense()[:, 0].tolist() == counts.tolist()
    layer.weight.grad = None
    layer(INDICES).sum().backward()
    assert layer.weight.grad.is_coalesced()


def test_a_layer_frozen_before_backward() -> None:
    layer = ht.Embedding(ROWS, WIDTH, sparse=True)
    out = layer(INDICES).sum()
    layer.requires_grad_(False)
    out.backward()


@pytest.mark.parametrize("kind", ["Embedding", "EmbeddingBag"])
def test_training_steps_agree_with_torch(kind: str) -> None:
    rng = np.random.default_rng(3)
    for sparse, optimizer in ((True, torch.optim.SparseAdam), (True, torch.optim.Adagrad), (False, torch.optim.Adam)):
        layers = pair(kind, torch.double, sparse=sparse)
        steps = [optimizer(layer.parameters(), lr=0.1) for layer in layers]
        for _ in range(50):
            indices = torch.from_numpy(np.minimum(rng.zipf(1.3, (8, 6)) - 1, ROWS - 1))
            for layer, step in zip(layers, steps, strict=True):
                step.zero_grad()
                layer(indices).square().sum().backward()
                step.step()
        close(layers[0].weight, layers[1].weight, torch.float64)


# --- what torch's test/nn/test_embedding.py looks at beside that; torch_suite.py runs what torch ships of its tests ---


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("sparse", [False, True])
@each_index
@each_dtype
def test_a_known_example(mode: str, sparse: bool, index: Any, dtype: Any) -> None:
    layer = ht.EmbeddingBag(5, 2, mode=mode, sparse=sparse, dtype=dtype)
    layer.weight.data.copy_(torch.arange(1, 11).reshape(5, 2))
    indices, offsets = torch.tensor([3, 1, 1, 1, 4, 0], dtype=index), torch.tensor([0, 0, 3, 3, 6])
    grad = torch.tensor([[99, 99], [1, 2], [99, 99], [3, 4], [99, 99]], dtype=dtype)
    found = layer(indices, offsets)
    found.backward(grad)
    bag = {"sum": [[13, 16], [13, 16]], "mean": [[13 / 3, 16 / 3]] * 2, "max": [[7, 8], [9, 10]]}[mode]
    want = torch.tensor([[0, 0], bag[0], [0, 0], bag[1], [0, 0]], dtype=dtype)
    close(found, want, dtype)
    rows = torch.tensor([[3, 4], [5, 8], [0, 0], [1, 2], [3, 4]], dtype=torch.double)
    rows = {"sum": rows, "mean": rows / 3, "max": rows * torch.tensor([[0], [0], [0], [1], [1]])}[mode]
    close(dense(layer.weight.grad), rows.to(dtype), dtype)
    layer.weight.grad = None
    for empty in (layer(indices[:0], offsets[:0]), layer(indices[:0], 0 * offsets), layer(indices[:0].reshape(3, 0))):
        assert empty.eq(0).all()
        empty.sum().backward()
    assert dense(layer.weight.grad).eq(0).all()


def test_the_last_offset_is_the_number_of_lookups() -> None:
    layer = ht.EmbeddingBag(100, 3, include_last_offset=True, padding_idx=61)
    indices = torch.arange(4)
    want = torch.stack([layer.weight[:3].mean(0), layer.weight[3]])
    for offsets in ([0, 3, 3], [0, 3, 4]):
        given = torch.tensor(offsets)
        close(layer(indices, given), want, torch.float32)
        assert given.tolist() == offsets


@pytest.mark.parametrize("size", [(0, 0), (10, 0)])
def test_tables_without_rows_or_columns(size: tuple[int, int]) -> None:
    layer = ht.Embedding(*size, sparse=True)
    layer(torch.zeros((2, 4 if size[0] else 0), dtype=torch.long)).sum().backward()
    assert layer.weight.grad.shape == size


@pytest.mark.parametrize("of_weight", [False, True])
@pytest.mark.parametrize("of_weights", [False, True])
def test_gradients_of_repeated_rows_and_weights(of_weight: bool, of_weights: bool) -> None:
    layers = pair("EmbeddingBag", torch.float32, mode="sum")
    indices = torch.arange(1, 5).expand(3, -1)
    grads = []
    for layer in layers:
        layer.requires_grad_(of_weight)
        shares = torch.linspace(0, 1, 12).reshape(3, 4).requires_grad_(of_weights)
        out = layer(indices, per_sample_weights=shares.softmax(-1))
        if of_weight or of_weights:
            out.square().sum().backward()
        grads.append([out.detach(), layer.weight.grad, shares.grad])
    for found, want in zip(*grads, strict=True):
        assert (found is None) == (want is None)
        if want is not None:
            close(found, want, torch.float32)


# --- gradients that are never built -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("Embedding", {}), ("Embedding", {"padding_idx": 2}), ("Embedding", {"scale_grad_by_freq": True}),
        ("EmbeddingBag", {"mode": "sum"}), ("EmbeddingBag", {"mode": "mean", "padding_idx": 2}),
        ("EmbeddingBag", {"mode": "max"}), ("EmbeddingBag", {"mode": "mean", "scale_grad_by_freq": True}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_a_table_that_is_updated_in_backward_gets_no_gradient(kind: str, options: dict[str, Any], dtype: Any) -> None:
    layers = [getattr(ht, kind)(ROWS, WIDTH, dtype=dtype, **options) for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    total = torch.zeros(ROWS, WIDTH)

    def update(indices: Any, grads: Any, **keywords: Any) -> None:
        hotrow.scatter_add(total.numpy(), indices, grads, **keywords)

    updates[layers[0].weight] = update
    for layer in layers:
        layer(INDICES).float().square().sum().backward()
    assert layers[0].weight.grad is None
    close(total, layers[1].weight.grad.float(), dtype)
    kept = layers[0].weight
    del updates[kept]
    layers[0](INDICES).sum().backward()
    assert kept.grad is not None


# --- modules ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("Embedding", {}),
        ("Embedding", {"padding_idx": 3, "max_norm": 2.0, "norm_type": 1.0, "scale_grad_by_freq": True}),
        ("Embedding", {"sparse": True}),
        ("EmbeddingBag", {}),
        ("EmbeddingBag", {"mode": "max", "padding_idx": 3, "include_last_offset": True, "max_norm": 2.0}),
    ],
)  # fmt: skip
def test_modules_are_torchs(kind: str, options: dict[str, Any], tmp_path: Any) -> None:
    """repr, attributes, state_dict both ways, copies, pickles, torch.save; the same draws."""
    ours, theirs = pair(kind, torch.float32, **options)
    torch.manual_seed(1)
    torch.testing.assert_close(getattr(ht, kind)(ROWS, WIDTH, **options).weight, theirs.weight, rtol=0, atol=0)
    assert isinstance(ours, getattr(nn, kind))
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict()) == ["weight"]
    theirs.load_state_dict(ours.state_dict())
    for name in ours.__constants__:
        assert getattr(ours, name) == getattr(theirs, name)
    file = io.BytesIO()
    torch.save(ours, file)
    file.seek(0)
    copies = [deepcopy(ours), pickle.loads(pickle.dumps(ours)), torch.load(file, weights_only=False)]
    for copied in copies:
        assert type(copied) is type(ours)
        torch.testing.assert_close(copied.weight, ours.weight, rtol=0, atol=0)
        assert copied.weight.data_ptr() != ours.weight.data_ptr()
        assert not copied.fallback
    args = (INDICES[0], torch.tensor([0, 2, 4])) if options.get("include_last_offset") else (INDICES,)
    for copied in copies:
        close(copied(*args), ours(*args), torch.float32)
    torch.save(ours.state_dict(), tmp_path / "state")
    ours.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    assert repr(getattr(ht, kind)(2, 3, fallback=True)).endswith(", fallback=True)")


@pytest.mark.parametrize("kind", ["Embedding", "EmbeddingBag"])
def test_from_pretrained(kind: str) -> None:
    table = torch.randn(4, 3)
    for freeze in (True, False):
        layer = getattr(ht, kind).from_pretrained(table, freeze=freeze, padding_idx=1, sparse=True)
        assert type(layer) is getattr(ht, kind)
        assert layer.weight.data_ptr() == table.data_ptr()
        assert layer.weight.requires_grad is not freeze
        assert (layer.padding_idx, layer.sparse) == (1, True)


def test_moving_a_layer_moves_what_is_looked_up() -> None:
    layer = ht.Embedding(4, 3)
    before = layer(torch.tensor([1]))
    layer.half()
    assert layer(torch.tensor([1])).dtype == torch.float16
    layer.double()
    close(layer(torch.tensor([1])), before.double(), torch.float16)
    layer.weight.data = torch.ones(4, 3)
    assert layer(torch.tensor([1])).tolist() == [[1, 1, 1]]
    with torch.no_grad():
        layer.weight[1] = 2
    assert layer(torch.tensor([1])).tolist() == [[2, 2, 2]]


def test_only_what_is_asked_for_is_differentiated() -> None:
    layer = ht.EmbeddingBag(ROWS, WIDTH, mode="sum")
    weights = torch.ones(INDICES.shape, requires_grad=True)
    with torch.no_grad():
        assert layer(INDICES, per_sample_weights=weights).grad_fn is None
    layer.requires_grad_(False)
    layer(INDICES, per_sample_weights=weights).sum().backward()
    assert layer.weight.grad is None
    close(weights.grad, layer.weight[INDICES].sum(-1), torch.float32)
    assert not layer(INDICES).requires_grad
    assert not ht.Embedding(ROWS, WIDTH).requires_grad_(False)(INDICES).requires_grad
    with torch.inference_mode():
        assert ht.Embedding(ROWS, WIDTH)(INDICES).shape == (3, 4, WIDTH)


@pytest.mark.parametrize("changed", ["indices", "offsets", "per_sample_weights", "weight"])
def test_what_backward_reads_must_not_change(changed: str) -> None:
    weight = torch.randn(ROWS, WIDTH, requires_grad=True)
    tensors = {"indices": INDICES.reshape(-1).clone(), "offsets": OFFSETS.clone(), "weight": weight}
    tensors["per_sample_weights"] = torch.rand(12, requires_grad=True)
    out = ht.embedding_bag(
        tensors["indices"], weight, tensors["offsets"], mode="sum", per_sample_weights=tensors["per_sample_weights"]
    )
    with torch.no_grad():
        tensors[changed].add_(0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()
