"""What `optimizer=` may be, as the name and hyperparameters of a class of hotrow.optim."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from hotrow import optim
from hotrow.ops import Floats
from hotrow.optim import Optimizer, StepOptions

_OURS: dict[str, type[Optimizer]] = {
    c.__name__: c for c in (optim.SGD, optim.Adagrad, optim.RowwiseAdagrad, optim.RMSprop, optim.Adam, optim.AdamW)
}


def _adam(o: Any) -> dict[str, Any]:
    _without(o, amsgrad=False)
    return {"betas": (o.beta_1, o.beta_2), "eps": o.epsilon, "epsilon_hat": True}


def _rmsprop(o: Any) -> dict[str, Any]:
    _without(o, centered=False, momentum=0)
    return {"alpha": o.rho, "eps": math.sqrt(o.epsilon)}


# Keras's hyperparameters as hotrow's. Its Adagrad divides by sqrt(sum + epsilon): epsilon is a part of the first sum.
# So does its RMSprop, whose sum decays: where it is far from epsilon, sqrt(sum) + sqrt(epsilon) is the same.
_FROM_KERAS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "SGD": lambda o: {"momentum": o.momentum, "nesterov": o.nesterov},
    "Adagrad": lambda o: {"initial_accumulator_value": o.initial_accumulator_value + o.epsilon, "eps": 0.0},
    "RMSprop": _rmsprop,
    "Adam": _adam,
    "AdamW": _adam,
}


def _without(optimizer: Any, **defaults: Any) -> None:
    """Refuse what hotrow's optimizers do not have."""
    for name, default in defaults.items():
        if (value := getattr(optimizer, name)) != default:
            raise ValueError(f"optimizer: a table has no {type(optimizer).__name__} with {name}={value!r}")


def _from_keras(optimizer: Any) -> dict[str, Any]:
    name = type(optimizer).__name__
    if name not in _FROM_KERAS or not isinstance(optimizer, getattr(keras.optimizers, name)):
        raise ValueError(f"optimizer must be one of {', '.join(_FROM_KERAS)} of Keras's, not {name}")
    _without(optimizer, global_clipnorm=None, use_ema=False, loss_scale_factor=None, gradient_accumulation_steps=None)
    rate = optimizer.get_config()["learning_rate"]
    if not isinstance(rate, float):
        raise ValueError("optimizer: the learning rate must be a number; a schedule comes by FollowLearningRate")
    decay = optimizer.weight_decay or 0.0
    options = StepOptions(
        clip_norm=optimizer.clipnorm, clip_value=optimizer.clipvalue, weight_decay=decay,
        decoupled_weight_decay=bool(decay),
    )  # fmt: skip
    rate = float(str(np.float32(rate)))  # as it was given: Keras keeps it in float32
    return {"name": name, "lr": rate} | _FROM_KERAS[name](optimizer) | {"options": options.asdict()}


def normalized(spec: Any) -> dict[str, Any]:
    """An optimizer= argument as {"name": ..., hyperparameters}, which JSON can hold.

    Raises:
        TypeError, ValueError: it is none, or hotrow has no such optimizer.
    """
    if isinstance(spec, dict) and "name" in spec:
        given = {key: value for key, value in spec.items() if key != "name"}
        if spec["name"] not in _OURS:
            raise ValueError(f"optimizer: name must be one of {', '.join(_OURS)}, not {spec['name']!r}")
        made = make(spec, _probe()) if "options" in spec else _OURS[spec["name"]](_probe(), **given)
    elif isinstance(spec, str) and spec.lower() == "rowwise_adagrad":
        made = optim.RowwiseAdagrad(_probe())
    elif isinstance(spec, (str, dict, keras.optimizers.Optimizer)):
        made = make(_from_keras(keras.optimizers.get(spec)), _probe())
    elif callable(spec):
        made = spec(_probe())
    else:
        raise TypeError(f"optimizer must be a name, a dict, an optimizer of Keras or table -> optimizer, not {spec!r}")
    if type(made) not in _OURS.values():
        raise TypeError(f"optimizer must give an optimizer of hotrow.optim, not {type(made).__name__}")
    return config(made)


def _probe() -> Floats:
    return np.empty((0, 1), np.float32)


def config(optimizer: Optimizer) -> dict[str, Any]:
    """The name and hyperparameters of an optimizer."""
    state = optimizer.state_dict()
    return {"name": type(optimizer).__name__} | {k: v for k, v in state.items() if k not in ("steps", "state")}


def make(given: Mapping[str, Any], table: Floats) -> Optimizer:
    """The optimizer of what `config` returned."""
    arguments = {key: value for key, value in given.items() if key != "name"}
    return _OURS[given["name"]](table, **arguments | {"options": StepOptions(**given["options"])})
