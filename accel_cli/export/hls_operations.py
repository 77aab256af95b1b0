"""What stands between the layers with weights: activations, pooling, sums and shapes, as hls4ml has them."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from accel_cli.export.fixed_point import Fixed
from accel_cli.export.hls_layers import Handler, Layers, Value, Walk, layers_of, refusal

NARROW_MEANS = ("Quartus", "Catapult")
"""Backends whose mean is of its input's own type, and right only for signed numbers that do not saturate."""


def hls_layers(model: nn.Module, inputs: Tensor, backend: str) -> Layers:
    """The layers of ``model`` for ``backend``. Raises ConfigError naming what hls4ml, or fixed point, does not have."""
    means = partial(mean, widened=backend in NARROW_MEANS)
    averages = partial(average_pool, widened=backend in NARROW_MEANS)
    handlers: Mapping[Any, Handler] = {
        **HANDLERS,
        nn.AvgPool2d: averages,
        **dict.fromkeys((nn.AdaptiveAvgPool2d, functional.adaptive_avg_pool2d, torch.mean, "mean"), means),
    }
    return layers_of(model, inputs, handlers, KEEPING)


def same(walk: Walk, node: fx.Node, value: Value, module: Any) -> Value:
    return value


def flatten(walk: Walk, node: fx.Node, value: Value, module: Any) -> Value:
    shape = walk.shape(node)
    if shape == value.shape:
        return value
    if len(shape) != 1:
        raise refusal(f"{node.name} makes {list(shape)} of {list(value.shape)}", "flatten all, or try model=cnn")
    name = walk.add("flat", node, "Reshape", [value.layer], {"result": value.fixed}, target_shape=list(shape))
    return Value(name, value.fixed, shape, value.shape if math.prod(value.shape[1:]) > 1 else None)


def relu(walk: Walk, node: fx.Node, value: Value, module: Any) -> Value:
    fixed = walk.rounded(node, value.fixed.relu())
    types, size = {"result": fixed}, math.prod(value.shape)
    name = walk.add("relu", node, "Activation", [value.layer], types, activation="relu", n_in=size)
    return value._replace(layer=name, fixed=fixed)


def max_pool(walk: Walk, node: fx.Node, value: Value, module: Any) -> Value:
    if pair(module.dilation) != (1, 1):
        raise refusal(f"{node.target} pools with dilation", "use an nn.MaxPool2d without")
    return pool(walk, node, value, module, "MaxPooling2D", {"result": value.fixed, "accum": value.fixed})


def average_pool(walk: Walk, node: fx.Node, value: Value, module: Any, *, widened: bool) -> Value:
    value, types = averaged(walk, node, value, math.prod(pair(module.kernel_size)), widened)
    return pool(walk, node, value, module, "AveragePooling2D", types)


def pool(walk: Walk, node: fx.Node, value: Value, module: Any, kind: str, types: dict[str, Fixed]) -> Value:
    if pair(module.padding) != (0, 0) or module.ceil_mode or getattr(module, "divisor_override", None):
        raise refusal(f"{node.target} pools with padding, ceil_mode or a divisor", "use a pooling without")
    (high, wide), (down, along) = pair(module.kernel_size), pair(module.stride)
    shape = walk.shape(node)
    name = walk.add(
        "pool", node, kind, [value.layer], types, data_format="channels_last",
        in_height=value.shape[1], in_width=value.shape[2], n_filt=shape[0], out_height=shape[1], out_width=shape[2],
        pool_height=high, pool_width=wide, stride_height=down, stride_width=along,
        pad_top=0, pad_bottom=0, pad_left=0, pad_right=0, count_pad=False,
    )  # fmt: skip
    return Value(name, types["result"], shape)


def mean(walk: Walk, node: fx.Node, value: Value, module: Any, *, widened: bool) -> Value:
    """Over the space of an image, by whatever name."""
    shape = walk.shape(node)
    if len(value.shape) != 3 or math.prod(shape) != value.shape[0] or shape[0] != value.shape[0]:
        raise refusal(f"{node.name} is a mean over something else than height and width", "try x.mean(dim=(2, 3))")
    value, types = averaged(walk, node, value, math.prod(value.shape[1:]), widened)
    name = walk.add(
        "mean", node, "GlobalAveragePooling2D", [value.layer], types, data_format="channels_last",
        in_height=value.shape[1], in_width=value.shape[2], n_filt=shape[0], keepdims=False,
    )  # fmt: skip
    return Value(name, types["result"], shape)


def averaged(walk: Walk, node: fx.Node, value: Value, count: int, widened: bool) -> tuple[Value, dict[str, Fixed]]:
    """What goes into a mean of so many, and its types."""
    total, exact = value.fixed.mean(count)
    if widened:
        value = walk.cast(node, value, Fixed(exact.fraction, min(exact.low, -1), exact.high))
    return value, {"result": walk.rounded(node, exact), "accum": total}


def add(walk: Walk, node: fx.Node, value: Value, module: Any) -> Value:
    if not all(isinstance(part, fx.Node) for part in node.args[:2]):
        raise refusal(f"{node.name} adds a constant", "leave it to a layer's bias")
    other = walk.values[node.args[1]]  # type: ignore[index]
    if (value.shape, value.image) != (other.shape, other.image):
        raise refusal(f"{node.name} adds {list(value.shape)} and {list(other.shape)}", "add what has the same shape")
    fixed = walk.rounded(node, value.fixed.plus(other.fixed))
    name = walk.add("add", node, "Merge", [value.layer, other.layer], {"result": fixed}, op="add")
    return value._replace(layer=name, fixed=fixed)


def pair(value: Any) -> tuple[int, int]:
    return (value[0], value[1]) if isinstance(value, tuple | list) else (value, value)


HANDLERS: Mapping[Any, Handler] = {
    **dict.fromkeys((nn.Dropout, nn.Dropout2d, nn.Identity, functional.dropout, "contiguous"), same),
    **dict.fromkeys((nn.Flatten, torch.flatten, "flatten", "view", "reshape", "squeeze"), flatten),
    **dict.fromkeys((nn.ReLU, functional.relu, torch.relu, "relu"), relu),
    nn.MaxPool2d: max_pool,
    **dict.fromkeys((operator.add, operator.iadd, torch.add, "add"), add),
}
KEEPING = (same, flatten, max_pool)
"""These may as well come behind a quantizer as before it."""
