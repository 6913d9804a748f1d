"""Sparse optimizers: one step costs time and scratch memory in the lookups, never in the rows of the table."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from hotrow import _check
from hotrow.ops import Floats, sgd_step


class SGD:
    """Stochastic gradient descent on the rows that were looked up.

    table[r, :] -= lr * sum of grads[i, :] over indices[i] == r

    Args:
        table (float32 or float64[R, D]): updated in place by every step; never copied.
        lr (float): learning rate, at least 0; an attribute that may be changed between steps.

    Raises:
        TypeError, ValueError: lr is not a finite number of at least 0.

    Source:
        torch.optim.SGD on a sparse gradient.
    """

    def __init__(self, table: Floats, lr: float) -> None:
        self.table = table
        self.lr = _check.real("lr", lr, 0)

    def step(self, indices: ArrayLike, grads: Floats) -> None:
        """Update the rows that were looked up. A failed step changes nothing.

        Args:
            indices (int32 or int64[N]): row numbers in [0, R).
            grads (float[N, D]): gradient of each lookup, of the table's dtype; repeated rows add up.

        Raises:
            TypeError, ValueError, IndexError: as hotrow.scatter_add.
        """
        sgd_step(self.table, indices, grads, lr=self.lr)

    def state_dict(self) -> dict[str, Any]:
        """What load_state_dict takes: the hyperparameters (SGD keeps no state of its own)."""
        return {"lr": self.lr}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what state_dict returned.

        Raises:
            ValueError: missing or unknown entries.
        """
        if state.keys() != {"lr"}:
            raise ValueError(f"state of SGD must hold 'lr', not {', '.join(map(repr, state)) or 'nothing'}")
        self.lr = _check.real("lr", state["lr"], 0)
