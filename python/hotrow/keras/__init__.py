"""Keras's Embedding, whose table hotrow can hold and train: Keras 3 on TensorFlow, torch, JAX and NumPy.

    from hotrow.keras import Embedding           # in place of: from keras.layers import Embedding
    Embedding(500_000, 64)                       # as Keras's: a weight, which the model's optimizer trains
    Embedding(500_000, 64, optimizer="adam")     # the table in hotrow, which the backward pass trains

With `optimizer=` a step costs the lookups of the batch. Keras's own layer costs the whole table with most backends and
optimizers, since gradient and update are as large as it is.

What `optimizer=` trains:

- The gradients of a batch, those of repeated ids added up, are one step of a hotrow.optim optimizer, on rows that were
  looked up alone. For SGD and Adagrad that is what Keras's optimizer does with the whole gradient. Adam, RMSprop and
  momentum are lazy: rows without a lookup rest, where Keras moves them on (or, on TensorFlow, may get repeated ids
  wrong).
- Where a layer is called more than once before the backward pass, its calls are one step.
- What the model's optimizer does to gradients and weights does not reach the table: clipping and weight decay are those
  of the table's own optimizer; there is no accumulation over batches, no average of weights, and a loss_scale_factor of
  the model's optimizer makes gradients larger. The learning rate is the table's own, see `Embedding.learning_rate` and
  `FollowLearningRate`.
- A pass with training=False, or of a layer with trainable=False, looks up alone.
- Compiled steps call it from their graph: TensorFlow's through tf.numpy_function, without XLA; JAX's, which are XLA,
  through jax.pure_callback and io_callback. torch runs it as an autograd function, without torch.compile.
- Ids outside [0, input_dim), negative ones too, are an error on every backend that says which: torch and numpy raise
  IndexError, TensorFlow InvalidArgumentError (ValueError where it runs eagerly), JAX JaxRuntimeError.
- A model for export (model.export) must not hold such a layer: load its file into one without `optimizer`.

A model with Keras's layer becomes one with this by `keras.models.clone_model(model, clone_function=...)`, where the
function makes `Embedding.from_config(layer.get_config())` of each keras.layers.Embedding, and `load_weights`.

`model.weights` and `model.get_weights` hold a scalar of zero for such a layer, for the backends to have something to
differentiate; `layer.get_weights` gives the table. Files hold the table as Keras's layer has it, so either loads the
other's, and beside it what the table's optimizer keeps: training goes on from a file as if it had not stopped.
"""

try:
    import keras
except ImportError as error:
    raise ImportError(f'hotrow.keras needs keras and its backend ({error}): pip install "hotrow[keras]"') from error

if not keras.__version__.startswith("3."):
    raise ImportError(f'hotrow.keras needs Keras 3, not {keras.__version__}: pip install "hotrow[keras]"')

from hotrow.keras._layer import Embedding, FollowLearningRate

__all__ = ["Embedding", "FollowLearningRate"]
