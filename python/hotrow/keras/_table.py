"""A table in NumPy memory with its optimizer, and how Keras writes its state to files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from hotrow import _check, ops
from hotrow.keras import _optimizers
from hotrow.ops import Floats, Ints


class Table:
    """What the backends' forward and backward passes call.

    All gradients that arrive between two lookups are one step. If only one is to come, the step is taken as it arrives,
    else with the next lookup: copies of a few gradients wait until then.
    """

    def __init__(self, rows: int, width: int, dtype: Any, optimizer: Mapping[str, Any]) -> None:
        self.array = ops.empty_table(rows, width, dtype)
        self.optimizer = _optimizers.make(optimizer, self.array)
        self.real = _check.real_dtype(self.array.dtype)
        self._to_come = 0  # lookups since the last step that may bring a gradient
        self._waiting: list[tuple[Ints, Floats]] = []

    def look_up(self, indices: Ints, trained: bool) -> Floats:
        """Rows of the table, float[..., D]; `trained`: their gradients may come.

        Raises:
            IndexError: an index outside the table.
        """
        self.finish()
        vectors = ops.gather(self.array, indices)
        self._to_come += trained
        return vectors

    def add_gradients(self, indices: Ints, grads: Floats) -> None:
        """The gradient of what look_up returned for these indices."""
        indices = indices.reshape(-1)
        if self._to_come == 1 and not self._waiting:
            self._to_come = 0
            self.optimizer.step(indices, np.ascontiguousarray(grads, self.real).reshape(indices.size, -1))
        else:
            self._waiting.append((indices.copy(), np.array(grads, self.real, order="C").reshape(indices.size, -1)))

    def finish(self) -> None:
        """Take the step of gradients that still wait."""
        if self._waiting:
            waiting, self._waiting, self._to_come = self._waiting, [], 0
            indices, grads = zip(*waiting, strict=True)
            self.optimizer.step(np.concatenate(indices), np.concatenate(grads))


class TableState(keras.layers.Layer):  # type: ignore[misc]  # keras has no types
    """The part of a layer's file that Keras's own has no place for: steps, learning rate and state of the rows."""

    def __init__(self, table: Table) -> None:
        super().__init__(name="table_state")
        self._table = table
        self.built = True

    def save_own_variables(self, store: Any) -> None:
        optimizer = self._table.optimizer
        store["steps"], store["learning_rate"] = np.array(optimizer.steps), np.array(optimizer.lr)
        for name, array in optimizer.state.items():
            store[name] = np.ascontiguousarray(array)

    def load_own_variables(self, store: Any) -> None:
        """A file of keras.layers.Embedding has no state: what is there stays."""
        if not (names := set(store.keys())):
            return
        optimizer = self._table.optimizer
        found = {"steps": int(np.array(store["steps"])), "lr": float(np.array(store["learning_rate"]))}
        arrays = {name: np.array(store[name]) for name in names - {"steps", "learning_rate"}}
        optimizer.load_state_dict(optimizer.state_dict() | found | {"state": arrays})
