"""Keras on JAX: callbacks in the compiled step.

JAX may run callbacks in any order that their arguments allow. So each passes a token on: the anchor, then a zero that
the lookup returns, then one that the step returns, which is the anchor's gradient and so its next value.
"""

from __future__ import annotations

from contextlib import nullcontext, suppress
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.experimental import io_callback
from keras.src.backend.common.stateless_scope import get_stateless_scope  # not exported

from hotrow.keras._table import Table


def look_up(table: Table, anchor: Any, indices: Any, trained: bool) -> Any:
    """Rows of the table; with `trained`, a function of the anchor too, whose gradient is zero."""
    if not trained:
        return _forward(table, False, anchor.value, indices)[0]
    vectors, token = _look_up(table, anchor.value, indices)
    scope = get_stateless_scope()
    if scope is not None and scope.get_current_value(anchor) is not None:  # not where Keras works out shapes
        anchor.assign(token)  # for the next call of the layer in this step; forgotten at its end
    return vectors


at_once = nullcontext  # operations have values everywhere


def wait() -> None:
    """Until the steps that were handed to JAX have been taken."""
    with suppress(jax.errors.JaxRuntimeError):  # of one that failed: fit has raised it, JAX does so again and again
        jax.effects_barrier()


def _forward(table: Table, trained: bool, token: Any, indices: Any) -> Any:
    def rows(token: Any, indices: Any) -> Any:
        return table.look_up(np.asarray(indices), trained), np.zeros_like(token)

    shape = jax.ShapeDtypeStruct((*indices.shape, table.array.shape[1]), table.array.dtype)
    return jax.pure_callback(rows, (shape, _like(token)), token, indices, vmap_method="broadcast_all")


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _look_up(table: Table, token: Any, indices: Any) -> Any:
    return _forward(table, True, token, indices)


def _look_up_forward(table: Table, token: Any, indices: Any) -> Any:
    vectors, token = _forward(table, True, token, indices)
    return (vectors, token), (token, indices)


def _look_up_backward(table: Table, kept: Any, gradients: Any) -> Any:
    def step(_: Any, token: Any, indices: Any, grads: Any) -> Any:
        table.add_gradients(np.asarray(indices), np.asarray(grads))
        return np.zeros_like(token)

    (token, indices), (grads, next_token) = kept, gradients
    return io_callback(step, _like(token), next_token, token, indices, grads), None


def _like(token: Any) -> Any:
    return jax.ShapeDtypeStruct(token.shape, token.dtype)


_look_up.defvjp(_look_up_forward, _look_up_backward)
