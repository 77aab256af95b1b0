"""A quantized PyTorch model as the list of layers, each of exact fixed-point types, that hls4ml builds a project from."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn import functional

from accel_cli.errors import ConfigError, Problem
from accel_cli.export.fixed_point import Fixed, integers, units

QAT = "try compression=qat compression.passes.qat.power_of_two=true in training"


class Value(NamedTuple):
    """What an operation gives: the layer that makes it, the numbers it can be, and its shape without the batch's."""

    layer: str
    fixed: Fixed
    shape: tuple[int, ...]
    image: tuple[int, int, int] | None = None
    """Channels, height, width of an image that has been flattened: hls4ml flattens it with the channels last."""


@dataclass
class Layers:
    """What hls4ml's ModelGraph takes, and what can be counted of it."""

    layers: list[dict[str, Any]] = field(default_factory=list)
    types: dict[str, dict[str, str]] = field(default_factory=dict)
    """Layer -> its types, by hls4ml's names of them."""
    counted: list[dict[str, Any]] = field(default_factory=list)
    """Layer by layer: multiplications of a sample, weights and their bits, the width of what they meet and of sums."""
    rounded: list[str] = field(default_factory=list)
    """Layers whose biases were no multiples of the unit of their sums, and have been rounded to it."""

    def add(self, name: str, kind: str, inputs: list[str], types: dict[str, Fixed], **attributes: Any) -> str:
        self.layers.append({"name": name, "class_name": kind, "inputs": inputs, **attributes})
        self.types[name] = {use: fixed.name for use, fixed in types.items()}
        return name


class Tracer(fx.Tracer):
    """Quantized modules are leaves, whatever they are made of."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return is_quantized(m) or super().is_leaf_module(m, module_qualified_name)


def is_quantized(module: nn.Module | None) -> bool:
    return hasattr(module, "weight_bits") and hasattr(module, "input_scale")


def layers_of(model: nn.Module, inputs: Tensor) -> Layers:
    """The layers of ``model`` for samples like ``inputs`` [n, ...]; images become channels last.

    Raises ConfigError naming the operation that hls4ml, or fixed point, does not have.
    """
    try:
        graph = Tracer().trace(model)
    except Exception as error:  # the user's own code runs on proxies: anything may come of it
        why = f"its forward cannot be traced: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        raise ConfigError(Problem("format=fpga", why, "write it without branches on the data")) from error
    traced = fx.GraphModule(model, graph)
    ShapeProp(traced).propagate(inputs[:2])
    walk = Walk(traced)
    for node in graph.nodes:
        walk.visit(node)
    return walk.result


class Walk:
    """One pass over the traced graph, in its order."""

    def __init__(self, traced: fx.GraphModule):
        self.modules = dict(traced.named_modules())
        self.values: dict[fx.Node, Value] = {}
        self.result = Layers()

    def module(self, node: fx.Node) -> nn.Module | None:
        return self.modules[str(node.target)] if node.op == "call_module" else None

    def visit(self, node: fx.Node) -> None:
        if node.op == "output":
            return self.finish(node)
        module = self.module(node)
        if node.op == "placeholder":
            self.values[node] = self.input(node)
        elif is_quantized(module):
            self.values[node] = self.quantized(node, module)
        else:
            self.values[node] = self.handler(node)(self, node, module)
        return None

    def handler(self, node: fx.Node) -> Callable[[Walk, fx.Node, Any], Value]:
        target = type(self.module(node)) if node.op == "call_module" else node.target
        if node.op in ("call_module", "call_function", "call_method") and target in HANDLERS:
            return HANDLERS[target]
        if target in (nn.Linear, nn.Conv2d):
            raise refusal(node, f"the weights of {node.target} are not quantized", QAT)
        name = getattr(target, "__name__", str(target))
        what = f"{name} ({node.target})" if node.op == "call_module" else name
        raise refusal(node, f"has no {what} in fixed point", FIXES.get(name, "try model=mlp or model=cnn"))

    def shape(self, node: fx.Node) -> tuple[int, ...]:
        return tuple(node.meta["tensor_meta"].shape[1:])

    def name(self, kind: str, node: fx.Node) -> str:
        return f"{kind}_{node.name.strip('_')}"

    def wanted(self, node: fx.Node) -> Fixed | None:
        """What the one quantizer behind this operation makes of its numbers, where there is just one."""
        if len(node.users) != 1:
            return None
        user = next(iter(node.users))
        module = self.module(user)
        if is_quantized(module):
            return quantizer(module, user)
        keeps = user.op != "output" and HANDLERS.get(type(module) if module is not None else user.target) in KEEPING
        return self.wanted(user) if keeps else None

    def result_of(self, node: fx.Node, exact: Fixed) -> Fixed:
        """The type of an operation's result: what the quantizer behind it wants, else as many bits as it takes."""
        wanted = self.wanted(node)
        if wanted is None:
            return exact
        return replace(wanted, low=0) if exact.low >= 0 and wanted.low < 0 else wanted

    def input(self, node: fx.Node) -> Value:
        fixed = self.wanted(node)
        if self.result.layers or fixed is None:
            why = "takes one input, and a quantized layer has to be the first to meet it"
            raise refusal(node, why, QAT)
        shape = self.shape(node)
        name = self.result.add(
            self.name("input", node), "InputLayer", [], {"result": fixed}, input_shape=channels_last(shape)
        )
        return Value(name, fixed, shape)

    def quantized(self, node: fx.Node, module: Any) -> Value:
        """A linear layer or convolution: its input through its quantizer, exact sums of exact products."""
        value = self.values[node.args[0]]
        fixed = quantizer(module, node)
        if (value.fixed.fraction, value.fixed.high) != (fixed.fraction, fixed.high) or value.fixed.low < fixed.low:
            name = self.result.add(
                self.name("quantize", node), "Activation", [value.layer], {"result": fixed}, activation="linear",
                n_in=math.prod(value.shape),
            )  # fmt: skip
            value = value._replace(layer=name, fixed=fixed)
        weight = module.qw().detach()
        fraction = units(weight)
        whole = integers(weight, fraction).flatten(1)
        bias = module.qb()
        bias = torch.zeros(len(whole)) if bias is None else bias.detach()
        unit = fraction + value.fixed.fraction
        summands = integers(bias, unit)
        if not torch.equal(summands.double() * 2.0**-unit, bias.double()):
            self.result.rounded.append(str(node.target))
        in_sums = replace(value.fixed, fraction=unit)
        sums = in_sums.dot(whole, summands)
        types = {
            "weight": Fixed(fraction, min(0, int(whole.min())), max(0, int(whole.max()))),
            "bias": Fixed(unit, min(0, int(summands.min())), max(0, int(summands.max()))),
            "accum": sums,
            "result": self.result_of(node, sums),
        }
        values = {"bias_data": (summands.double() * 2.0**-unit).numpy(), "use_bias": True}
        if weight.dim() == 4:
            made = self.convolution(node, module, value, types, weight, values)
        else:
            made = self.dense(node, value, types, weight, values)
        positions = math.prod(made.shape[1:])
        self.result.counted.append(
            {
                "layer": made.layer,
                "multiplications": whole.numel() * positions,
                "multiplications_by_nonzero": int(whole.count_nonzero()) * positions,
                "weights": whole.numel(),
                "weight_bits": whole.numel() * types["weight"].width,
                "bias_bits": len(whole) * types["bias"].width,
                "widths": {"input": value.fixed.width, "weight": types["weight"].width, "sum": sums.width},
            }
        )
        return made

    def dense(self, node: fx.Node, value: Value, types: dict[str, Fixed], weight: Tensor, values: Any) -> Value:
        if len(value.shape) != 1:
            raise refusal(node, f"{node.target} is a linear layer over {len(value.shape)} dimensions", "flatten first")
        if value.image is not None:
            weight = weight.reshape(len(weight), *value.image).permute(0, 2, 3, 1).flatten(1)
        name = self.result.add(
            self.name("dense", node), "Dense", [value.layer], types,
            n_in=weight.shape[1], n_out=weight.shape[0], weight_data=weight.double().T.contiguous().numpy(), **values,
        )  # fmt: skip
        return Value(name, types["result"], (len(weight),))

    def convolution(
        self, node: fx.Node, module: Any, value: Value, types: dict[str, Fixed], weight: Tensor, values: Any
    ) -> Value:
        plain = module.groups == 1 and set(module.dilation) == {1} and module.padding_mode == "zeros"
        if not plain or isinstance(module.padding, str):
            raise refusal(node, f"{node.target} has groups, dilation or padding by name", "use a plain convolution")
        channels, height, width = value.shape
        shape = self.shape(node)
        (up, left), (down, right) = module.padding, (
            max(0, (shape[1] - 1) * module.stride[0] + weight.shape[2] - height - module.padding[0]),
            max(0, (shape[2] - 1) * module.stride[1] + weight.shape[3] - width - module.padding[1]),
        )  # fmt: skip
        name = self.result.add(
            self.name("conv", node), "Conv2D", [value.layer], types, data_format="channels_last",
            in_height=height, in_width=width, n_chan=channels,
            out_height=shape[1], out_width=shape[2], n_filt=shape[0],
            filt_height=weight.shape[2], filt_width=weight.shape[3],
            stride_height=module.stride[0], stride_width=module.stride[1],
            pad_top=up, pad_bottom=down, pad_left=left, pad_right=right,
            weight_data=weight.double().permute(2, 3, 1, 0).contiguous().numpy(), **values,
        )  # fmt: skip
        return Value(name, types["result"], shape)

    def kept(self, node: fx.Node, module: Any) -> Value:
        return self.values[node.args[0]]  # type: ignore[index]

    def flattened(self, node: fx.Node, module: Any) -> Value:
        value = self.values[node.args[0]]  # type: ignore[index]
        shape = self.shape(node)
        if shape == value.shape:
            return value
        if len(shape) != 1:
            raise refusal(node, f"{node.name} reshapes {value.shape} to {shape}", "flatten to one dimension only")
        name = self.result.add(
            self.name("flat", node), "Reshape", [value.layer], {"result": value.fixed}, target_shape=list(shape)
        )
        image = value.shape if len(value.shape) == 3 and math.prod(value.shape[1:]) > 1 else None
        return Value(name, value.fixed, shape, image)  # type: ignore[arg-type]

    def relu(self, node: fx.Node, module: Any) -> Value:
        value = self.values[node.args[0]]  # type: ignore[index]
        fixed = self.result_of(node, value.fixed.relu())
        name = self.result.add(
            self.name("relu", node), "Activation", [value.layer], {"result": fixed}, activation="relu",
            n_in=math.prod(value.shape),
        )  # fmt: skip
        return value._replace(layer=name, fixed=fixed)

    def max_pool(self, node: fx.Node, module: Any) -> Value:
        value = self.values[node.args[0]]  # type: ignore[index]
        if module.padding not in (0, (0, 0)) or module.dilation not in (1, (1, 1)) or module.ceil_mode:
            raise refusal(node, f"{node.target} pools with padding, dilation or ceil_mode", "use a plain nn.MaxPool2d")
        return self.pool(node, module, value, "MaxPooling2D", {"result": value.fixed, "accum": value.fixed})

    def average_pool(self, node: fx.Node, module: Any) -> Value:
        value = self.values[node.args[0]]  # type: ignore[index]
        if module.padding not in (0, (0, 0)) or module.ceil_mode or module.divisor_override:
            raise refusal(node, f"{node.target} pools with padding or ceil_mode", "use a plain nn.AvgPool2d")
        total, mean = value.fixed.mean(math.prod(pair(module.kernel_size)))
        return self.pool(
            node, module, value, "AveragePooling2D", {"result": self.result_of(node, mean), "accum": total}
        )

    def pool(self, node: fx.Node, module: Any, value: Value, kind: str, types: dict[str, Fixed]) -> Value:
        (high, wide), (down, along) = pair(module.kernel_size), pair(module.stride)
        shape = self.shape(node)
        name = self.result.add(
            self.name("pool", node), kind, [value.layer], types, data_format="channels_last",
            in_height=value.shape[1], in_width=value.shape[2], n_filt=shape[0],
            out_height=shape[1], out_width=shape[2], pool_height=high, pool_width=wide,
            stride_height=down, stride_width=along,
            pad_top=0, pad_bottom=0, pad_left=0, pad_right=0, count_pad=False,
        )  # fmt: skip
        return Value(name, types["result"], shape)

    def mean(self, node: fx.Node, module: Any) -> Value:
        """The mean over the space of an image, by whatever name."""
        value = self.values[node.args[0]]  # type: ignore[index]
        shape = self.shape(node)
        if len(value.shape) != 3 or math.prod(shape) != value.shape[0]:
            raise refusal(node, f"{node.name} is a mean that is not over height and width", "try model=cnn")
        total, mean = value.fixed.mean(math.prod(value.shape[1:]))
        types = {"result": self.result_of(node, mean), "accum": total}
        name = self.result.add(
            self.name("mean", node), "GlobalAveragePooling2D", [value.layer], types, data_format="channels_last",
            in_height=value.shape[1], in_width=value.shape[2], n_filt=shape[0], keepdims=False,
        )  # fmt: skip
        return Value(name, types["result"], shape)

    def plus(self, node: fx.Node, module: Any) -> Value:
        if not all(isinstance(part, fx.Node) for part in node.args[:2]):
            raise refusal(node, f"{node.name} adds a constant", "leave it out")
        one, two = (self.values[part] for part in node.args[:2])  # type: ignore[index]
        if one.shape != two.shape or one.image != two.image:
            raise refusal(node, f"{node.name} adds {one.shape} and {two.shape}", "add what has the same shape")
        fixed = self.result_of(node, one.fixed.plus(two.fixed))
        name = self.result.add(self.name("add", node), "Merge", [one.layer, two.layer], {"result": fixed}, op="add")
        return one._replace(layer=name, fixed=fixed)

    def finish(self, node: fx.Node) -> None:
        answer = node.args[0]
        if not isinstance(answer, fx.Node) or len(self.values[answer].shape) != 1 or self.values[answer].image:
            raise refusal(node, "puts out something else than one row of numbers", "try model=mlp or model=cnn")


def quantizer(module: Any, node: fx.Node) -> Fixed:
    """The numbers that a quantized module's input is rounded to."""
    scale, zero = float(module.input_scale), int(module.input_zero_point)
    mantissa, exponent = math.frexp(scale)
    if not module.power_of_two or mantissa != 0.5 or zero != 0:
        raise refusal(node, f"the scales of {node.target} are no powers of two", QAT)
    low, high = module.limits()
    return Fixed(1 - exponent, low, high, rounds=True)


def refusal(node: fx.Node, why: str, fix: str) -> ConfigError:
    return ConfigError(Problem("format=fpga", why, fix))


def channels_last(shape: tuple[int, ...]) -> list[int]:
    return [*shape[1:], shape[0]] if len(shape) == 3 else list(shape)


def pair(value: Any) -> tuple[int, int]:
    return (value[0], value[1]) if isinstance(value, tuple | list) else (value, value)


HANDLERS: dict[Any, Callable[[Walk, fx.Node, Any], Value]] = {
    **dict.fromkeys((nn.Dropout, nn.Dropout2d, nn.Identity, functional.dropout, "contiguous"), Walk.kept),
    **dict.fromkeys((nn.Flatten, torch.flatten, "flatten", "view", "reshape", "squeeze"), Walk.flattened),
    **dict.fromkeys((nn.ReLU, functional.relu, torch.relu, "relu"), Walk.relu),
    nn.MaxPool2d: Walk.max_pool,
    nn.AvgPool2d: Walk.average_pool,
    **dict.fromkeys((nn.AdaptiveAvgPool2d, functional.adaptive_avg_pool2d, torch.mean, "mean"), Walk.mean),
    **dict.fromkeys((operator.add, operator.iadd, torch.add), Walk.plus),
}
KEEPING = (Walk.kept, Walk.flattened, Walk.max_pool)
"""Operations that may as well be done behind a quantizer as before it."""
FIXES = {
    **dict.fromkeys(("GELU", "SiLU", "Tanh"), "try model.activation=relu in training"),
    "GroupNorm": "try model.normalisation=batch in training",
    "BatchNorm2d": QAT,
}
