"""Embedding tables, fast on the CPU: lookup, sparse gradient and word-vector training.

A one-hot vector times a matrix is one row of it. hotrow does that lookup (gather, embedding_bag), its gradient
(scatter_add, coalesce, optim) and Hogwild training of word vectors (skipgram_step, skipgram_epoch, cbow_epoch, with
hierarchical softmax skipgram_hs_epoch, cbow_hs_epoch) on NumPy arrays.
"""

from hotrow import optim, reference
from hotrow._backend import use_backend
from hotrow._config import show_config
from hotrow._threads import get_num_threads, num_threads, set_num_threads
from hotrow._version import __version__
from hotrow.huffman import HuffmanTree
from hotrow.ops import (
    SparseGrad,
    adagrad_step,
    adam_step,
    cbow_epoch,
    cbow_hs_epoch,
    coalesce,
    embedding_bag,
    empty_table,
    gather,
    rmsprop_step,
    rowwise_adagrad_step,
    scatter_add,
    sgd_step,
    skipgram_epoch,
    skipgram_hs_epoch,
    skipgram_step,
    weights_grad,
)
from hotrow.quantized import QuantizedTable, quantize
from hotrow.sampling import Sampling
from hotrow.vectors import WordVectors
from hotrow.word2vec import Word2Vec

__all__ = [
    "HuffmanTree",
    "QuantizedTable",
    "Sampling",
    "SparseGrad",
    "Word2Vec",
    "WordVectors",
    "__version__",
    "adagrad_step",
    "adam_step",
    "cbow_epoch",
    "cbow_hs_epoch",
    "coalesce",
    "embedding_bag",
    "empty_table",
    "gather",
    "get_num_threads",
    "num_threads",
    "optim",
    "quantize",
    "reference",
    "rmsprop_step",
    "rowwise_adagrad_step",
    "scatter_add",
    "set_num_threads",
    "sgd_step",
    "show_config",
    "skipgram_epoch",
    "skipgram_hs_epoch",
    "skipgram_step",
    "use_backend",
    "weights_grad",
]
