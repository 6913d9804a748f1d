"""hotrow.torch under gradcheck, opcheck, torch.compile, export, traces, transforms and modes."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.autograd import gradcheck, gradgradcheck  # noqa: E402

import hotrow.torch as ht  # noqa: E402
from hotrow.torch._in_backward import updates  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
]

INDICES = torch.tensor([[7, 1, 3], [7, 2, 0]])
FLAT, OFFSETS, BOUNDS = INDICES.reshape(-1), torch.tensor([0, 2, 2, 5]), torch.tensor([0, 2, 2, 5, 6])
MODES = "sum", "mean", "sqrtn", "max"
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


def table(dtype: Any = torch.double) -> Any:
    torch.manual_seed(1)
    return torch.randn(10, 4, dtype=dtype, requires_grad=True)


def shares(dtype: Any = torch.double) -> Any:
    return torch.linspace(0.5, 2, 6, dtype=dtype).requires_grad_()


# --- derivatives ------------------------------------------------------------------------------------------------------


def test_derivatives_of_embedding() -> None:
    for indices in (INDICES, INDICES[0, 0], INDICES[:0]):
        assert gradcheck(lambda w, i=indices: ht.embedding(i, w).square(), table())
        assert gradgradcheck(lambda w, i=indices: ht.embedding(i, w).square(), table())


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("padding_idx", [None, 7])
@pytest.mark.parametrize("mode", MODES)
def test_derivatives_of_embedding_bag(mode: str, padding_idx: int | None, weighted: bool) -> None:
    def bag(weight: Any, factors: Any = None) -> Any:
        out = ht.embedding_bag(FLAT, weight, OFFSETS, mode=mode, per_sample_weights=factors, padding_idx=padding_idx)
        return out.square()

    args = (table(), shares()) if weighted else (table(),)
    assert gradcheck(bag, args)
    assert gradgradcheck(bag, args)
    assert gradcheck(lambda *args: bag(*args), args, check_batched_grad=False, fast_mode=True)
    assert gradgradcheck(lambda w: ht.embedding_bag(INDICES, w, mode=mode, padding_idx=padding_idx).square(), table())


def test_second_derivatives_with_padding_and_frequencies() -> None:
    """As of torch's own embedding."""
    grads = []
    for function in (ht.embedding, nn.functional.embedding):
        weight = table()
        out = function(INDICES, weight, padding_idx=2, scale_grad_by_freq=True)
        (first,) = torch.autograd.grad(out.square().sum(), weight, create_graph=True)
        (second,) = torch.autograd.grad(first.pow(3).sum(), weight)
        grads.append((first.detach(), second))
    torch.testing.assert_close(grads[0][0], grads[1][0])
    # Of torch's second, the frequencies are missing.
    counts = torch.bincount(FLAT, minlength=10).clamp(min=1)[:, None]
    torch.testing.assert_close(grads[0][1] * counts, grads[1][1])


def test_sparse_gradients_are_differentiable_once() -> None:
    for function in (ht.embedding, ht.embedding_bag):
        weight = table()
        (grad,) = torch.autograd.grad(function(INDICES, weight, sparse=True).square().sum(), weight, create_graph=True)
        with pytest.raises(RuntimeError, match="trying to differentiate twice"):
            grad.to_dense().sum().backward()


# --- operators --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_operators_pass_opcheck(dtype: Any) -> None:
    check, operators = torch.library.opcheck, torch.ops.hotrow
    check(operators.renorm_.default, (table(dtype).detach(), FLAT, BOUNDS, 0.5, 2.0))
    check(operators.renorm_.default, (table(dtype).detach(), INDICES, None, 0.5, 1.0))
    weight = table(dtype)
    for indices, padding_idx in product((INDICES, FLAT.int(), INDICES[0, 0]), (None, 2)):
        check(operators.embedding.default, (weight, indices, padding_idx, False))
        grad = torch.randn(*indices.shape, 4, dtype=dtype)
        check(operators.embedding_backward.default, (grad, indices, 10, padding_idx, True))
    for mode, factors in product(MODES, (None, shares(dtype))):
        given = weight, FLAT, BOUNDS, factors, mode, 3, False
        check(operators.embedding_bag.default, given)
        out, argmax = operators.embedding_bag(*given)
        plain = None if factors is None else factors.detach()
        grad = torch.randn_like(out)
        check(operators.embedding_bag_backward.default, (grad, FLAT, BOUNDS, plain, argmax, 10, mode, 3, True))
        if plain is not None:
            given = grad, weight.detach(), FLAT, BOUNDS, plain, argmax, mode, 3
            check(operators.embedding_bag_weights_backward.default, given)


def test_operators_name_what_is_wrong() -> None:
    with pytest.raises(IndexError, match=r"^input\[1\] = 12 is out of range for a table of 10 rows$"):
        torch.ops.hotrow.embedding(table(), torch.tensor([0, 12]), None, False)
    with pytest.raises(ValueError, match=r"^offsets must not descend: offsets\[1\] = 4, offsets\[2\] = 2$"):
        torch.ops.hotrow.embedding_bag(table(), FLAT, torch.tensor([0, 4, 2, 6]), None, "sum", None, False)


# --- compiled ---------------------------------------------------------------------------------------------------------


class Model(nn.Module):
    def __init__(self, mode: str = "mean", weighted: bool = False, padding_idx: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.words = ht.Embedding(10, 4, padding_idx=2)
        self.bags = ht.EmbeddingBag(10, 4, mode=mode, padding_idx=padding_idx)
        self.factors = nn.Parameter(torch.linspace(0.5, 2, 6)) if weighted else None

    def forward(self, indices: Any, flat: Any, offsets: Any) -> Any:
        bags = self.bags(flat, offsets, self.factors)
        return self.words(indices).sum(1).sin().sum() + bags.square().sum() + self.bags(indices).cos().sum()


def train(function: Any, model: nn.Module, *args: Any) -> list[Any]:
    model.zero_grad()
    loss = function(*args)
    loss.backward()
    return [loss.detach(), *(p.grad.clone() for p in model.parameters())]


@pytest.mark.parametrize("wrong", ["index", "offsets"])
@pytest.mark.parametrize("compiled", [False, True])
def test_max_norm_changes_no_row_of_a_wrong_call(compiled: bool, wrong: str) -> None:
    """Compiled as well, where lookup and scaling are two operators."""
    torch._dynamo.reset()
    weight = torch.full((10, 4), 5.0, requires_grad=True)

    def bag(indices: Any, offsets: Any) -> Any:
        return ht.embedding_bag(indices, weight, offsets, max_norm=0.1, include_last_offset=True)

    function = torch.compile(bag, backend="aot_eager", fullgraph=True) if compiled else bag
    indices, offsets = FLAT.clone(), BOUNDS.clone()
    if wrong == "index":
        indices[-1], kind, text = 10, IndexError, r"^input\[5\] = 10 is out of range for a table of 10 rows$"
    else:
        offsets[2], kind, text = 6, ValueError, r"^offsets must not descend: offsets\[2\] = 6, offsets\[3\] = 5$"
    with pytest.raises(kind, match=text):
        function(indices, offsets)
    assert weight.eq(5).all()
    function(FLAT, BOUNDS)
    assert weight[FLAT].norm(dim=1).lt(0.11).all()
    assert weight[4].eq(5).all()
    if compiled:
        lookup = torch.compile(lambda ids: ht.embedding(ids, weight, max_norm=0.05), backend="aot_eager")
        with pytest.raises(IndexError, match=r"^input\[1\] = -1 is out of range for a table of 10 rows"):
            lookup(torch.tensor([4, -1]))
        assert weight[4].eq(5).all()
        assert lookup(torch.tensor([4, 5])).norm(dim=1).lt(0.06).all()


BACKENDS = ["aot_eager", pytest.param("inductor", marks=pytest.mark.filterwarnings("ignore::DeprecationWarning"))]


@pytest.mark.parametrize("compiler", BACKENDS)
@pytest.mark.parametrize(("mode", "weighted"), [("sum", True), ("mean", False), ("sqrtn", True), ("max", False)])
def test_compiled_models(compiler: str, mode: str, weighted: bool) -> None:
    if compiler == "inductor":
        try:
            from torch._inductor.cpp_builder import get_cpp_compiler

            get_cpp_compiler()
        except Exception:
            pytest.skip("no C++ compiler")
    torch._dynamo.reset()
    model = Model(mode, weighted, padding_idx=1)
    compiled = torch.compile(model, fullgraph=True, backend=compiler)
    sizes = (2,) if weighted else (2, 3, 5)  # one number of lookups, or several: dynamic shapes
    for n in sizes:
        args = torch.arange(3 * n).reshape(n, 3) % 10, torch.arange(3 * n) * 7 % 10, OFFSETS
        for found, want in zip(train(compiled, model, *args), train(model, model, *args), strict=True):
            torch.testing.assert_close(found, want)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("Embedding", {"sparse": True}), ("Embedding", {"max_norm": 1.0}), ("Embedding", {"scale_grad_by_freq": True}),
        ("EmbeddingBag", {"sparse": True}), ("EmbeddingBag", {"max_norm": 1.0, "include_last_offset": True}),
    ],
)  # fmt: skip
def test_compiled_options(kind: str, options: dict[str, Any]) -> None:
    torch._dynamo.reset()
    layers = [getattr(ht, kind)(10, 4, **options) for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    args = (FLAT, BOUNDS) if options.get("include_last_offset") else (INDICES,)
    compiled = torch.compile(layers[0], fullgraph=True, backend="aot_eager")
    for function, layer in zip((compiled, layers[1]), layers, strict=True):
        function(*args).square().sum().backward()
        assert layer.weight.grad.is_sparse == layer.sparse
    torch.testing.assert_close(*(layer.weight.grad.to_dense() for layer in layers))
    torch.testing.assert_close(layers[0].weight, layers[1].weight)


def test_compiled_fallback() -> None:
    torch._dynamo.reset()
    for kind in (ht.Embedding, ht.EmbeddingBag):
        layer = kind(10, 4, device="meta", fallback=True)
        want = layer(INDICES.to("meta")).shape
        assert torch.compile(layer, fullgraph=True, backend="aot_eager")(INDICES.to("meta")).shape == want


def test_compiled_errors() -> None:
    torch._dynamo.reset()
    layer = ht.Embedding(10, 4)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    with pytest.raises(IndexError, match=r"^input\[0, 1\] = 10 is out of range for a table of 10 rows$"):
        compiled(torch.tensor([[0, 10]]))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # torch's own, after a graph break
def test_a_table_that_is_updated_in_backward_stays_out_of_the_graph() -> None:
    torch._dynamo.reset()
    layer, seen = ht.Embedding(10, 4), []
    updates[layer.weight] = lambda indices, grads, **options: seen.append(indices.tolist())
    torch.compile(lambda i: layer(i).sin(), backend="aot_eager")(INDICES).sum().backward()
    assert layer.weight.grad is None
    assert seen == [FLAT.tolist()]
    with pytest.raises(Exception, match=r"torch\.compiler\.disable"):
        torch.compile(lambda i: layer(i).sin(), backend="aot_eager", fullgraph=True)(INDICES)
    del updates[layer.weight]


def test_exported_and_traced() -> None:
    model, args = Model(), (INDICES, FLAT, OFFSETS)
    want = model(*args)
    torch.testing.assert_close(torch.export.export(model, args).module()(*args), want)
    layer = ht.Embedding(10, 4)
    traced = torch.jit.trace(layer, (INDICES,))
    other = torch.tensor([[1], [9]])
    torch.testing.assert_close(traced(other), layer(other))
    graph = torch.fx.symbolic_trace(nn.Sequential(layer))
    torch.testing.assert_close(graph(other), layer(other))


# --- transforms, modes, subclasses: torch's own code, or the operators -----------------------------------------------


def test_transforms_of_torch_func() -> None:
    weight = table().detach()
    for ours, theirs in ((ht.embedding, nn.functional.embedding), (ht.embedding_bag, nn.functional.embedding_bag)):
        found, want = (torch.func.grad(lambda w, f=f: f(INDICES, w).square().sum())(weight) for f in (ours, theirs))
        torch.testing.assert_close(found, want)
        _, tangent = torch.func.jvp(lambda w, f=ours: f(INDICES, w), (weight,), (weight.cos(),))
        torch.testing.assert_close(tangent, theirs(INDICES, weight.cos()))
    found = torch.func.vmap(lambda w: ht.embedding_bag(INDICES, w, mode="sqrtn"))(weight.expand(3, -1, -1))
    torch.testing.assert_close(found[1], ht.embedding_bag(INDICES, weight, mode="sqrtn"))
    torch.testing.assert_close(torch.func.vmap(lambda i: ht.embedding(i, weight))(INDICES), weight[INDICES])
    layer = ht.Embedding(10, 4)
    swapped = torch.func.functional_call(layer, {"weight": torch.ones(10, 4)}, (INDICES,))
    assert swapped.unique().tolist() == [1]


def test_forward_derivatives() -> None:
    weight = table().detach()
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(weight, torch.ones_like(weight))
        out = ht.embedding(torch.tensor([[0, 1], [2, 2]]), dual, max_norm=1.0)
        assert torch.autograd.forward_ad.unpack_dual(out).tangent.unique().tolist() == [1]
        out = ht.embedding_bag(INDICES, dual, mode="sum")
        assert torch.autograd.forward_ad.unpack_dual(out).tangent.unique().tolist() == [3]


def test_modes_see_the_operators() -> None:
    from torch._subclasses import FakeTensorMode
    from torch.utils._python_dispatch import TorchDispatchMode

    seen = []

    class See(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    layer, want = ht.Embedding(10, 4, padding_idx=7), []
    layer(INDICES).square().sum().backward()
    want, layer.weight.grad = layer.weight.grad, None
    with See():
        layer(INDICES).square().sum().backward()
    assert {"hotrow.embedding.default", "hotrow.embedding_backward.default"} <= set(seen)
    torch.testing.assert_close(layer.weight.grad, want)
    with FakeTensorMode() as mode:
        assert ht.EmbeddingBag(10, 4)(mode.from_tensor(INDICES)).shape == (2, 4)
    with torch.device("cpu"):
        assert layer(INDICES).shape == (2, 3, 4)


def test_subclasses_of_tensor_go_to_torch() -> None:
    from torch.testing._internal.two_tensor import TwoTensor

    weight = TwoTensor(table().detach(), table().detach() + 1)
    out = ht.embedding(TwoTensor(INDICES, INDICES), weight)
    torch.testing.assert_close(out.b, weight.b[INDICES])
    assert ht.embedding_bag(TwoTensor(INDICES, INDICES), weight).a.shape == (2, 4)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_tables_of_integers_go_to_torch(dtype: Any) -> None:
    layer = ht.Embedding.from_pretrained(torch.arange(6, dtype=dtype).reshape(2, 3))
    assert layer(torch.tensor([1])).tolist() == [[3, 4, 5]]


def test_tables_whose_rows_are_not_contiguous_go_to_torch() -> None:
    weight = torch.randn(4, 10, requires_grad=True)
    copy = weight.detach().t().contiguous().requires_grad_()
    for function in (ht.embedding, ht.embedding_bag):
        found, want = function(INDICES, weight.t()), function(INDICES, copy)
        torch.testing.assert_close(found, want)
        found.sum().backward()
        want.sum().backward()
    torch.testing.assert_close(weight.grad, copy.grad.t())
    strided = torch.randn(10, 8)[:, :4]
    torch.testing.assert_close(ht.embedding(INDICES, strided), strided[INDICES])


def nested(layout: Any = torch.jagged, dtype: Any = torch.long) -> Any:
    parts = [torch.tensor([1, 2], dtype=dtype), torch.tensor([3, 7, 7], dtype=dtype)]
    return torch.nested.nested_tensor(parts, layout=layout)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_nested_tensors() -> None:
    ours, theirs = ht.Embedding(10, 4), nn.Embedding(10, 4)
    theirs.load_state_dict(ours.state_dict())
    outs = [layer(nested()) for layer in (ours, theirs)]
    assert outs[0].is_nested
    assert torch.equal(outs[0].offsets(), outs[1].offsets())
    torch.testing.assert_close(*(out.values() for out in outs))
    for out in outs:
        out.values().square().sum().backward()
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)
    torch.testing.assert_close(*(layer(nested(torch.strided)).to_padded_tensor(0) for layer in (ours, theirs)))
    indices = nested()
    factors = torch.nested.nested_tensor_from_jagged(torch.rand(5), indices.offsets())
    for mode, weights in (("sum", None), ("mean", None), ("max", None), ("sum", factors)):
        found, want = (
            function(indices, ours.weight, mode=mode, per_sample_weights=weights)
            for function in (ht.embedding_bag, nn.functional.embedding_bag)
        )
        torch.testing.assert_close(found, want)
    with pytest.raises(ValueError, match=r"^per_sample_weights must be nested as input is$"):
        ht.embedding_bag(nested(), ours.weight, per_sample_weights=torch.ones(5))
    with pytest.raises(ValueError, match=r"^a nested input must be of layout jagged"):
        ht.embedding_bag(nested(torch.strided), ours.weight)
    torch._dynamo.reset()
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(nested()).values(), outs[0].values())


def test_checkpoints() -> None:
    from torch.utils.checkpoint import checkpoint

    layer = ht.EmbeddingBag(10, 4, mode="max")
    grads = []
    for call in (layer, lambda i: checkpoint(layer, i, use_reentrant=False)):
        layer.zero_grad()
        call(INDICES).sum().backward()
        grads.append(layer.weight.grad)
    torch.testing.assert_close(*grads)
