"""torch.nn.Embedding and EmbeddingBag on hotrow's kernels: the same arguments, numbers and state_dict, on the CPU.

    from hotrow.torch import Embedding, EmbeddingBag    # in place of: from torch.nn import Embedding, EmbeddingBag
    hotrow.torch.convert(model)                         # or this: the layers of a model that is there already

Both are subclasses of torch's. `embedding` and `embedding_bag` are torch.nn.functional's. Under torch.compile and
torch.export they are operators of torch.library, `hotrow::embedding` and `hotrow::embedding_bag`.

Also where torch refuses:

- mode "max" with sparse=True or scale_grad_by_freq, Embedding with both of these;
- per_sample_weights in every mode, and their gradient; mode "sqrtn" (see hotrow.embedding_bag);
- from_word_vectors: a layer from hotrow.WordVectors.

What differs:

- sparse=True gives a coalesced gradient: each row once, ascending. torch's has a row for each lookup.
- Indices, offsets that descend, dtypes and devices are checked. Errors are of the types that hotrow raises elsewhere
  (TypeError, ValueError, IndexError), and RuntimeErrors at once, as torch's often are.
- The gradient of "max" goes to the first of equal rows of a bag.
- float16 and bfloat16 are computed in float32 and rounded once.
- Threads are hotrow's (hotrow.set_num_threads), not torch.get_num_threads.
- torch.compile: with sparse=True torch's own code does the work; a table that hotrow.torch.optim updates in backward
  stays out of the graph.
- torch.jit.script cannot compile them; torch.jit.trace works.

torch's own code does what hotrow has no kernel for: weights of integers, weights whose rows are not contiguous, tensors
of subclasses (DTensor, ...), forward-mode derivatives and the transforms of torch.func. Tensors of other devices are an
error, or torch's with `fallback=True`. Twice differentiable, as long as the gradient is not sparse.
"""

from __future__ import annotations

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError(f'hotrow.torch needs torch ({error}): pip install "hotrow[torch]"') from error

from hotrow.torch import optim
from hotrow.torch._convert import convert, revert
from hotrow.torch._functional import embedding, embedding_bag
from hotrow.torch._layers import Embedding, EmbeddingBag

__all__ = ["Embedding", "EmbeddingBag", "convert", "embedding", "embedding_bag", "optim", "revert"]
