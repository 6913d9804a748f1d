"""An optimizer's state through any sequence of steps, failed steps, round trips and copies, beside a dense float64
model: the reference's step on tables of its own.
"""

from __future__ import annotations

import copy
import json
import pickle
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from cases import Array
from hotrow import optim, reference
from hotrow.optim import Optimizer, StepOptions
from test_optim import OPTIMIZERS, _snapshot

ROWS, WIDTH = 6, 3
REFUSED: list[tuple[type[Exception], Any, Any, dict[str, Any]]] = [  # error, indices, grads, options of the step
    (IndexError, [0, ROWS], np.ones((2, WIDTH)), {}),
    (IndexError, [-1], np.ones((1, WIDTH)), {}),
    (ValueError, [0, 1], np.ones((1, WIDTH)), {}),
    (ValueError, [0, 1], np.ones((1, WIDTH)), {"offsets": [0, 3]}),
    (TypeError, [0], np.ones((1, WIDTH), np.float32), {}),
    (TypeError, [0.5], np.ones((1, WIDTH)), {}),
]


def hyperparameters(optimizer: Optimizer) -> dict[str, Any]:
    """What the reference's step takes, as the docstrings have it."""
    match optimizer:
        case optim.SGD():
            return {"lr": optimizer.lr, "momentum": optimizer.momentum, "nesterov": optimizer.nesterov}
        case optim.Adagrad():
            return {"lr": optimizer.lr / (1 + optimizer.steps * optimizer.lr_decay), "eps": optimizer.eps}
        case optim.RowwiseAdagrad():
            return {"lr": optimizer.lr, "eps": optimizer.eps}
        case optim.RMSprop():
            return {"lr": optimizer.lr, "alpha": optimizer.alpha, "eps": optimizer.eps}
        case optim.Adam():
            beta1, beta2 = optimizer.betas
            step = {"step": optimizer.steps + 1, "epsilon_hat": optimizer.epsilon_hat}
            return {"lr": optimizer.lr, "beta1": beta1, "beta2": beta2, "eps": optimizer.eps} | step
    raise NotImplementedError(optimizer)


class Machine(RuleBasedStateMachine):
    """The optimizer and its model. Gradients and weights are multiples of 1/8: their sums are exact."""

    name: str

    def __init__(self) -> None:
        super().__init__()
        table = np.random.default_rng(0).standard_normal((ROWS, WIDTH))
        self.optimizer = OPTIMIZERS[self.name](table)
        self.table, self.state = table.copy(), {name: a.copy() for name, a in self.optimizer.state.items()}

    def _eighths(self, data: st.DataObject, *shape: int) -> Array:
        numbers = data.draw(st.lists(st.integers(-24, 24), min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
        return np.array(numbers, np.float64).reshape(shape) / 8

    @rule(data=st.data(), indices=st.lists(st.integers(0, ROWS - 1), max_size=9), padding=st.sampled_from([None, 0, 3]))
    def step(self, data: st.DataObject, indices: list[int], padding: int | None) -> None:
        self._both(indices, self._eighths(data, len(indices), WIDTH), padding_idx=padding)

    @rule(
        data=st.data(),
        indices=st.lists(st.integers(0, ROWS - 1), max_size=9),
        mode=st.sampled_from(["sum", "mean", "sqrtn"]),
        weighted=st.booleans(),
    )
    def step_on_bags(self, data: st.DataObject, indices: list[int], mode: str, weighted: bool) -> None:
        cuts = data.draw(st.lists(st.integers(0, len(indices)), max_size=4))
        offsets = np.array([0, *sorted(cuts), len(indices)])
        weights = abs(self._eighths(data, len(indices))) + 0.125 if weighted else None
        grads = self._eighths(data, offsets.size - 1, WIDTH)
        self._both(indices, grads, offsets=offsets, weights=weights, mode=mode)

    def _both(self, indices: list[int], grads: Array, **how: Any) -> None:
        numbers = np.array(indices, np.int64)
        values = hyperparameters(self.optimizer) | how | {"options": self.optimizer.options}
        self.optimizer.step(numbers, grads, **how)
        states = {name: a for name, a in self.state.items() if name in ("momentum_buffer", "row_steps")}
        first = [a for name, a in self.state.items() if name not in states]
        step = getattr(reference, self.optimizer._op)
        step(self.table, *first, numbers, grads, **values, **states)

    @rule(refused=st.sampled_from(REFUSED))
    def failed_step(self, refused: Any) -> None:
        error, indices, grads, how = refused
        before = _snapshot(self.optimizer)
        with pytest.raises(error):
            self.optimizer.step(indices, grads, **how)
        assert _snapshot(self.optimizer) == before

    @rule()
    def not_a_number(self) -> None:
        options = self.optimizer.options
        self.optimizer.options = StepOptions(**options.asdict() | {"check_finite": True})
        before = _snapshot(self.optimizer)
        with pytest.raises(ValueError, match="is not finite"):
            self.optimizer.step([0], np.full((1, WIDTH), np.nan))
        assert _snapshot(self.optimizer) == before
        self.optimizer.options = options

    @rule(lr=st.sampled_from([0.0, 0.01, 0.2]))
    def another_rate(self, lr: float) -> None:
        self.optimizer.lr = lr

    @rule()
    def through_a_file(self) -> None:
        state = self.optimizer.state_dict()
        arrays = {name: a.tolist() for name, a in state.pop("state").items()}
        kept = json.loads(json.dumps(state | {"state": arrays}))
        kept["state"] = {name: np.array(a, self.state[name].dtype) for name, a in kept["state"].items()}
        other = OPTIMIZERS[self.name](self.optimizer.table.copy(), lr=7.0)
        other.load_state_dict(kept)
        assert _snapshot(other) == _snapshot(self.optimizer)
        self.optimizer = other

    @rule(spoil=st.sampled_from(["steps", "lr", "options", "state"]))
    def a_wrong_state(self, spoil: str) -> None:
        before = _snapshot(self.optimizer)
        with pytest.raises((TypeError, ValueError)):
            self.optimizer.load_state_dict(self.optimizer.state_dict() | {spoil: "wrong"})
        assert _snapshot(self.optimizer) == before

    @rule(pickled=st.booleans(), keep=st.booleans())
    def copied(self, pickled: bool, keep: bool) -> None:
        """A copy goes its own way, and as the original would have."""
        other = pickle.loads(pickle.dumps(self.optimizer)) if pickled else copy.deepcopy(self.optimizer)
        before = _snapshot(self.optimizer)
        assert _snapshot(other) == before
        if keep:
            self.optimizer = other
            return
        other.step([1, 1], np.ones((2, WIDTH)))
        assert _snapshot(self.optimizer) == before

    @invariant()
    def equals_the_model(self) -> None:
        np.testing.assert_allclose(self.optimizer.table, self.table, rtol=1e-9, atol=1e-12)
        assert self.optimizer.state.keys() == self.state.keys()
        for name, a in self.state.items():
            np.testing.assert_allclose(self.optimizer.state[name], a, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_state_is_that_of_a_dense_model(backend: ModuleType, name: str) -> None:
    chosen = settings(
        derandomize=True, deadline=None, max_examples=12, stateful_step_count=15, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    run_state_machine_as_test(type(name, (Machine,), {"name": name}), settings=chosen)
