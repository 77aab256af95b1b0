"""A quantized PyTorch model, followed call by call, as layers of exact fixed-point types that hls4ml takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from accel_cli.errors import ConfigError, Problem
from accel_cli.export.fixed_point import Fixed

WHERE = "export=fpga"
QAT = "train it with compression=qat compression.passes.qat.power_of_two=true"


class Value(NamedTuple):
    """What a call gives: the layer that makes it, the numbers it can be, and its shape without the batch's."""

    layer: str
    fixed: Fixed
    shape: tuple[int, ...]
    image: tuple[int, ...] | None = None
    """Channels, height, width of an image that was flattened: hls4ml's has the channels last."""


Handler = Callable[["Walk", fx.Node, Value, Any], Value]
"""(walk, node, its first input, its module or None) -> its value."""


@dataclass
class Layers:
    """What hls4ml's ModelGraph takes, and what can be counted of it."""

    layers: list[dict[str, Any]] = field(default_factory=list)
    types: dict[str, dict[str, str]] = field(default_factory=dict)
    """Layer -> what of it -> type."""
    counted: list[dict[str, Any]] = field(default_factory=list)
    """Of each layer with weights: how many multiplications, and how many bits they have."""

    def add(self, name: str, kind: str, inputs: list[str], types: dict[str, Fixed], **attributes: Any) -> str:
        self.layers.append({"name": name, "class_name": kind, "inputs": inputs, **attributes})
        self.types[name] = {use: fixed.name for use, fixed in types.items()}
        return name


class Walk:
    """One pass over a traced model in its order; ``handlers`` make what has no weights, ``keeping`` keep all values."""

    def __init__(self, traced: fx.GraphModule, handlers: Mapping[Any, Handler], keeping: Collection[Handler]):
        self.modules = dict(traced.named_modules())
        self.handlers, self.keeping = handlers, keeping
        self.values: dict[fx.Node, Value] = {}
        self.result = Layers()

    def visit(self, node: fx.Node) -> None:
        if node.op == "output":
            self.finish(node)
        elif node.op == "placeholder":
            self.values[node] = self.input(node)
        else:
            module, first = self.module(node), node.args[0] if node.args else None
            handler = Walk.weighted if is_quantized(module) else self.handlers.get(self.target(node))
            if handler is None or not isinstance(first, fx.Node):
                raise self.unknown(node)
            self.values[node] = handler(self, node, self.values[first], module)

    def module(self, node: fx.Node) -> nn.Module | None:
        return self.modules[str(node.target)] if node.op == "call_module" else None

    def target(self, node: fx.Node) -> Any:
        """The module's type, the function, or the method's name."""
        return type(self.module(node)) if node.op == "call_module" else node.target

    def unknown(self, node: fx.Node) -> ConfigError:
        target = self.target(node)
        if target in (nn.Linear, nn.Conv2d, nn.BatchNorm2d, nn.BatchNorm1d):
            return refusal(f"{node.target} ({target.__name__}) computes in floating point", QAT)
        name = getattr(target, "__name__", str(target))
        where = f"{node.target} ({name})" if node.op == "call_module" else name
        fix = OTHERS.get(name, "try model=mlp or model=cnn with relu, pooling and nothing else between")
        return refusal(f"{where} has no fixed-point form here", fix)

    def shape(self, node: fx.Node) -> tuple[int, ...]:
        return tuple(node.meta["tensor_meta"].shape[1:])

    def add(self, kind: str, node: fx.Node, layer: str, inputs: list[str], types: dict[str, Fixed], **more: Any) -> str:
        """Another layer, with a name for C++; returns it."""
        return self.result.add(f"{kind}_{node.name.strip('_')}", layer, inputs, types, **more)

    def rounded(self, node: fx.Node, exact: Fixed) -> Fixed:
        """The type of a result: what the one quantizer behind it makes of it; else whatever it can be."""
        wanted = self.wanted(node)
        if wanted is None:
            return exact
        return replace(wanted, low=0) if exact.low >= 0 else wanted

    def wanted(self, node: fx.Node) -> Fixed | None:
        if len(node.users) != 1:
            return None
        user = next(iter(node.users))
        module = self.module(user)
        if is_quantized(module):
            return quantizer(module, str(user.target))
        return self.wanted(user) if self.handlers.get(self.target(user)) in self.keeping else None

    def ends(self, node: fx.Node) -> list[fx.Node]:
        """The first calls behind it that change its values."""
        found = []
        for user in node.users:
            found += self.ends(user) if self.handlers.get(self.target(user)) in self.keeping else [user]
        return found

    def input(self, node: fx.Node) -> Value:
        fixed = self.wanted(node)
        if self.result.layers:
            raise refusal(f"{node.name} is another input; one can be written", "make one tensor of them")
        if fixed is None:
            for user in self.ends(node):
                if not is_quantized(self.module(user)) and self.target(user) not in self.handlers:
                    raise self.unknown(user)
            raise refusal(f"{node.name} is not rounded by one quantized layer first", "begin with one layer of weights")
        shape = self.shape(node)
        last = [*shape[1:], shape[0]] if len(shape) == 3 else list(shape)
        return Value(self.add("input", node, "InputLayer", [], {"result": fixed}, input_shape=last), fixed, shape)

    def cast(self, node: fx.Node, value: Value, fixed: Fixed) -> Value:
        """The same value as other numbers."""
        size = math.prod(value.shape)
        types = {"result": fixed}
        name = self.add("quantize", node, "Activation", [value.layer], types, activation="linear", n_in=size)
        return value._replace(layer=name, fixed=fixed)

    def weighted(self, node: fx.Node, value: Value, module: Any) -> Value:
        """A quantized layer: its input through its quantizer, exact products, exact sums."""
        where = str(node.target)
        fixed = quantizer(module, where)
        if not fixed.holds(value.fixed):
            value = self.cast(node, value, fixed)
        weight, fraction, bias = numbers(module)
        sums = value.fixed.products(weight.flatten(1), fraction, bias)
        result = quantizer(module, where, "output") if module.scheme.rounds_output else self.rounded(node, sums)
        types = {"weight": Fixed.of(fraction, weight), "bias": Fixed.of(sums.fraction, bias)}
        types |= {"accum": sums, "result": result}
        data = {"bias_data": bias.double().ldexp(torch.tensor(-sums.fraction)).numpy(), "use_bias": True}
        exact = weight.double().ldexp(torch.tensor(-fraction))
        make = self.convolution if weight.dim() == 4 else self.dense
        made = Value(make(node, module, value, types, exact, data), result, self.shape(node))
        positions = math.prod(made.shape[1:])
        self.result.counted.append(
            {
                "layer": made.layer,
                "weights": weight.numel(),
                "nonzero_weights": int(weight.count_nonzero()),
                "multiplications": int(weight.count_nonzero()) * positions,
                "bits": {"input": value.fixed.width} | {use: types[use].width for use in ("weight", "bias", "accum")},
                "parameter_bits": weight.numel() * types["weight"].width + bias.numel() * types["bias"].width,
            }
        )
        return made

    def dense(self, node: fx.Node, module: Any, value: Value, types: Any, weight: Tensor, data: Any) -> str:
        if len(value.shape) != 1:
            raise refusal(f"{node.target} is a linear layer along one of several dimensions", "flatten before it")
        if value.image is not None:
            weight = weight.reshape(len(weight), *value.image).permute(0, 2, 3, 1).flatten(1)
        sizes = {"n_in": weight.shape[1], "n_out": weight.shape[0]}
        weights = weight.T.contiguous().numpy()
        return self.add("dense", node, "Dense", [value.layer], types, weight_data=weights, **sizes, **data)

    def convolution(self, node: fx.Node, module: Any, value: Value, types: Any, weight: Tensor, data: Any) -> str:
        plain = module.groups == 1 and set(module.dilation) == {1} and module.padding_mode == "zeros"
        if not plain or isinstance(module.padding, str):
            raise refusal(f"{node.target} has groups, dilation or padding by name", "use a convolution without")
        (channels, height, width), (made, down, along) = value.shape, self.shape(node)
        (over, beside), (stride, sideways) = module.padding, module.stride
        return self.add(
            "conv", node, "Conv2D", [value.layer], types, data_format="channels_last",
            in_height=height, in_width=width, n_chan=channels, out_height=down, out_width=along, n_filt=made,
            filt_height=weight.shape[2], filt_width=weight.shape[3], stride_height=stride, stride_width=sideways,
            pad_top=over, pad_bottom=max(0, (down - 1) * stride + weight.shape[2] - height - over),
            pad_left=beside, pad_right=max(0, (along - 1) * sideways + weight.shape[3] - width - beside),
            weight_data=weight.permute(2, 3, 1, 0).contiguous().numpy(), **data,
        )  # fmt: skip

    def finish(self, node: fx.Node) -> None:
        answer = node.args[0]
        if not isinstance(answer, fx.Node) or len(self.values[answer].shape) != 1 or self.values[answer].image:
            raise refusal("the model puts out something else than a row of numbers", "end it with a linear layer")


class Tracer(fx.Tracer):
    """Quantized modules are leaves, whatever they are made of."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return is_quantized(m) or super().is_leaf_module(m, module_qualified_name)


def layers_of(
    model: nn.Module, inputs: Tensor, handlers: Mapping[Any, Handler], keeping: Collection[Handler]
) -> Layers:
    """The layers of ``model`` for samples like ``inputs`` [n, ...]; images have their channels last.

    Raises ConfigError naming what hls4ml, or fixed point, does not have.
    """
    try:
        graph = Tracer().trace(model)
    except Exception as error:  # the model's own code, run on stand-ins, may raise anything
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise refusal(f"its forward cannot be followed: {said}", "let it not branch on its input") from error
    traced = fx.GraphModule(model, graph)
    ShapeProp(traced).propagate(inputs)
    walk = Walk(traced, handlers, keeping)
    for node in graph.nodes:
        walk.visit(node)
    return walk.result


def is_quantized(module: nn.Module | None) -> bool:
    return hasattr(module, "quantized_weight") and hasattr(module, "scheme")


def quantizer(module: Any, where: str, kind: str = "input") -> Fixed:
    """The numbers that a quantized layer's input, or output, is rounded to."""
    if not module.scheme.power_of_two or module.scheme.activations != "static":
        raise refusal(f"{where} is not quantized by fixed powers of two", QAT)
    scale, zero = float(getattr(module, f"{kind}_scale")), int(getattr(module, f"{kind}_zero_point"))
    return Fixed(1 - math.frexp(scale)[1], -zero, 2**module.activation_bits - 1 - zero, rounds=True)


@torch.no_grad()
def numbers(module: Any) -> tuple[Tensor, int, Tensor]:
    """(weights as integers of one fraction for all, that fraction, biases as integers in units of the layer's sums)."""
    weight = module.quantized_weight().double()
    rows = weight.flatten(1).abs().amax(1) > 0
    scales = module.weight_scale().double().reshape(len(weight), -1).amin(1)[rows]
    smallest = float(scales.min()) if scales.numel() else 1.0
    bias = weight.new_zeros(len(weight)) if module.bias is None else module.quantized_bias().double()
    whole = (bias / (smallest * module.input_scale.double())).round().long()
    return (weight / smallest).round().long(), 1 - math.frexp(smallest)[1], whole


def refusal(why: str, fix: str) -> ConfigError:
    return ConfigError(Problem(WHERE, why, fix))


OTHERS = {
    **dict.fromkeys(("GELU", "SiLU", "Tanh"), "try model.activation=relu in training"),
    "GroupNorm": "try model.normalisation=batch in training",
}
"""What to train with instead."""
