"""Every operator again, in Numba: same names, arguments and order as hotrow._native; files as in csrc/kernels.

Kernels do a range on one thread with the GIL released, plans split the work over Python threads (Numba's own pools
allow neither concurrent callers nor forks).
"""

from __future__ import annotations

from numpy import empty as result

from hotrow._numba.bounds import first_out_of_range, may_overlap, offsets_rise
from hotrow._numba.embedding_bag import embedding_bag, weights_grad
from hotrow._numba.gather import gather
from hotrow._numba.optim import adagrad_step, adam_step, rmsprop_step, rowwise_adagrad_step, sgd_step
from hotrow._numba.random import draw as _draw
from hotrow._numba.scatter import coalesce, scatter_add
from hotrow._numba.skipgram import (
    cbow_epoch,
    cbow_hs_epoch,
    skipgram_epoch,
    skipgram_hs_epoch,
    skipgram_step,
    tokens_per_block,
)

__all__ = [
    "_draw", "adagrad_step", "adam_step", "cbow_epoch", "cbow_hs_epoch", "coalesce", "embedding_bag",
    "first_out_of_range", "gather", "may_overlap", "offsets_rise", "result", "rmsprop_step", "rowwise_adagrad_step",
    "scatter_add", "sgd_step", "skipgram_epoch", "skipgram_hs_epoch", "skipgram_step", "tokens_per_block",
    "weights_grad",
]  # fmt: skip
