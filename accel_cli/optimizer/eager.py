"""Optimizers without the compiler that torch's own wrappers around them import: 2 s at the start of a run."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from types import MethodType

import torch
from torch.optim import Optimizer

COMPILER = "torch._dynamo"


def eager(build: Callable[[], Optimizer]) -> Optimizer:
    """The optimizer that ``build`` makes; where no compiler was imported, its step is the function as it was written.

    ``Optimizer.add_param_group`` and every ``step`` of torch import the compiler, to tell it not to look at them. A run
    that compiles has imported it before its optimizer is built: then they stay as they are.
    """
    if COMPILER in sys.modules:
        return build()
    for method in vars(Optimizer).values():
        written = getattr(method, "__wrapped__", None)
        if written is not None:
            written.__dynamo_disable = written  # where torch keeps what it has told the compiler
    optimizer = build()
    for part in getattr(optimizer, "parts", (optimizer,)):
        if type(part).__module__.startswith("torch.optim."):
            part.step = MethodType(torch.no_grad()(inspect.unwrap(type(part).step)), part)  # type: ignore[method-assign]
    return optimizer
