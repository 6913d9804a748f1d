"""Keras on TensorFlow: numpy_function, which tf.function runs in the order of the program; XLA has none."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from hotrow.keras._table import Table


def look_up(table: Table, anchor: Any, indices: Any, trained: bool) -> Any:
    """Rows of the table; with `trained`, a function of the anchor too, whose gradient is zero."""

    def rows(indices: Any) -> Any:
        try:
            return table.look_up(indices, trained)
        except IndexError as error:  # TensorFlow takes it for the end of the data, and fit ends without a word
            raise ValueError(str(error)) from None

    def step(indices: Any, grads: Any) -> Any:
        table.add_gradients(indices, grads)
        return np.zeros((), np.float32)

    def forward() -> Any:
        vectors = tf.numpy_function(rows, [indices], table.array.dtype.name)
        return tf.ensure_shape(vectors, [*indices.shape, table.array.shape[1]])

    @tf.custom_gradient  # type: ignore[untyped-decorator]  # TensorFlow has no types
    def differentiable(_: Any) -> Any:
        def backward(grads: Any) -> Any:
            return tf.ensure_shape(tf.numpy_function(step, [indices, grads], tf.float32), ())

        return forward(), backward

    return differentiable(tf.convert_to_tensor(anchor)) if trained else forward()


def at_once() -> Any:
    """Where operations have values, also while a function is traced."""
    return tf.init_scope()


def wait() -> None:
    """A step has been taken when its function returns."""
