"""Tensors as NumPy arrays and back, on the same memory; what is wrong with a tensor that cannot be."""

from __future__ import annotations

import re
from functools import cache
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
INDICES = (torch.int32, torch.int64)


@cache
def _bfloat16() -> Any:
    try:
        import ml_dtypes
    except ImportError as error:
        raise ImportError(f'bfloat16 in NumPy needs ml_dtypes ({error}): pip install "hotrow[torch]"') from error
    return np.dtype(ml_dtypes.bfloat16)


def array(tensor: Tensor) -> Array:
    """The tensor's memory as an array; torch's TypeError or RuntimeError if it is not in that of the CPU."""
    if tensor.dtype is torch.bfloat16:
        bits: Array = tensor.detach().view(torch.int16).numpy()
        return bits.view(_bfloat16())
    shared: Array = tensor.detach().numpy()
    return shared


def tensor(array: Array) -> Tensor:
    """The array's memory as a tensor."""
    if array.dtype.kind == "V":  # what NumPy does not know: bfloat16; its name takes two microseconds to ask for
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def numpy_dtype(dtype: torch.dtype) -> Any:
    """What NumPy calls one of FLOATS."""
    return _bfloat16() if dtype is torch.bfloat16 else np.dtype(str(dtype).removeprefix("torch."))


def real(tensor: Tensor) -> Tensor:
    """What arithmetic beside a table of 16 bits is done in, float32, or the tensor itself; rows contiguous."""
    if tensor.dtype.itemsize < 4:
        tensor = tensor.float()
    return tensor.contiguous()


# Errors of hotrow's types that handlers of torch's RuntimeError catch too.


class TensorTypeError(TypeError, RuntimeError):
    """A wrong dtype, rank, device or layout."""


class TensorValueError(ValueError, RuntimeError):
    """A wrong shape or value."""


class TensorIndexError(IndexError, RuntimeError):
    """An index out of range."""


def reraise(error: Exception, **names: str) -> NoReturn:
    """An error of hotrow as one of the above; `names` are what its arguments are called here. Others stay."""
    kinds: dict[type[Exception], type[Exception]] = {
        TypeError: TensorTypeError,
        ValueError: TensorValueError,
        IndexError: TensorIndexError,
    }
    if type(error) not in kinds:
        raise error
    text = str(error)
    for name, called in names.items():
        text = re.sub(rf"\b{name}\b(?! do not wrap)", called, text)
    raise kinds[type(error)](text) from error


def require(name: str, tensor: Any, dtypes: tuple[torch.dtype, ...]) -> None:
    """TypeError unless it is a dense tensor on the CPU, of one of these dtypes."""
    if not isinstance(tensor, Tensor):
        raise TensorTypeError(f"{name} must be a torch.Tensor, not {type(tensor).__name__}")
    if tensor.device.type != "cpu":
        raise TensorTypeError(
            f"{name} is on device {tensor.device}: hotrow works on the CPU (fallback=True: torch does it elsewhere)"
        )
    if tensor.layout != torch.strided:
        raise TensorTypeError(f"{name} must be a dense tensor, not of layout {tensor.layout}")
    if tensor.dtype not in dtypes:
        names = [str(dtype).removeprefix("torch.") for dtype in dtypes]
        allowed = ", ".join(names[:-1]) + f" or {names[-1]}" if len(names) > 1 else names[0]
        raise TensorTypeError(f"{name} must be {allowed}, not {str(tensor.dtype).removeprefix('torch.')}")
