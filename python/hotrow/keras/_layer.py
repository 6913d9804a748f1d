"""The layer, and the callback that hands it a learning rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from types import MappingProxyType
from typing import Any

import keras
import ml_dtypes  # Keras depends on it
import numpy as np
from keras import ops
from keras.src.backend.common.stateless_scope import in_stateless_scope  # not exported

from hotrow import _check
from hotrow.keras import _optimizers
from hotrow.keras._table import Table, TableState
from hotrow.ops import Floats
from hotrow.optim import Optimizer
from hotrow.vectors import WordVectors

_backend = import_module(f"hotrow.keras._{keras.backend.backend()}")


@keras.saving.register_keras_serializable("hotrow")
class Embedding(keras.layers.Embedding):  # type: ignore[misc]  # keras has no types
    """keras.layers.Embedding, whose table hotrow may hold and train.

        output[..., :] = table[ids[...], :]

    Args:
        input_dim, output_dim, ...: every argument of keras.layers.Embedding, with its meaning.
        optimizer: what trains the table in the backward pass; default: none, the table is a weight as Keras's. One of

            - "sgd", "adagrad", "rmsprop", "adam", "adamw", a keras.optimizers object of these, or its config: the
              optimizer of hotrow.optim with its hyperparameters. RMSprop's epsilon stands outside the square root as
              its square root. Its clipping and weight decay are the table's, the latter in rows looked up alone;
            - "rowwise_adagrad";
            - table -> optimizer: a class of hotrow.optim, or partial(hotrow.optim.Adam, lr=0.01);
            - {"name": "Adam", "lr": 0.01}: a class of hotrow.optim and its arguments. This is what get_config has.

    Raises:
        TypeError, ValueError: as keras.layers.Embedding; no such optimizer; `optimizer` together with a regularizer or
            constraint (which see the whole table: use weight_decay and max_norm of hotrow.optim.StepOptions), with LoRA
            (which freezes the table), a quantized dtype, or mixed_float16 (whose loss is scaled).
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        embeddings_initializer: Any = "uniform",
        embeddings_regularizer: Any = None,
        embeddings_constraint: Any = None,
        mask_zero: bool = False,
        weights: Any = None,
        lora_rank: int | None = None,
        lora_alpha: float | None = None,
        quantization_config: Any = None,
        *,
        optimizer: Any = None,
        **kwargs: Any,
    ) -> None:
        newer = {"lora_rank": lora_rank, "lora_alpha": lora_alpha, "quantization_config": quantization_config}
        kwargs |= {name: value for name, value in newer.items() if value is not None}  # the first Keras 3 has none
        super().__init__(
            input_dim, output_dim, embeddings_initializer, embeddings_regularizer, embeddings_constraint, mask_zero,
            **kwargs,
        )  # fmt: skip
        self._table: Table | None = None
        # Keras would put a dict of its own in the place of one.
        self._optimizer_config = None if optimizer is None else MappingProxyType(_optimizers.normalized(optimizer))
        if optimizer is not None:
            self._check_held()
            self.supports_jit = keras.backend.backend() == "jax"
        if weights is not None:
            self.build()
            self.set_weights(weights if isinstance(weights, list) and len(weights) == 1 else [weights])

    def _check_held(self) -> None:
        hint = "of hotrow.optim.StepOptions does that for the rows looked up"
        if self.embeddings_regularizer is not None:
            raise ValueError(f"optimizer and embeddings_regularizer exclude each other: weight_decay {hint}")
        if self.embeddings_constraint is not None:
            raise ValueError(f"optimizer and embeddings_constraint exclude each other: max_norm {hint}")
        if self.lora_rank:
            raise ValueError("optimizer and lora_rank exclude each other: LoRA freezes the table")
        if self.quantization_mode is not None:
            raise ValueError(f"optimizer and dtype {self.dtype_policy.name} exclude each other")
        if "mixed_float16" in (self.dtype_policy.name, keras.config.dtype_policy().name):
            raise ValueError("optimizer and mixed_float16 exclude each other: it scales the loss; use mixed_bfloat16")

    def build(self, input_shape: Any = None) -> None:
        if self._optimizer_config is None:
            super().build(input_shape)
        elif not self.built:  # type: ignore[has-type]
            self._table = Table(self.input_dim, self.output_dim, self._dtype(), self._optimizer_config)
            self.table_state = TableState(self._table)
            # Keras calls an initializer when a weight can be made, however the layer is built. The optimizer of the
            # model does nothing with this weight but to put its gradient, zero, in its place.
            self._anchor = self.add_weight(
                name="anchor", shape=(), dtype="float32", initializer=self._first_values, autocast=False
            )
            self._anchor.overwrite_with_gradient = True
            self.built = True

    def _dtype(self) -> np.dtype[Any]:
        dtype: np.dtype[Any] = np.dtype(
            ml_dtypes.bfloat16 if self.variable_dtype == "bfloat16" else self.variable_dtype
        )
        return dtype

    def _first_values(self, shape: Any, dtype: Any) -> Any:
        if not in_stateless_scope():  # else Keras only works out shapes
            with _backend.at_once():
                values = self.embeddings_initializer((self.input_dim, self.output_dim), dtype=self.variable_dtype)
                self._held.array[:] = ops.convert_to_numpy(values)
        return ops.zeros(shape, dtype)

    @property
    def _held(self) -> Table:
        """The table in hotrow, with every step taken.

        Raises:
            ValueError: there is none.
        """
        if self._table is None:
            raise ValueError(f"layer {self.name!r} has no table in hotrow: it has no optimizer=, or is not built yet")
        _backend.wait()
        self._table.finish()
        return self._table

    @property
    def table(self) -> Floats:
        """The table of a layer with `optimizer`, float[input_dim, output_dim], in hotrow's own memory.

        Raises:
            ValueError: a layer without `optimizer`, or not built.
        """
        return self._held.array

    @property
    def optimizer(self) -> Optimizer | None:
        """The table's optimizer, of hotrow.optim; None without `optimizer` or before the layer is built."""
        return None if self._table is None else self._held.optimizer

    @property
    def learning_rate(self) -> float:
        """Of the table's optimizer; may be set at any time, and counts from the next batch.

        Raises:
            ValueError: as `table`.
        """
        return float(self._held.optimizer.lr)

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        self._held.optimizer.lr = rate

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        if self._table is None:
            return super().call(inputs)
        if keras.backend.standardize_dtype(inputs.dtype) not in ("int32", "int64"):
            inputs = ops.cast(inputs, "int32")
        trained = self._anchor.trainable and training is not False
        vectors = _backend.look_up(self._table, self._anchor, inputs, trained)
        return ops.cast(vectors, self.compute_dtype)

    @property
    def embeddings(self) -> Any:
        """The table as the backend has weights; with `optimizer`, a copy."""
        if self._table is None:
            return super().embeddings
        return ops.convert_to_tensor(self.table)

    def count_params(self) -> int:
        """Numbers in the table."""
        return int(super().count_params()) if self._table is None else self.input_dim * self.output_dim

    def get_weights(self) -> list[Floats]:
        """Keras's get_weights; with `optimizer`, a list of a copy of the table."""
        return [self.table.copy()] if self._table is not None else list(super().get_weights())

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Keras's set_weights; with `optimizer`, of a list of the table.

        Raises:
            ValueError: not one array of this shape.
        """
        if self._table is None:
            super().set_weights(weights)
            return
        arrays = [np.asarray(w) for w in weights]
        shape = (self.input_dim, self.output_dim)
        if len(arrays) != 1 or arrays[0].shape != shape:
            found = ", ".join(str(a.shape) for a in arrays)
            raise ValueError(
                f"weights of layer {self.name!r} must be one array of shape {shape}, not {found or 'none'}"
            )
        self.table[:] = arrays[0]

    def save_own_variables(self, store: Any) -> None:
        if self._table is None:
            super().save_own_variables(store)
        else:
            store["0"] = np.ascontiguousarray(self.table)

    def load_own_variables(self, store: Any) -> None:
        if self._table is None:
            super().load_own_variables(store)
        elif (names := list(store.keys())) != ["0"]:
            raise ValueError(f"layer {self.name!r} with optimizer= has one variable, the file has {len(names)}")
        else:
            self.set_weights([store["0"]])

    def get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = super().get_config()
        if self._table is not None:
            return config | {"optimizer": _optimizers.config(self._held.optimizer)}
        return config if self._optimizer_config is None else config | {"optimizer": dict(self._optimizer_config)}

    def enable_lora(self, *args: Any, **kwargs: Any) -> None:
        """Keras's enable_lora. With `optimizer` the table becomes a weight first, and the optimizer goes."""
        self._to_weight()
        super().enable_lora(*args, **kwargs)

    def quantize(self, mode: Any = None, type_check: bool = True, **kwargs: Any) -> None:
        """Keras's quantize. With `optimizer` the table becomes a weight first, and the optimizer goes."""
        if type_check and type(self) is not Embedding:
            raise self._not_implemented_error(self.quantize)
        self._to_weight()
        super().quantize(mode, type_check=False, **kwargs)

    def _to_weight(self) -> None:
        """Make this a layer as without `optimizer`."""
        if self._table is None:
            return
        table, locked = self.table, self._tracker.locked
        self._tracker.unlock()
        del self._anchor, self.table_state
        self._table = self._optimizer_config = None
        self.supports_jit = True
        self.built = False
        super().build()
        self._embeddings.assign(table)
        if locked:
            self._tracker.lock()

    @classmethod
    def from_word_vectors(
        cls,
        vectors: WordVectors,
        vocabulary: Sequence[str] | Mapping[str, int] | None = None,
        *,
        trainable: bool = False,
        seed: int = 0,
        **kwargs: Any,
    ) -> Embedding:
        """A layer whose rows are the vectors of words.

        Args:
            vectors (WordVectors): words without one there, "[UNK]" among them, get draws from a normal distribution
                with the mean and standard deviation of all its numbers; the empty string, which is padding, zeros.
            vocabulary: the word of each row, as TextVectorization.get_vocabulary() has it, or the row of each word;
                rows that no word has are drawn too; default: the words of `vectors` in their order.
            trainable (bool): default False: the vectors stay as they are.
            seed (int): of the draws, which depend on it and on the row alone; default 0.
            **kwargs: further arguments of the layer.

        Raises:
            TypeError: vectors are no WordVectors, a word is no str or its row no integer.
            ValueError: no word, a word that stands twice, or rows that do.
        """
        if not isinstance(vectors, WordVectors):
            raise TypeError(f"vectors must be hotrow.WordVectors, not {type(vectors).__name__}")
        rows = _rows(vectors.words if vocabulary is None else vocabulary)
        values = vectors.vectors.astype(np.float32)
        generator = np.random.default_rng(_check.integer("seed", seed, 0))
        table = generator.normal(values.mean(), values.std(), (max(rows.values()) + 1, values.shape[1]))
        table = table.astype(np.float32)
        known = [word for word in rows if word in vectors]
        table[[rows[word] for word in known]] = vectors[known]
        if "" in rows and "" not in vectors:
            table[rows[""]] = 0
        return cls(table.shape[0], table.shape[1], weights=[table], trainable=trainable, **kwargs)


def _rows(vocabulary: Sequence[str] | Mapping[str, int]) -> dict[str, int]:
    """The row of each word."""
    if isinstance(vocabulary, Mapping):
        rows = {word: _check.integer(f"the row of {word!r}", row, 0) for word, row in vocabulary.items()}
    else:
        rows = {word: row for row, word in enumerate(vocabulary)}
    for word in rows:
        if not isinstance(word, str):
            raise TypeError(f"vocabulary must hold strings, not {type(word).__name__}: {word!r}")
    if not rows:
        raise ValueError("vocabulary must hold at least one word")
    if len(rows) != len(vocabulary) or len(set(rows.values())) != len(rows):
        raise ValueError("vocabulary must not hold a word or a row twice")
    return rows


class FollowLearningRate(keras.callbacks.Callback):  # type: ignore[misc]  # keras has no types
    """Gives layers with `optimizer` the learning rate of the model's optimizer, before each batch of `fit`.

    Schedules, and callbacks that stand before this one and change the rate, reach the tables so.

    Args:
        *layers (Embedding): with `optimizer`.
        factor (float): the rate is times this; default 1.
    """

    def __init__(self, *layers: Embedding, factor: float = 1.0) -> None:
        super().__init__()
        self.layers = layers
        self.factor = _check.real("factor", factor, 0)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        rate = float(self.model.optimizer.learning_rate) * self.factor
        for layer in self.layers:
            layer.learning_rate = rate
