"""Runs what torch ships of its own tests of Embedding and EmbeddingBag on hotrow, in a process of its own.

torch.testing holds their sample and error inputs (ModuleInfo, OpInfo) and the tests of layers (NewModuleTest). Prints,
as a line of JSON, how many of each ran and what failed.
"""

from __future__ import annotations

import json
import pickle
import sys
import unittest
import warnings
from collections import Counter
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn

import hotrow.torch as ht

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch.testing._internal import common_nn
    from torch.testing._internal.common_methods_invocations import op_db
    from torch.testing._internal.common_modules import ModuleErrorEnum, module_db

OURS: dict[Any, Any] = {nn.Embedding: ht.Embedding, nn.EmbeddingBag: ht.EmbeddingBag}
FUNCTIONS = {"nn.functional.embedding": ht.embedding, "nn.functional.embedding_bag": ht.embedding_bag}
DTYPES = torch.float32, torch.float64, torch.float16, torch.bfloat16
TOLERANCE = {torch.float16: {"rtol": 1e-2, "atol": 5e-2}, torch.bfloat16: {"rtol": 5e-2, "atol": 5e-2}}

ran: Counter[str] = Counter()
failed: list[str] = []


def check(kind: str, name: str, test: Any) -> None:
    ran[kind] += 1
    try:
        test()
    except Exception as error:
        failed.append(f"{kind} {name}: {type(error).__name__}: {error}"[:400])


def dense(a: Any) -> Any:
    return a.to_dense() if a is not None and a.is_sparse else a


def same(found: Any, want: Any) -> None:
    torch.testing.assert_close(dense(found), dense(want), **TOLERANCE.get(want.dtype, {}))


def modules() -> None:
    for info in (i for i in module_db if i.module_cls in OURS):
        for dtype, training in ((d, t) for d in DTYPES for t in (True, False)):
            for given in info.module_inputs_func(info, "cpu", dtype, True, training):
                made, forward = given.constructor_input, given.forward_input
                theirs = info.module_cls(*made.args, **made.kwargs, dtype=dtype).train(training)
                ours = OURS[info.module_cls](*made.args, **made.kwargs, dtype=dtype).train(training)
                ours.load_state_dict(theirs.state_dict())

                def test(ours: Any = ours, theirs: Any = theirs, forward: Any = forward) -> None:
                    outs = [layer(*forward.args, **forward.kwargs) for layer in (ours, theirs)]
                    same(*outs)
                    for out in outs:
                        out.sum().backward()
                    wide = deepcopy(theirs).float()  # torch rounds to 16 bits at each addition: 256 + 1 = 256
                    wide.zero_grad()
                    wide(*forward.args, **forward.kwargs).sum().backward()
                    same(ours.weight.grad, wide.weight.grad.to(ours.weight.dtype))
                    for copied in (deepcopy(ours), pickle.loads(pickle.dumps(ours))):
                        same(copied(*forward.args, **forward.kwargs), outs[1])
                    assert repr(ours) == repr(theirs)

                check("module inputs", f"{info.name} {dtype} {given.desc}", test)
        if info.module_error_inputs_func is None:
            continue
        for bad in info.module_error_inputs_func(info, "cpu", torch.float32, True, True):
            made, forward = bad.module_error_input.constructor_input, bad.module_error_input.forward_input

            def fails(bad: Any = bad, made: Any = made, forward: Any = forward, info: Any = info) -> None:
                if bad.error_on == ModuleErrorEnum.CONSTRUCTION_ERROR:
                    with pytest.raises(bad.error_type, match=bad.error_regex):
                        OURS[info.module_cls](*made.args, **made.kwargs)
                else:  # of torch's type; the text is hotrow's
                    with pytest.raises(bad.error_type):
                        OURS[info.module_cls](*made.args, **made.kwargs)(*forward.args, **forward.kwargs)

            check("module errors", f"{info.name} {bad.error_regex}", fails)


def gradients(function: Any, sample: Any, wide: bool) -> list[Any]:
    """The result, and the gradients of the weight and of per_sample_weights; with `wide`, in 32 bits at least."""
    kwargs, narrow = dict(sample.kwargs), wide and sample.input.dtype.itemsize < 4
    weight = sample.input.detach().clone()
    weight = (weight.float() if narrow else weight).requires_grad_()
    shares = kwargs.get("per_sample_weights")
    if shares is not None:
        shares = shares.detach().clone()
        kwargs["per_sample_weights"] = shares = (shares.float() if narrow else shares).requires_grad_()
    out = function(*sample.args, weight, **kwargs)
    out.square().sum().backward()
    return [out.detach(), weight.grad, *([] if shares is None else [shares.grad])]


def operators() -> None:
    for op in (o for o in op_db if o.name in FUNCTIONS):
        ours, theirs = FUNCTIONS[op.name], getattr(nn.functional, op.name.rpartition(".")[2])
        for dtype in DTYPES:
            for sample in op.sample_inputs("cpu", dtype, requires_grad=False):

                def test(ours: Any = ours, theirs: Any = theirs, sample: Any = sample) -> None:
                    wrong = ours is ht.embedding_bag and sample.kwargs.get("scale_grad_by_freq")
                    refused = ours is ht.embedding and {"sparse", "scale_grad_by_freq"} <= sample.kwargs.keys()
                    if wrong or refused:  # torch counts others' lookups, or refuses: forward alone
                        found, want = (f(*sample.args, sample.input.clone(), **sample.kwargs) for f in (ours, theirs))
                        same(found, want)
                        return
                    for given in (sample, sample.noncontiguous()):
                        pairs = zip(gradients(ours, given, False), gradients(theirs, given, True), strict=True)
                        for found, want in pairs:
                            same(found, want.to(found.dtype))

                check("samples", f"{op.name} {dtype} {sample.summary()}", test)
        for sample in op.sample_inputs("cpu", torch.float64, requires_grad=True):

            def derive(ours: Any = ours, sample: Any = sample, op: Any = op) -> None:
                function = lambda w: ours(*sample.args, w, **sample.kwargs)  # noqa: E731
                if "padding_idx" not in sample.kwargs:  # else the numerical gradient is another
                    assert torch.autograd.gradcheck(function, sample.input)
                    assert torch.autograd.gradgradcheck(function, sample.input)
                if op.supports_forward_ad and sample.input.dim() == 2:
                    assert torch.autograd.gradcheck(
                        function, sample.input, check_forward_ad=True, check_backward_ad=False
                    )

            check("gradcheck", f"{op.name} {sample.summary()}", derive)
        for bad in op.error_inputs("cpu") if op.error_inputs_func else ():

            def fails(ours: Any = ours, bad: Any = bad) -> None:
                with pytest.raises(bad.error_type):
                    ours(*bad.sample_input.args, bad.sample_input.input, **bad.sample_input.kwargs)

            check("errors", op.name, fails)


class Case(common_nn.NNTestCase):  # type: ignore[misc]
    """What NewModuleTest asks of a test case."""

    def _forward(self, module: Any, given: Any) -> Any:
        return module(*given) if isinstance(given, tuple) else module(given)

    def _backward(self, module: Any, given: Any, output: Any, grad: Any, create_graph: bool = False) -> Any:
        output.backward(grad, retain_graph=True, create_graph=create_graph)
        return tuple(a.grad for a in given) if isinstance(given, tuple) else given.grad

    def _get_parameters(self, module: Any) -> Any:
        parameters = list(module.parameters())
        return parameters, [p.grad for p in parameters]

    def _zero_grad_parameters(self, module: Any) -> None:
        for p in module.parameters():
            if p.grad is not None:
                with torch.no_grad():
                    p.grad.zero_()
                p.grad.detach_()


def layers() -> None:
    """NewModuleTest: forward, backward, gradients by differences, other dtypes, copies and pickles."""
    for given in common_nn.get_new_module_tests():
        name = given.get("fullname") or given.get("module_name") or ""
        if "Embedding" not in name or "Loss" in name:
            continue
        for theirs, ours in OURS.items():
            setattr(nn, theirs.__name__, ours)

        options = {k: v for k, v in given.items() if not k.startswith("cpp_")}
        if "constructor" not in options:
            options["constructor"] = getattr(nn, options.pop("module_name"))
        test, case, result = common_nn.NewModuleTest(**options), Case(), unittest.TestResult()
        case.runTest = lambda test=test, case=case: test(case)  # type: ignore[attr-defined]
        case.run(result)
        for theirs in OURS:
            setattr(nn, theirs.__name__, theirs)
        ran["layers"] += 1
        failed.extend(f"layers {name}: {text[-400:]}" for _, text in [*result.failures, *result.errors])


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.manual_seed(1)
    modules()
    operators()
    layers()
    print(json.dumps({"ran": ran, "failed": failed}))
    sys.stdout.flush()
