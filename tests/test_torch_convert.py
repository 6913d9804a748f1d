"""hotrow.torch.convert and revert; layers from word vectors; worker processes."""

from __future__ import annotations

import socket
from collections import OrderedDict
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import pytest

from conftest import run_python
from hotrow import WordVectors

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn.utils import parametrize  # noqa: E402

import hotrow.torch as ht  # noqa: E402

INDICES = torch.tensor([[7, 1, 3], [7, 2, 0]])


class Twice(nn.Module):
    def forward(self, weight: Any) -> Any:
        return 2 * weight


class Special(nn.Embedding):
    pass


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.words = nn.Embedding(10, 4, padding_idx=0)
        self.more = nn.Sequential(OrderedDict(bags=nn.EmbeddingBag(10, 4, mode="max"), again=self.words))
        self.out = nn.Linear(4, 10, bias=False)
        self.out.weight = self.words.weight

    def forward(self, indices: Any) -> Any:
        return self.out(self.words(indices).mean(1) + self.more.bags(indices)).logsumexp(1).sum()


def test_converted_models_train_as_before() -> None:
    model, same = Tied(), Tied()
    parameters, optimizer = list(model.parameters()), torch.optim.SGD(model.parameters(), lr=0.1)
    hooked = []
    model.words.register_forward_hook(lambda *_: hooked.append(1))
    assert ht.convert(model) is model
    assert type(model.words) is ht.Embedding
    assert type(model.more.bags) is ht.EmbeddingBag
    assert model.more.again is model.words
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    other = torch.optim.SGD(same.parameters(), lr=0.1)
    for _ in range(5):
        for m, step in ((model, optimizer), (same, other)):
            step.zero_grad()
            m(INDICES).backward()
            step.step()
    for a, b in zip(model.parameters(), same.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    assert len(hooked) == 5
    copied = deepcopy(model)
    ht.convert(model)  # again: nothing changes
    assert type(model.words) is ht.Embedding
    assert ht.revert(model) is model
    assert type(model.words) is nn.Embedding
    assert type(model.more.bags) is nn.EmbeddingBag
    assert "fallback" not in model.words.__dict__
    torch.testing.assert_close(model(INDICES), copied(INDICES))
    assert type(copied.words) is ht.Embedding


def test_a_layer_by_itself_and_its_fallback() -> None:
    layer = nn.Embedding(3, 2)
    assert type(ht.convert(layer, fallback=True)) is ht.Embedding
    assert layer.fallback
    assert type(ht.revert(layer)) is nn.Embedding


def test_parametrized_layers() -> None:
    for remove_first in (False, True):
        layer = nn.Embedding(10, 4)
        parametrize.register_parametrization(layer, "weight", Twice())
        want = layer(INDICES)
        ht.convert(layer)
        assert isinstance(layer, ht.Embedding)
        assert parametrize.is_parametrized(layer, "weight")
        out = layer(INDICES)
        assert type(out.grad_fn).__name__ == "_EmbeddingBackward"
        torch.testing.assert_close(out, want)
        out.sum().backward()
        assert layer.parametrizations.weight.original.grad.sum() == 2 * out.numel()
        if remove_first:
            parametrize.remove_parametrizations(layer, "weight")
            assert type(layer) is ht.Embedding
        ht.revert(layer)
        assert isinstance(layer, nn.Embedding)
        assert not isinstance(layer, ht.Embedding)
        torch.testing.assert_close(layer(INDICES), want)


def test_subclasses_are_named_and_stay() -> None:
    model = nn.Sequential(Special(3, 2), nn.Embedding(3, 2))
    with pytest.warns(UserWarning, match=r"^left as they are, being of subclasses: 0 \(Special\)$"):
        ht.convert(model)
    assert [type(m) for m in model] == [Special, ht.Embedding]
    with pytest.warns(UserWarning, match=r"^left as they are, being of subclasses: the model \(Special\)$"):
        ht.convert(model[0])


def test_errors_of_convert() -> None:
    for function in (ht.convert, ht.revert):
        with pytest.raises(TypeError, match=r"^model must be a torch.nn.Module, not list$"):
            function([])
    model = nn.Sequential(ht.Embedding(3, 2), ht.EmbeddingBag(3, 2, mode="sqrtn"))
    with pytest.raises(ValueError, match=r"^1 has mode 'sqrtn', which torch.nn.EmbeddingBag has not$"):
        ht.revert(model)
    assert type(model[0]) is ht.Embedding


# --- word vectors -----------------------------------------------------------------------------------------------------


def vectors(dtype: Any = np.float32) -> WordVectors:
    return WordVectors(["the", "hot", "row"], np.array([[1, 2], [3, 4], [5, 9]], dtype))


@pytest.mark.parametrize("cls", [ht.Embedding, ht.EmbeddingBag])
def test_from_word_vectors(cls: Any) -> None:
    given = vectors()
    layer = cls.from_word_vectors(given)
    assert type(layer) is cls
    assert not layer.weight.requires_grad
    assert layer.weight.tolist() == given.vectors.tolist()
    layer = cls.from_word_vectors(given, ["row", "cold", "the"], freeze=False, unknown="mean", sparse=True)
    assert layer.weight.requires_grad
    assert layer.sparse
    assert layer.weight.tolist() == [[5, 9], [3, 5], [1, 2]]
    with torch.no_grad():
        layer.weight.zero_()
    assert given["row"].tolist() == [5, 9]  # a copy
    layer = cls.from_word_vectors(given, {"row": 3, "the": 1}, padding_idx=0, unknown="zeros", fallback=True)
    assert layer.weight.tolist() == [[0, 0], [1, 2], [0, 0], [5, 9]]
    assert (layer.padding_idx, layer.fallback) == (0, True)
    assert cls.from_word_vectors(given, padding_idx=-1).weight[2].tolist() == [0, 0]
    assert cls.from_word_vectors(given, []).weight.shape == (0, 2)


def test_unknown_words_are_drawn() -> None:
    words = ["the", *map(str, range(2000))]
    first, again, other = (ht.Embedding.from_word_vectors(vectors(), words, seed=s).weight for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first[1], other[1])
    drawn = first[1:].double()
    torch.testing.assert_close(drawn.mean(0), torch.tensor([3.0, 5.0]).double(), rtol=0, atol=0.3)
    torch.testing.assert_close(drawn.std(0), torch.tensor([1.63, 2.94]).double(), rtol=0.1, atol=0)
    assert first[0].tolist() == [1, 2]


def test_word_vectors_keep_their_dtype() -> None:
    import ml_dtypes

    for dtype, want in ((np.float16, torch.float16), (ml_dtypes.bfloat16, torch.bfloat16), (np.float64, torch.double)):
        layer = ht.Embedding.from_word_vectors(vectors(dtype), ["row", "new"])
        assert layer.weight.dtype == want
        assert layer.weight[0].tolist() == [5, 9]


BAD: list[tuple[type[Exception], str, Callable[[], Any]]] = [
    (TypeError, "vectors must be hotrow.WordVectors, not dict", lambda: ht.Embedding.from_word_vectors({})),
    (TypeError, "vocabulary must be a sequence or mapping of words, not str",
        lambda: ht.Embedding.from_word_vectors(vectors(), "the")),
    (TypeError, "words must be strings, not int: 3", lambda: ht.Embedding.from_word_vectors(vectors(), [3])),
    (TypeError, r"vocabulary\['the'\] must be an integer, not float",
        lambda: ht.Embedding.from_word_vectors(vectors(), {"the": 1.0})),
    (ValueError, r"vocabulary\['the'\] = -1 must be at least 0",
        lambda: ht.Embedding.from_word_vectors(vectors(), {"the": -1})),
    (ValueError, "row 1 is given to two words, 'the' and 'hot'",
        lambda: ht.Embedding.from_word_vectors(vectors(), {"the": 1, "hot": 1})),
    (ValueError, "unknown must be 'normal', 'mean' or 'zeros', not 'ones'",
        lambda: ht.Embedding.from_word_vectors(vectors(), unknown="ones")),
    (IndexError, "padding_idx = 3 is out of range for a table of 3 rows",
        lambda: ht.Embedding.from_word_vectors(vectors(), padding_idx=3)),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "text", "call"), BAD, ids=lambda v: v if isinstance(v, str) else "")
def test_errors_of_word_vectors(kind: type[Exception], text: str, call: Callable[[], Any]) -> None:
    with pytest.raises(kind, match=f"^{text}$"):
        call()


# --- processes --------------------------------------------------------------------------------------------------------

WORKERS = """
import sys, torch
import hotrow.torch as ht

class Rows(torch.utils.data.Dataset):
    def __init__(self):
        self.layer = ht.EmbeddingBag(1000, 64, mode="mean")
    def __len__(self):
        return 4
    def __getitem__(self, i):
        return self.layer(torch.arange(4000).reshape(40, 100) % 1000 + 0 * i).detach()

if __name__ == "__main__":
    rows = Rows()
    rows.layer(torch.arange(4000).reshape(40, 100) % 1000).sum().backward()  # threads run before the fork
    for method in ("fork", "spawn"):
        loader = torch.utils.data.DataLoader(rows, batch_size=2, num_workers=2, multiprocessing_context=method)
        for batch in loader:
            assert torch.equal(batch[0], rows[0]), method
        print(method)
"""

PARALLEL = """
import sys, torch, torch.distributed as dist, torch.multiprocessing as mp
from torch import nn
import hotrow.torch as ht

BATCHES = torch.tensor([[[7, 1, 3], [7, 2, 0]], [[5, 5, 3], [1, 9, 0]]])

def model(cls, sparse):
    torch.manual_seed(1)
    return nn.Sequential(cls(10, 4, sparse=sparse), nn.Linear(4, 1))

def run(rank, port):
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    for sparse in (False, True):
        layers = nn.parallel.DistributedDataParallel(model(ht.Embedding, sparse))
        optimizer = torch.optim.SGD(layers.parameters(), lr=0.1)
        alone = model(nn.Embedding, False)
        other = torch.optim.SGD(alone.parameters(), lr=0.1)
        for _ in range(3):
            for m, o, batch in ((layers, optimizer, BATCHES[rank]), (alone, other, BATCHES.flatten(0, 1))):
                o.zero_grad()
                m(batch).square().mean().backward()
                o.step()
        for a, b in zip(layers.parameters(), alone.parameters()):
            torch.testing.assert_close(a, b)
    layers = nn.parallel.DistributedDataParallel(model(ht.Embedding, True))
    optimizer = ht.optim.SGD(layers.parameters(), lr=0.1, in_backward=True)
    try:
        layers(BATCHES[rank])
        raise AssertionError("DistributedDataParallel trained a table that is updated in backward")
    except RuntimeError as error:
        assert "DistributedDataParallel could average" in str(error), error
    dist.destroy_process_group()
    if rank == 0:
        print("done")

if __name__ == "__main__":
    mp.start_processes(run, (int(sys.argv[1]),), nprocs=2, start_method="spawn")
"""


def test_workers_of_a_data_loader(tmp_path: Any) -> None:
    (tmp_path / "workers.py").write_text(WORKERS)
    done = run_python(f"import runpy; runpy.run_path({str(tmp_path / 'workers.py')!r}, run_name='__main__')")
    assert done.stdout.split() == ["fork", "spawn"]


def test_distributed_data_parallel(tmp_path: Any) -> None:
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        pytest.skip("no gloo")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "parallel.py").write_text(PARALLEL)
    path = str(tmp_path / "parallel.py")
    script = f"import sys, runpy; sys.argv[0] = {path!r}; runpy.run_path({path!r}, run_name='__main__')"
    assert run_python(script, str(port)).stdout.split() == ["done"]
