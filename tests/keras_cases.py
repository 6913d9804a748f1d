"""hotrow.keras beside keras.layers.Embedding and the dense definition, on the backend that KERAS_BACKEND names.

Not collected by itself: tests/test_keras.py runs it in a process of its own for each backend.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import hotrow
from hotrow import WordVectors, optim
from hotrow.keras import Embedding, FollowLearningRate
from hotrow.optim import StepOptions

BACKEND = keras.backend.backend()
ROWS, WIDTH, BATCH, LENGTH, STEPS = 12, 5, 16, 6, 50
Array = np.ndarray[Any, Any]
trains = pytest.mark.skipif(BACKEND == "numpy", reason="Keras on NumPy trains nothing")
only_jax = pytest.mark.skipif(BACKEND != "jax", reason="of JAX's callbacks")

# JAX adds up in another order than NumPy, torch and TensorFlow in their own: 50 steps of float32.
CLOSE: dict[str, Any] = {"rtol": 2e-4, "atol": 2e-5}


def table(rows: int = ROWS, width: int = WIDTH, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)


def batches(steps: int = STEPS, every_row: bool = True) -> tuple[Array, Array]:
    """Zipf ids with repeats, and what to predict; with `every_row`, each batch has every row."""
    rng = np.random.default_rng(1)
    ids = np.minimum(rng.zipf(1.3, (steps, BATCH * LENGTH)) - 1, ROWS - 1).astype(np.int32)
    if every_row:
        ids[:, :ROWS] = np.arange(ROWS)
    labels = rng.standard_normal((steps * BATCH, 1)).astype(np.float32)
    return ids.reshape(-1, LENGTH), labels


def head(seed: int = 2) -> Any:
    """A layer without weights to train, so that the gradient of the table can be written down."""
    kernel = np.random.default_rng(seed).standard_normal((LENGTH * WIDTH, 1)).astype(np.float32)
    dense = keras.layers.Dense(1, use_bias=False, trainable=False)
    dense.build((None, LENGTH * WIDTH))
    dense.set_weights([kernel])
    return dense


def sequential(layer: Any) -> Any:
    model = keras.Sequential([keras.Input((LENGTH,), dtype="int32"), layer, keras.layers.Flatten(), head()])
    assert model.layers[0] is layer
    return model


def fitted(layer: Any, optimizer: Any = None, steps: int = STEPS, every_row: bool = True, **options: Any) -> Array:
    """The table after steps of fit, a batch each."""
    model = sequential(layer)
    model.compile(optimizer or keras.optimizers.SGD(0.1), "mse", **options)
    fit(model, *batches(steps, every_row))
    return np.array(layer.get_weights()[0], np.float64)


def fit(model: Any, ids: Any, labels: Array, **options: Any) -> None:
    model.fit(ids, labels, batch_size=BATCH, epochs=1, shuffle=False, verbose=0, **options)


# --- the dense definition ---------------------------------------------------------------------------------------------


def dense_gradient(weight: Array, ids: Array, labels: Array) -> Array:
    """Of the mean squared error of `sequential`, one-hot, float64."""
    kernel = head().get_weights()[0].astype(np.float64)
    one_hot = np.eye(ROWS)[ids]
    error = (one_hot @ weight).reshape(len(ids), -1) @ kernel - labels
    grads = (2 / len(ids) * error @ kernel.T).reshape(*ids.shape, WIDTH)
    return np.einsum("blr,bld->rd", one_hot, grads)


def dense(rule: Callable[..., Any], steps: int = STEPS, every_row: bool = True) -> Array:
    """The table after steps of an optimizer on whole gradients; rule(t, weight, g, state) -> weight."""
    weight, state = table().astype(np.float64), {}
    ids, labels = batches(steps, every_row)
    for t in range(steps):
        part = slice(t * BATCH, (t + 1) * BATCH)
        weight = rule(t + 1, weight, dense_gradient(weight, ids[part], labels[part]), state)
    return weight


def sgd(t: int, w: Array, g: Array, s: dict[str, Any]) -> Array:
    return w - 0.02 * g


def momentum(t: int, w: Array, g: Array, s: dict[str, Any]) -> Array:
    s["m"] = 0.5 * s.get("m", 0) - 0.02 * g
    return w + s["m"]


def adagrad(t: int, w: Array, g: Array, s: dict[str, Any]) -> Array:
    s["v"] = s.get("v", 0.1) + g**2
    return w - 0.1 * g / np.sqrt(s["v"] + 0.01)


def rmsprop(t: int, w: Array, g: Array, s: dict[str, Any]) -> Array:
    s["v"] = 0.9 * s.get("v", 0) + 0.1 * g**2
    return w - 0.05 * g / np.sqrt(s["v"] + 1e-14)


def adam(t: int, w: Array, g: Array, s: dict[str, Any]) -> Array:
    s["m"] = 0.9 * s.get("m", 0) + 0.1 * g
    s["v"] = 0.99 * s.get("v", 0) + 0.01 * g**2
    return w - 0.1 * np.sqrt(1 - 0.99**t) / (1 - 0.9**t) * s["m"] / (np.sqrt(s["v"]) + 0.01)


def adamw(t: int, w: Array, g: Array, s: dict[str, Any]) -> Array:
    return adam(t, w - 0.1 * 0.05 * w, g, s)


def clipped(t: int, w: Array, g: Array, s: dict[str, Any]) -> Array:
    return w - 0.1 * g / max(np.sqrt((g**2).sum()), 1)


RULES: dict[str, tuple[Callable[..., Any], Callable[[], Any]]] = {
    "SGD": (sgd, lambda: keras.optimizers.SGD(0.02)),
    "momentum": (momentum, lambda: keras.optimizers.SGD(0.02, momentum=0.5)),
    "Adagrad": (adagrad, lambda: keras.optimizers.Adagrad(0.1, 0.1, 0.01)),
    "RMSprop": (rmsprop, lambda: keras.optimizers.RMSprop(0.05, 0.9, epsilon=1e-14)),
    "Adam": (adam, lambda: keras.optimizers.Adam(0.1, 0.9, 0.99, 0.01)),
    "AdamW": (adamw, lambda: keras.optimizers.AdamW(0.1, 0.05, 0.9, 0.99, 0.01)),
    "clipnorm": (clipped, lambda: keras.optimizers.SGD(0.1, clipnorm=1.0)),
}


@trains
@pytest.mark.parametrize("steps", [1, STEPS])
@pytest.mark.parametrize("name", RULES)
def test_training_is_that_of_the_dense_gradient(name: str, steps: int) -> None:
    rule, optimizer = RULES[name]
    want = dense(rule, steps)
    got = fitted(Embedding(ROWS, WIDTH, weights=[table()], optimizer=optimizer()), steps=steps)
    np.testing.assert_allclose(got, want, **CLOSE)
    # Without optimizer= it is Keras's own training, which on TensorFlow may get repeated ids wrong.
    layers = [cls(ROWS, WIDTH, weights=[table()]) for cls in (Embedding, keras.layers.Embedding)]
    plain, keras_own = (fitted(layer, optimizer(), steps) for layer in layers)
    np.testing.assert_array_equal(plain, keras_own)
    if BACKEND != "tensorflow" or name == "SGD":
        np.testing.assert_allclose(plain, want, **CLOSE)


@trains
@pytest.mark.parametrize("name", ["SGD", "Adagrad"])
def test_rows_that_no_batch_has_stay_as_they_are(name: str) -> None:
    rule, optimizer = RULES[name]
    ids, _ = batches(2, every_row=False)
    layer = Embedding(ROWS, WIDTH, weights=[table()], optimizer=optimizer())
    got = fitted(layer, steps=2, every_row=False)
    np.testing.assert_allclose(got, dense(rule, 2, every_row=False), **CLOSE)
    unread = np.setdiff1d(np.arange(ROWS), ids)
    assert unread.size
    np.testing.assert_array_equal(got[unread], table()[unread])
    assert layer.optimizer.steps == 2


@trains
def test_lazy_adam_leaves_rows_alone_that_keras_moves_on() -> None:
    layer = Embedding(ROWS, WIDTH, weights=[table()], optimizer="adam")
    mine, ids = table(), batches(3, every_row=False)[0].reshape(3, -1)
    model = sequential(layer)
    model.compile("sgd", "mse")
    for part, labels in zip(ids, batches(3)[1].reshape(3, BATCH, 1), strict=True):
        fit(model, part.reshape(BATCH, LENGTH), labels)
        rest = np.setdiff1d(np.arange(ROWS), part)
        np.testing.assert_array_equal(layer.table[rest], mine[rest])
        mine = layer.table.copy()


@trains
@pytest.mark.parametrize(
    "options",
    [{"run_eagerly": True}, {"steps_per_execution": 5}, {"jit_compile": True}],
    ids=str,
)
def test_every_way_to_compile(options: dict[str, Any]) -> None:
    if BACKEND == "torch" and "steps_per_execution" in options:
        pytest.skip("Keras on torch has no steps_per_execution")
    layer = Embedding(ROWS, WIDTH, weights=[table()], optimizer=RULES["Adagrad"][1]())
    if "jit_compile" in options and BACKEND != "jax":
        with pytest.warns(UserWarning, match="Proceeding with `jit_compile=False`"):
            got = fitted(layer, **options)
    else:
        got = fitted(layer, **options)
    np.testing.assert_allclose(got, dense(adagrad), **CLOSE)


# --- models -----------------------------------------------------------------------------------------------------------


class Twice(keras.Model):
    """A subclass of Model that calls a layer twice, builds it in its first call, and trains a layer of its own."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.embedding = layer
        self.flatten = keras.layers.Flatten()
        self.out = keras.layers.Dense(1, kernel_initializer="ones")

    def call(self, ids: Any) -> Any:
        other = (ids * 5 + 1) % ROWS
        both = [self.flatten(self.embedding(ids)), self.flatten(self.embedding(other))]
        return self.out(keras.ops.concatenate(both, axis=1))


def shared(layer: Any) -> Any:
    ids = keras.Input((LENGTH,), dtype="int32")
    first, second = layer(ids[:, :3]), layer(ids[:, 3:])
    flat = keras.layers.Flatten()
    return keras.Model(ids, keras.layers.Dense(1, kernel_initializer="ones")(flat(first) * flat(second)))


def two_outputs(layer: Any) -> Any:
    """Two losses, whose gradients need not wait for each other."""
    ids = keras.Input((LENGTH,), dtype="int32")
    flat = keras.layers.Flatten()
    heads = [keras.layers.Dense(1, kernel_initializer="ones", name=name) for name in "ab"]
    return keras.Model(ids, keras.layers.Add()([heads[0](flat(layer(ids))), heads[1](flat(layer(ids % 4)))]))


MODELS: dict[str, Callable[[Any], Any]] = {
    "sequential": sequential, "subclass": Twice, "shared": shared, "two outputs": two_outputs,
}  # fmt: skip


@trains
@pytest.mark.parametrize("eagerly", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_models_train_as_with_keras_layer(name: str, eagerly: bool) -> None:
    """SGD, which Keras does rightly on every backend."""
    tables, outputs = [], []
    for cls, options in (keras.layers.Embedding, {}), (Embedding, {"optimizer": keras.optimizers.SGD(0.01)}):
        layer = cls(ROWS, WIDTH, embeddings_initializer=keras.initializers.RandomNormal(seed=3), **options)
        model = MODELS[name](layer)
        model.compile(keras.optimizers.SGD(0.01), "mse", run_eagerly=eagerly)
        ids, labels = batches(6)
        fit(model, ids, labels)
        tables.append(layer.get_weights()[0])
        outputs.append(model.predict(ids, verbose=0))
        if options:
            assert layer.optimizer.steps == 6
    np.testing.assert_allclose(tables[1], tables[0], **CLOSE)
    np.testing.assert_allclose(outputs[1], outputs[0], **CLOSE)


@trains
def test_calls_of_a_shared_layer_are_one_step() -> None:
    """Adagrad is not the same in two halves."""
    layer, plain = (Embedding(ROWS, WIDTH, weights=[table()], **o) for o in ({"optimizer": RULES["Adagrad"][1]()}, {}))
    ids, labels = batches(6)
    for tried in layer, plain:
        model = sequential(tried)
        both = keras.Input((2 * LENGTH,), dtype="int32")
        model = keras.Model(both, model(both[:, :LENGTH]) + model(both[:, LENGTH:]))
        model.compile(keras.optimizers.SGD(0.0), "mse")
        fit(model, np.concatenate([ids, ids[::-1]], axis=1), labels)
    flat = np.concatenate([ids, ids[::-1]], axis=1).reshape(6, BATCH, 2, LENGTH)
    weight, s = table().astype(np.float64), {}
    kernel = head().get_weights()[0].astype(np.float64)
    for part, y in zip(flat, labels.reshape(6, BATCH, 1), strict=True):
        one_hot = np.eye(ROWS)[part]
        error = ((one_hot @ weight).reshape(BATCH, 2, -1) @ kernel).sum(1) - y
        grads = np.broadcast_to((2 / BATCH * error @ kernel.T).reshape(BATCH, 1, LENGTH, WIDTH), (*part.shape, WIDTH))
        weight = adagrad(1, weight, np.einsum("bclr,bcld->rd", one_hot, grads), s)
    np.testing.assert_allclose(layer.table, weight, **CLOSE)
    np.testing.assert_array_equal(plain.get_weights()[0], table())


@trains
def test_two_layers_with_optimizers_of_their_own() -> None:
    layers = [
        Embedding(ROWS, WIDTH, weights=[table()], optimizer=partial(optim.SGD, lr=0.05)),
        Embedding(ROWS, WIDTH, weights=[table(seed=4)], optimizer=keras.optimizers.SGD(0.1)),
    ]
    plain = [keras.layers.Embedding(ROWS, WIDTH, weights=[table(seed=seed)]) for seed in (0, 4)]
    for pair in layers, plain:
        ids = keras.Input((LENGTH,), dtype="int32")
        flat = keras.layers.Flatten()(keras.layers.Add()([pair[0](ids), pair[1](ids)]))
        model = keras.Model(ids, head()(flat))
        model.compile(keras.optimizers.SGD(0.1), "mse")
        fit(model, *batches(1))
    first, second = ([layer.get_weights()[0] for layer in pair] for pair in (layers, plain))
    np.testing.assert_allclose(2 * (first[0] - table()), second[0] - table(), **CLOSE)
    np.testing.assert_allclose(first[1], second[1], **CLOSE)


@trains
def test_looking_up_alone_changes_nothing() -> None:
    layer = Embedding(ROWS, WIDTH, weights=[table()], optimizer="adam")
    model = sequential(layer)
    model.compile("sgd", "mse")
    ids, labels = batches(3)
    model.predict(ids, verbose=0)
    model.evaluate(ids, labels, verbose=0)
    model(ids[:4], training=True)
    np.testing.assert_array_equal(layer.table, table())
    assert layer.optimizer.steps == 0
    fit(model, ids, labels)
    after = layer.table.copy()
    assert layer.optimizer.steps == 3
    model.evaluate(ids, labels, verbose=0)
    np.testing.assert_array_equal(layer.table, after)


@trains
def test_a_frozen_layer_trains_nothing_and_thaws() -> None:
    layer = Embedding(ROWS, WIDTH, weights=[table()], optimizer="sgd", trainable=False)
    model = keras.Sequential([layer, keras.layers.Flatten(), keras.layers.Dense(1)])
    ids, labels = batches(2)
    for trainable in False, True:
        layer.trainable = trainable
        model.compile("sgd", "mse")
        fit(model, ids, labels)
        assert (layer.table != table()).any() == trainable


@trains
def test_a_loop_of_ones_own() -> None:
    """The gradient that the backend itself asks for, without Keras's trainer."""
    layer = Embedding(ROWS, WIDTH, weights=[table()], optimizer=partial(optim.SGD, lr=1.0))
    ids = np.array([[1, 2], [2, 2]], np.int32)
    if BACKEND == "torch":
        import torch

        layer(torch.from_numpy(ids)).sum().backward()
    elif BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            total = tf.reduce_sum(layer(ids))
        gradient = tape.gradient(total, layer.trainable_weights)
        assert gradient[0].numpy() == 0
    else:
        import jax

        def total(trainable: Any) -> Any:
            return layer.stateless_call(trainable, [], ids)[0].sum()

        gradient = jax.grad(total)([v.value for v in layer.trainable_variables])
        assert gradient[0] == 0
    want = table()
    want[1] -= 1
    want[2] -= 3
    np.testing.assert_allclose(layer.table, want, rtol=1e-6)


@only_jax
def test_callbacks_of_a_step_wait_for_each_other() -> None:
    import jax

    layer = Embedding(ROWS, WIDTH, weights=[table()], optimizer="sgd")
    both = keras.Sequential([layer])
    ids = np.array([[1, 2]], np.int32)

    def total(trainable: Any) -> Any:
        def call(x: Any) -> Any:
            return layer(x).sum() + layer(x + 1).sum()

        with keras.StatelessScope(zip(both.trainable_variables, trainable, strict=True)):
            return call(jax.numpy.asarray(ids))

    step = jax.make_jaxpr(jax.grad(total))([v.value for v in both.trainable_variables])
    callbacks = [e for e in step.jaxpr.eqns if "callback" in e.primitive.name]
    assert [e.primitive.name for e in callbacks] == ["pure_callback"] * 2 + ["io_callback"] * 2
    for before, after in pairwise(callbacks):
        assert set(map(id, before.outvars)) & set(map(id, after.invars))
    assert step.jaxpr.outvars == callbacks[-1].outvars


# --- the layer --------------------------------------------------------------------------------------------------------


IDS: dict[str, Any] = {
    "1-D": np.array([1, 1, 0], np.int32),
    "2-D": np.array([[1, 11], [0, 3]], np.int64),
    "3-D": np.arange(12, dtype=np.int32).reshape(2, 3, 2),
    "uint8": np.array([[1, 11], [0, 3]], np.uint8),
    "float": np.array([[1.0, 11.0], [0.0, 3.0]], np.float32),
    "empty": np.zeros((0, 3), np.int32),
}


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "mixed_bfloat16", "float64"])
@pytest.mark.parametrize("ids", IDS.values(), ids=IDS)
@pytest.mark.parametrize("options", [{}, {"optimizer": "adagrad"}], ids=str)
def test_forward_is_keras_forward(ids: Array, options: dict[str, Any], dtype: str) -> None:
    if BACKEND == "jax" and dtype == "float64":
        pytest.skip("JAX is set to 32 bits")
    layers = [
        cls(ROWS, WIDTH, weights=[table()], dtype=dtype, mask_zero=True, **o)
        for cls, o in ((keras.layers.Embedding, {}), (Embedding, options))
    ]
    want, got = (layer(ids) for layer in layers)
    assert keras.backend.standardize_dtype(got.dtype) == keras.backend.standardize_dtype(want.dtype)
    convert = keras.ops.convert_to_numpy
    np.testing.assert_array_equal(convert(got).astype(np.float64), convert(want).astype(np.float64))
    assert tuple(got.shape) == tuple(want.shape)
    np.testing.assert_array_equal(*(convert(layer.compute_mask(keras.ops.convert_to_tensor(ids))) for layer in layers))


@pytest.mark.parametrize("options", [{}, {"optimizer": "adagrad"}], ids=str)
def test_the_same_seed_initializes_the_same_table(options: dict[str, Any]) -> None:
    weights = []
    for cls, o in (keras.layers.Embedding, {}), (Embedding, options):
        layer = cls(ROWS, WIDTH, embeddings_initializer=keras.initializers.HeNormal(seed=5), **o)
        layer.build()
        weights.append(layer.get_weights()[0])
    np.testing.assert_array_equal(*weights)
    assert layer.count_params() == ROWS * WIDTH
    assert layer.compute_output_shape((None, 3)) == (None, 3, WIDTH)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(layer.embeddings), weights[0])


@trains
@pytest.mark.parametrize("initializer", ["uniform", keras.initializers.HeNormal(seed=5)], ids=["uniform", "seed"])
def test_fit_builds_a_model_without_an_input(initializer: Any) -> None:
    """TensorFlow then makes the table while it traces the first step."""
    keras.utils.set_random_seed(1)
    layer = Embedding(ROWS, WIDTH, embeddings_initializer=initializer, optimizer=keras.optimizers.SGD(0.0))
    model = keras.Sequential([layer, keras.layers.Flatten(), head()])
    model.compile("sgd", "mse")
    fit(model, *batches(2))
    assert np.unique(layer.table).size == ROWS * WIDTH
    if initializer != "uniform":
        other = keras.layers.Embedding(ROWS, WIDTH, embeddings_initializer=initializer)
        other.build()
        np.testing.assert_array_equal(layer.table, other.get_weights()[0])


@trains
def test_the_masked_row_trains_and_the_mask_goes_on() -> None:
    """As in Keras, where row 0 is a row; what follows may leave it out."""
    tables = []
    for cls, options in (keras.layers.Embedding, {}), (Embedding, {"optimizer": keras.optimizers.SGD(0.1)}):
        layer = cls(ROWS, WIDTH, weights=[table()], mask_zero=True, **options)
        ids = np.array([[1, 2, 0, 0], [3, 0, 0, 0]], np.int32)
        recurrent = keras.layers.SimpleRNN(3, kernel_initializer="ones", recurrent_initializer="zeros")
        masked, plain = keras.Sequential([layer, recurrent]), keras.Sequential([layer, keras.layers.Flatten()])
        for model, shape in (masked, (2, 3)), (plain, (2, 4 * WIDTH)):
            model.compile(keras.optimizers.SGD(0.1), "mse")
            with nullcontext() if model is masked else pytest.warns(UserWarning, match="destroy the mask"):
                fit(model, ids, np.ones(shape, np.float32))
            assert (layer.get_weights()[0][0] == table()[0]).all() == (model is masked)
        tables.append(layer.get_weights()[0])
    np.testing.assert_allclose(tables[1], tables[0], **CLOSE)


HALF = {"float16": 2e-2, "bfloat16": 2e-1, "mixed_bfloat16": 2e-1}


@trains
@pytest.mark.parametrize("dtype", HALF)
def test_half_precision_trains(dtype: str) -> None:
    layer = Embedding(ROWS, WIDTH, weights=[table()], dtype=dtype, optimizer=RULES["SGD"][1]())
    got = fitted(layer, steps=5)
    assert layer.table.dtype.name == ("float32" if dtype.startswith("mixed") else dtype)
    assert all(a.dtype == np.float32 for a in layer.optimizer.state.values())
    np.testing.assert_allclose(got, dense(sgd, 5), atol=HALF[dtype])
    assert abs(got - table()).max() > HALF[dtype]


OUT_OF_RANGE = {
    "numpy": ("IndexError", "IndexError"), "torch": ("IndexError", "IndexError"),
    "tensorflow": ("ValueError", "InvalidArgumentError"), "jax": ("JaxRuntimeError", "JaxRuntimeError"),
}  # fmt: skip


@pytest.mark.parametrize("use", ["call", "predict", "fit"])
@pytest.mark.parametrize("bad", [-1, ROWS])
def test_ids_out_of_range_are_errors_that_say_so(bad: int, use: str) -> None:
    if use == "fit" and BACKEND == "numpy":
        pytest.skip("Keras on NumPy trains nothing")
    layer = Embedding(ROWS, WIDTH, weights=[table()], optimizer="sgd")
    model = sequential(layer)
    model.compile("sgd", "mse")
    ids, labels = batches(2)
    ids[BATCH + 1, 2] = bad
    uses: dict[str, Callable[[], Any]] = {
        "call": lambda: keras.ops.convert_to_numpy(layer(ids)),
        "predict": lambda: model.predict(ids, verbose=0),
        "fit": lambda: fit(model, ids, labels),
    }
    with pytest.raises(Exception, match=rf"= {bad} is out of range for a table of {ROWS} rows") as caught:
        uses[use]()
    assert caught.type.__name__ == OUT_OF_RANGE[BACKEND][use != "call"]
    assert layer.optimizer.steps == (use == "fit")
    if use == "call":
        np.testing.assert_array_equal(layer.table, table())


# --- files ------------------------------------------------------------------------------------------------------------


def saved(model: Any, path: Path, suffix: str) -> Path:
    path = path / f"model{suffix}"
    model.save(path) if suffix == ".keras" else model.save_weights(path)
    return path


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
@pytest.mark.parametrize("options", [{}, {"optimizer": "adagrad"}], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_files_go_both_ways(options: dict[str, Any], suffix: str, dtype: str, tmp_path: Path) -> None:
    layers = [
        keras.layers.Embedding(ROWS, WIDTH, weights=[table()], dtype=dtype),
        Embedding(ROWS, WIDTH, weights=[table(seed=1)], dtype=dtype, **options),
    ]
    for source, target in layers, layers[::-1]:
        source.set_weights([table(seed=7)])
        target.set_weights([table(seed=8)])
        model, other = sequential(source), sequential(target)
        other.load_weights(saved(model, tmp_path, suffix))
        a, b = (np.asarray(layer.get_weights()[0], np.float32) for layer in layers)
        np.testing.assert_array_equal(a, b)
        np.testing.assert_allclose(b, table(seed=7), rtol=0.01)


def test_a_whole_model_becomes_the_other(tmp_path: Path) -> None:
    """Without optimizer= the configuration is Keras's."""
    model = sequential(keras.layers.Embedding(ROWS, WIDTH, weights=[table()]))

    def change(layer: Any) -> Any:
        cls = Embedding if isinstance(layer, keras.layers.Embedding) else type(layer)
        return cls.from_config(layer.get_config())

    ours = keras.models.clone_model(model, clone_function=change)
    assert type(ours.layers[0]) is Embedding
    ours.set_weights(model.get_weights())
    with keras.saving.custom_object_scope({"hotrow>Embedding": keras.layers.Embedding}):
        back = keras.Sequential.from_config(ours.get_config())
    back.load_weights(saved(ours, tmp_path, ".keras"))
    assert type(back.layers[0]) is keras.layers.Embedding
    assert back.layers[0].get_config() == model.layers[0].get_config()
    np.testing.assert_array_equal(back.layers[0].get_weights()[0], table())


@trains
@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
@pytest.mark.parametrize("name", [*RULES, "rowwise_adagrad"])
def test_training_goes_on_from_a_file_as_if_it_had_not_stopped(name: str, suffix: str, tmp_path: Path) -> None:
    def fresh() -> Any:
        layer = Embedding(ROWS, WIDTH, weights=[table()], optimizer=RULES[name][1]() if name in RULES else name)
        model = sequential(layer)
        model.compile(keras.optimizers.SGD(0.1), "mse")
        return model

    ids, labels = batches(10)
    whole, halves = fresh(), fresh()
    fit(whole, ids, labels)
    middle = 5 * BATCH
    fit(halves, ids[:middle], labels[:middle])
    halves.layers[0].learning_rate *= 1.0
    path = saved(halves, tmp_path, suffix)
    if suffix == ".keras":
        again = keras.saving.load_model(path)
        assert type(again.layers[0]) is Embedding
    else:
        again = fresh()
        again.load_weights(path)
    assert again.layers[0].optimizer.steps == 5
    fit(again, ids[middle:], labels[middle:])
    np.testing.assert_array_equal(again.layers[0].table, whole.layers[0].table)
    assert again.layers[0].optimizer.steps == 10


@trains
def test_the_state_of_another_optimizer_does_not_load(tmp_path: Path) -> None:
    models = [sequential(Embedding(ROWS, WIDTH, optimizer=name)) for name in ("adam", "adagrad")]
    models[0].save_weights(tmp_path / "m.weights.h5")
    with pytest.raises(ValueError, match=r"state of Adagrad must hold 'state_sum', not "):
        models[1].load_weights(tmp_path / "m.weights.h5")


SPECS: dict[str, tuple[Any, dict[str, Any]]] = {
    "adam": ("adam", {"name": "Adam", "lr": 0.001, "eps": 1e-7, "epsilon_hat": True}),
    "adamw": ("adamw", {"name": "AdamW", "lr": 0.001}),
    "sgd": ("SGD", {"name": "SGD", "lr": 0.01, "momentum": 0.0}),
    "adagrad": ("adagrad", {"name": "Adagrad", "lr": 0.001, "initial_accumulator_value": 0.1 + 1e-7, "eps": 0.0}),
    "rmsprop": ("rmsprop", {"name": "RMSprop", "alpha": 0.9, "eps": 1e-7**0.5}),
    "rowwise": ("rowwise_adagrad", {"name": "RowwiseAdagrad", "lr": 0.01}),
    "keras": (lambda: keras.optimizers.Adam(0.3, beta_1=0.5), {"lr": 0.3, "betas": (0.5, 0.999)}),
    "keras config": ({"class_name": "Adam", "config": {"learning_rate": 0.25}}, {"name": "Adam", "lr": 0.25}),
    "decay": (lambda: keras.optimizers.SGD(0.5, weight_decay=0.25), {"name": "SGD", "lr": 0.5}),
    "class": (optim.Adam, {"name": "Adam", "lr": 0.001, "eps": 1e-8}),
    "partial": (partial(optim.SGD, lr=0.5, options=StepOptions(max_norm=2.0)), {"name": "SGD", "lr": 0.5}),
    "dict": ({"name": "RowwiseAdagrad", "lr": 0.5}, {"name": "RowwiseAdagrad", "lr": 0.5, "eps": 1e-8}),
}


@pytest.mark.parametrize("name", SPECS)
def test_every_form_of_optimizer_is_kept_by_the_configuration(name: str) -> None:
    spec, want = SPECS[name]
    is_maker = callable(spec) and not isinstance(spec, (type, partial))
    layer = Embedding(ROWS, WIDTH, optimizer=spec() if is_maker else spec)
    config = layer.get_config()["optimizer"]
    assert want == {key: config[key] for key in want}
    layer.build()
    assert layer.get_config()["optimizer"] == config
    text = keras.saving.serialize_keras_object(layer)
    again = keras.saving.deserialize_keras_object(text)
    again.build()
    assert again.optimizer.state_dict()["options"] == layer.optimizer.state_dict()["options"]
    assert again.get_config()["optimizer"] == config
    assert type(again.optimizer).__name__ == config["name"]
    options = config["options"]
    assert (options["weight_decay"], options["decoupled_weight_decay"]) == {
        "decay": (0.25, True), "adamw": (0.004, True)
    }.get(name, (0.0, False))  # fmt: skip
    assert options["max_norm"] == (2.0 if name == "partial" else None)


# --- LoRA and quantization --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"optimizer": "adagrad"}], ids=str)
@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_quantize_is_keras_quantize(mode: str, options: dict[str, Any], tmp_path: Path) -> None:
    outputs, counts, ids = [], [], batches(1)[0]
    for cls, o in (keras.layers.Embedding, {}), (Embedding, options):
        layer = cls(ROWS, WIDTH, weights=[table()], **o)
        layer.quantize(mode)
        outputs.append(keras.ops.convert_to_numpy(layer(ids)))
        counts.append(len(layer.weights))
    np.testing.assert_array_equal(*outputs)
    assert counts[0] == counts[1]
    assert "optimizer" not in layer.get_config()
    with pytest.raises(ValueError, match="has no table in hotrow"):
        layer.table  # noqa: B018
    model = sequential(layer)
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(again.predict(ids, verbose=0), model.predict(ids, verbose=0))


@trains
@pytest.mark.parametrize("options", [{}, {"optimizer": "adagrad"}], ids=str)
def test_lora_is_keras_lora(options: dict[str, Any]) -> None:
    tables = []
    for cls, o in (keras.layers.Embedding, {}), (Embedding, options):
        layer = cls(ROWS, WIDTH, weights=[table()], **o)
        layer.enable_lora(2, a_initializer=keras.initializers.HeUniform(seed=6))
        fitted(layer, steps=5)
        assert len(layer.trainable_weights) == 2
        tables.append(keras.ops.convert_to_numpy(layer.embeddings))
    np.testing.assert_array_equal(*tables)
    assert (tables[0] != table()).any()


def test_lora_from_the_constructor() -> None:
    options: dict[str, Any] = {"lora_rank": 2, "lora_alpha": 3.0, "name": "lora"}
    layer, plain = (cls(ROWS, WIDTH, **options) for cls in (Embedding, keras.layers.Embedding))
    for made in layer, plain:
        made.build()
    assert layer.lora_enabled
    assert layer.get_config() == plain.get_config()


# --- learning rates ---------------------------------------------------------------------------------------------------


@trains
def test_the_tables_learning_rate_follows_a_schedule() -> None:
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([1, 3], [0.05, 0.02, 0.01])
    layer = Embedding(ROWS, WIDTH, weights=[table()], optimizer="sgd")
    model = sequential(layer)
    model.compile(keras.optimizers.SGD(schedule), "mse")
    fit(model, *batches(8), callbacks=[FollowLearningRate(layer)])
    plain = fitted(keras.layers.Embedding(ROWS, WIDTH, weights=[table()]), keras.optimizers.SGD(schedule), 8)
    np.testing.assert_allclose(layer.table, plain, **CLOSE)
    assert layer.learning_rate == pytest.approx(0.01)


@trains
def test_the_tables_learning_rate_follows_other_callbacks() -> None:
    layer = Embedding(ROWS, WIDTH, weights=[table()], optimizer="sgd")
    model = sequential(layer)
    model.compile(keras.optimizers.SGD(0.5), "mse")
    seen = []
    log = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(layer.learning_rate))
    rates = keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.01 / (1 + epoch))
    ids, labels = batches(2)
    callbacks = [rates, FollowLearningRate(layer, factor=2.0), log]
    model.fit(ids, labels, batch_size=BATCH, epochs=2, verbose=0, callbacks=callbacks)
    assert seen == pytest.approx([0.02, 0.02, 0.01, 0.01])


@trains
def test_the_table_can_be_read_and_the_rate_set_between_batches() -> None:
    layer = Embedding(ROWS, WIDTH, weights=[table()], optimizer="sgd")
    model = sequential(layer)
    model.compile("sgd", "mse")
    tables, rates = [], iter([0.0, 0.01, 0.0, 0.01])

    def begin(batch: int, logs: Any) -> None:
        layer.learning_rate = next(rates)

    fit(
        model, *batches(4),
        callbacks=[keras.callbacks.LambdaCallback(
            on_train_batch_begin=begin, on_train_batch_end=lambda batch, logs: tables.append(layer.table.copy())
        )],
    )  # fmt: skip
    changed = [bool((a != b).any()) for a, b in zip([table(), *tables], tables, strict=False)]
    assert changed == [False, True, False, True]


# --- word vectors -----------------------------------------------------------------------------------------------------


VECTORS = WordVectors(["the", "cat", "sat"], np.arange(12, dtype=np.float32).reshape(3, 4))


@pytest.mark.parametrize(
    "vocabulary", [["", "[UNK]", "sat", "dog", "the"], {"": 0, "[UNK]": 1, "sat": 2, "dog": 3, "the": 4}], ids=type
)
@pytest.mark.parametrize("options", [{}, {"optimizer": "adam", "trainable": True}], ids=str)
def test_rows_of_word_vectors(vocabulary: Any, options: dict[str, Any]) -> None:
    layer = Embedding.from_word_vectors(VECTORS, vocabulary, mask_zero=True, name="words", **options)
    (rows,) = layer.get_weights()
    np.testing.assert_array_equal(rows[[2, 4]], VECTORS[["sat", "the"]])
    np.testing.assert_array_equal(rows[0], np.zeros(4))
    assert (rows[1] != rows[3]).all()
    assert (layer.trainable, layer.mask_zero, layer.name) == (bool(options), True, "words")
    (same,) = Embedding.from_word_vectors(VECTORS, vocabulary).get_weights()
    np.testing.assert_array_equal(same, rows)
    (other,) = Embedding.from_word_vectors(VECTORS, vocabulary, seed=1).get_weights()
    assert (other[1] != rows[1]).all()


def test_draws_for_unknown_words_look_like_the_vectors() -> None:
    rng = np.random.default_rng(0)
    vectors = WordVectors(["a", "b"], rng.normal(3, 0.5, (2, 500)))
    (rows,) = Embedding.from_word_vectors(vectors, {"a": 99, "b": 98}).get_weights()
    assert rows.shape == (100, 500)
    assert rows[:98].mean() == pytest.approx(3, abs=0.1)
    assert rows[:98].std() == pytest.approx(0.5, abs=0.05)
    (rows,) = Embedding.from_word_vectors(vectors).get_weights()
    np.testing.assert_array_equal(rows, vectors.vectors.astype(np.float32))


# --- errors -----------------------------------------------------------------------------------------------------------


def build(**options: Any) -> Callable[[], Any]:
    return lambda: Embedding(ROWS, WIDTH, **options)


def keras_optimizer(name: str, **options: Any) -> Callable[[], Any]:
    return lambda: Embedding(ROWS, WIDTH, optimizer=getattr(keras.optimizers, name)(**options))


def words(*arguments: Any, **options: Any) -> Callable[[], Any]:
    return lambda: Embedding.from_word_vectors(*arguments, **options)


ERRORS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (build(optimizer="adam", embeddings_regularizer="l2"), ValueError, "embeddings_regularizer .* weight_decay"),
    (build(optimizer="adam", embeddings_constraint="max_norm"), ValueError, "embeddings_constraint .* max_norm"),
    (build(optimizer="adam", lora_rank=2), ValueError, "optimizer and lora_rank exclude"),
    (build(optimizer="adam", dtype="int8_from_float32"), ValueError, "optimizer and dtype int8_from_float32"),
    (build(optimizer="adam", dtype="mixed_float16"), ValueError, "mixed_float16 .* it scales the loss"),
    (build(optimizer="lion"), ValueError, "optimizer must be one of SGD, .* not Lion"),
    (build(optimizer="adan"), ValueError, "adan"),
    (build(optimizer=3), TypeError, "optimizer must be a name, a dict, .* not 3"),
    (build(optimizer=lambda table: table), TypeError, "must give an optimizer of hotrow.optim, not ndarray"),
    (build(optimizer=optim.SGD), TypeError, "lr"),
    (build(optimizer=partial(optim.Adam, lr=-1)), ValueError, "lr = -1.0 must be at least 0"),
    (build(optimizer={"name": "Lion"}), ValueError, "name must be one of SGD, .* not 'Lion'"),
    (build(optimizer={"name": "Adam", "rho": 1}), TypeError, "rho"),
    (keras_optimizer("Adam", amsgrad=True), ValueError, "no Adam with amsgrad=True"),
    (keras_optimizer("RMSprop", centered=True), ValueError, "no RMSprop with centered=True"),
    (keras_optimizer("RMSprop", momentum=0.5), ValueError, "no RMSprop with momentum=0.5"),
    (keras_optimizer("SGD", global_clipnorm=1.0), ValueError, "no SGD with global_clipnorm=1.0"),
    (keras_optimizer("SGD", use_ema=True), ValueError, "no SGD with use_ema=True"),
    (keras_optimizer("SGD", gradient_accumulation_steps=2), ValueError, "gradient_accumulation_steps=2"),
    (keras_optimizer("SGD", loss_scale_factor=2.0), ValueError, "loss_scale_factor=2.0"),
    (
        keras_optimizer("SGD", learning_rate=keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)),
        ValueError, "a schedule comes by FollowLearningRate",
    ),
    (lambda: Embedding(0, WIDTH), ValueError, "input_dim"),
    (lambda: Embedding(ROWS, WIDTH).table, ValueError, "it has no optimizer=, or is not built"),
    (build(optimizer="adam", weights=[table(3)]), ValueError, r"one array of shape \(12, 5\), not \(3, 5\)"),
    (build(optimizer="adam", weights=[table(), table()]), ValueError, r"must be one array"),
    (lambda: FollowLearningRate(factor=-1), ValueError, "factor = -1.0 must be at least 0"),
    (words(table()), TypeError, "vectors must be hotrow.WordVectors, not ndarray"),
    (words(VECTORS, []), ValueError, "at least one word"),
    (words(VECTORS, ["a", "a"]), ValueError, "a word or a row twice"),
    (words(VECTORS, {"a": 1, "b": 1}), ValueError, "a word or a row twice"),
    (words(VECTORS, [b"a"]), TypeError, "vocabulary must hold strings, not bytes"),
    (words(VECTORS, {"a": 1.5}), TypeError, "the row of 'a'"),
    (words(VECTORS, {"a": -1}), ValueError, "the row of 'a'"),
    (words(VECTORS, seed=-1), ValueError, "seed"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "text"), ERRORS, ids=[e[2] for e in ERRORS])
def test_errors(call: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()


def test_a_global_policy_that_scales_the_loss_is_refused() -> None:
    keras.config.set_dtype_policy("mixed_float16")
    try:
        with pytest.raises(ValueError, match="it scales the loss"):
            Embedding(ROWS, WIDTH, dtype="float32", optimizer="adam")
    finally:
        keras.config.set_dtype_policy("float32")


def test_a_failed_lookup_leaves_the_count_of_what_is_to_come() -> None:
    """A step that fails is reported once, and the next one is taken."""
    from hotrow.keras._table import Table

    held = Table(ROWS, WIDTH, np.float32, {"name": "SGD", "lr": 1.0, "options": {"check_finite": True}})
    held.array[:] = 0
    ids = np.array([1])
    for grad in np.nan, 1.0:
        for _ in range(2):
            held.look_up(ids, True)
        for _ in range(2):
            held.add_gradients(ids, np.full((1, WIDTH), grad, np.float32))
        if np.isnan(grad):
            with pytest.raises(ValueError, match="grads"):
                held.finish()
        held.finish()
    assert held.optimizer.steps == 1
    np.testing.assert_array_equal(held.array[1], np.full(WIDTH, -2.0))
    assert hotrow.gather(held.array, np.array([0])).sum() == 0
