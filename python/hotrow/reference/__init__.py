"""The definition of every operator: dense one-hot products in float64. Slow, plain, and what all backends are tested
against. Same names and arguments as hotrow, less `out`, `progress`,
`include_last_offset` and `draw`.
"""

from hotrow.reference.lookups import coalesce, embedding_bag, gather, one_hot, scatter_add, weights_grad
from hotrow.reference.skipgram import (
    cbow_epoch,
    cbow_hs_epoch,
    cbow_matrices,
    draws,
    skipgram_epoch,
    skipgram_gradient,
    skipgram_hs_epoch,
    skipgram_loss,
    skipgram_step,
)
from hotrow.reference.steps import adagrad_step, adam_step, rmsprop_step, rowwise_adagrad_step, sgd_step

__all__ = [
    "adagrad_step", "adam_step", "cbow_epoch", "cbow_hs_epoch", "cbow_matrices", "coalesce", "draws", "embedding_bag",
    "gather", "one_hot", "rmsprop_step", "rowwise_adagrad_step", "scatter_add", "sgd_step", "skipgram_epoch",
    "skipgram_gradient", "skipgram_hs_epoch", "skipgram_loss", "skipgram_step", "weights_grad",
]  # fmt: skip
