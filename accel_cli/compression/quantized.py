"""Linear and convolution layers that compute as integers would: with rounded weights and rounded inputs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

SMALLEST = torch.finfo(torch.float32).tiny * 2**20
"""A scale below which dividing by it overflows: that of a channel of zeros."""
ROUNDED = ("static", "dynamic", "none")


@dataclass(frozen=True)
class Scheme:
    """How the numbers of a layer are rounded."""

    weight_bits: int
    activation_bits: int = 8
    activations: str = "static"
    """``static``: by ranges that calibration found; ``dynamic``: by the range of each input; ``none``: as they are."""
    group_size: int | None = None
    """Weights along the input that share a scale; None: all those of an output channel."""
    power_of_two: bool = False
    """Scales are powers of two and zero points those of fixed-point numbers: 0, or half the range for signed ones."""
    rounds_output: bool = False
    """Whether the output is rounded too, where what follows reads it in another way than as a rounded input."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def scale_of(largest: Tensor, levels: int, power_of_two: bool) -> Tensor:
    """The step with which ``levels`` of them reach ``largest`` (fp32)."""
    scale = (largest.float() / levels).clamp_min(SMALLEST)
    return torch.exp2(torch.ceil(torch.log2(scale))) if power_of_two else scale


def affine(low: Tensor, high: Tensor, bits: int, power_of_two: bool) -> tuple[Tensor, Tensor]:
    """Scale (fp32) and zero point (int32) with which 0 .. 2^bits - 1 cover low .. high, and zero exactly.

    Jacob et al. 2018, arXiv:1712.05877, section 2.1.
    """
    low, high = low.float().clamp_max(0), high.float().clamp_min(0)
    top = 2**bits - 1
    if power_of_two:
        half = 2 ** (bits - 1)
        signed = low < 0
        needed = torch.maximum(-low / half, high / (half - 1))
        scale = scale_of(torch.where(signed, needed, high / top), 1, True)
        return scale, torch.where(signed, half, 0).to(torch.int32)
    scale = scale_of(high - low, top, False)
    return scale, (-low / scale).round().clamp(0, top).to(torch.int32)


def fake(values: Tensor, scale: Tensor, zero_point: Tensor, bits: int) -> Tensor:
    """Rounded to what 0 .. 2^bits - 1 stand for; the gradient passes where nothing was cut (straight-through)."""
    rounded = torch.fake_quantize_per_tensor_affine(values.float(), scale, zero_point, 0, 2**bits - 1)
    return rounded.to(values.dtype)


class Quantized(nn.Module):
    """What the quantized layers share. Weights are symmetric per output channel, inputs affine per tensor.

    The parameters keep their names and their full precision; the scale of the weights follows them in every forward.
    Ranges of inputs are buffers, found once by calibration, so that ranks agree and nothing drifts.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None
    input_scale: Tensor
    input_zero_point: Tensor
    output_scale: Tensor
    output_zero_point: Tensor

    def arrange(self, layer: nn.Module, scheme: Scheme) -> None:
        """Take over the parameters of ``layer``, and make room for the ranges."""
        self.scheme = scheme
        self.weight = cast(nn.Parameter, layer.weight)
        self.bias = cast("nn.Parameter | None", layer.bias)
        self.train(layer.training)
        device = self.weight.device
        for kind, present in (("input", scheme.activations == "static"), ("output", scheme.rounds_output)):
            if present:
                self.register_buffer(f"{kind}_scale", torch.ones((), device=device))
                self.register_buffer(f"{kind}_zero_point", torch.zeros((), dtype=torch.int32, device=device))

    @property
    def weight_bits(self) -> int:
        return self.scheme.weight_bits

    @property
    def activation_bits(self) -> int:
        return self.scheme.activation_bits

    @property
    def levels(self) -> int:
        """The largest integer of a weight; the smallest is its negative."""
        return int(2 ** (self.weight_bits - 1) - 1)

    @torch.no_grad()
    def calibrate(self, kind: str, low: Tensor, high: Tensor) -> None:
        """Set the range of the ``input`` or the ``output``."""
        scale, zero_point = affine(low, high, self.activation_bits, self.scheme.power_of_two)
        getattr(self, f"{kind}_scale").copy_(scale)
        getattr(self, f"{kind}_zero_point").copy_(zero_point)

    def grouped(self) -> Tensor:
        """The weights, those that share a scale in a row: [rows, n], a last group filled up with zeros."""
        weight, size = self.weight.float().flatten(1), self.scheme.group_size
        if size is None:
            return weight
        return functional.pad(weight, (0, -weight.shape[1] % size)).reshape(-1, size)

    @torch.no_grad()
    def weight_scale(self) -> Tensor:
        """fp32 [out], or [out * groups] where groups share a scale."""
        return scale_of(self.grouped().abs().amax(1), self.levels, self.scheme.power_of_two)

    def quantized_weight(self) -> Tensor:
        """The weights as the integers stand for them, in the weight's type and shape; differentiable."""
        scale = self.weight_scale()
        zeros = torch.zeros_like(scale, dtype=torch.int32)
        rows = torch.fake_quantize_per_channel_affine(self.grouped(), scale, zeros, 0, -self.levels, self.levels)
        if self.scheme.group_size is not None:
            rows = rows.reshape(self.weight.shape[0], -1)[:, : self.weight[0].numel()]
        return rows.reshape(self.weight.shape).to(self.weight.dtype)

    @torch.no_grad()
    def integer_weight(self) -> Tensor:
        """The integers themselves, int8 [rows, n] as ``grouped`` has them."""
        rounded = (self.grouped() / self.weight_scale()[:, None]).round()
        return rounded.clamp(-self.levels, self.levels).to(torch.int8)

    def quantized_input(self, inputs: Tensor) -> Tensor:
        if self.scheme.activations == "none":
            return inputs
        if self.scheme.activations == "dynamic":
            low, high = torch.aminmax(inputs.detach())
            scale, zero_point = affine(low, high, self.activation_bits, self.scheme.power_of_two)
            return fake(inputs, scale, zero_point, self.activation_bits)
        return fake(inputs, self.input_scale, self.input_zero_point, self.activation_bits)

    def quantized_output(self, output: Tensor) -> Tensor:
        if not self.scheme.rounds_output:
            return output
        return fake(output, self.output_scale, self.output_zero_point, self.activation_bits)

    @property
    def stored_bytes(self) -> int:
        """What its parameters and buffers take when the weights are stored as integers, packed."""
        scales = self.grouped().shape[0] if self.weight.numel() else 0
        rest = [*([self.bias] if self.bias is not None else []), *self.buffers()]
        return (
            -(-self.weight.numel() * self.weight_bits // 8)
            + 4 * scales
            + sum(t.numel() * t.element_size() for t in rest)
        )


class QuantizedLinear(Quantized, nn.Linear):
    """[..., in] -> [..., out]"""

    def forward(self, inputs: Tensor) -> Tensor:
        output = functional.linear(self.quantized_input(inputs), self.quantized_weight(), self.bias)
        return self.quantized_output(output)


class QuantizedConv1d(Quantized, nn.Conv1d):
    """[n, in, length] -> [n, out, length]"""

    def forward(self, inputs: Tensor) -> Tensor:
        return self.quantized_output(
            self._conv_forward(self.quantized_input(inputs), self.quantized_weight(), self.bias)
        )


class QuantizedConv2d(Quantized, nn.Conv2d):
    """[n, in, height, width] -> [n, out, height, width]"""

    def forward(self, inputs: Tensor) -> Tensor:
        return self.quantized_output(
            self._conv_forward(self.quantized_input(inputs), self.quantized_weight(), self.bias)
        )


KINDS: dict[type[nn.Module], type[Quantized]] = {
    nn.Linear: QuantizedLinear,
    nn.Conv1d: QuantizedConv1d,
    nn.Conv2d: QuantizedConv2d,
}
"""Layers of exactly these types; one of a subclass may compute something else."""


def quantized(layer: nn.Module, scheme: Scheme) -> Quantized:
    """The layer around the same parameters, rounded as ``scheme`` says; its ranges are still to be calibrated."""
    kind: Any = KINDS[type(layer)]
    has_bias = layer.bias is not None
    made: Quantized
    if isinstance(layer, nn.Linear):
        made = kind(layer.in_features, layer.out_features, bias=has_bias, device="meta")
    else:
        shape = {name: getattr(layer, name) for name in SHAPE_OF_CONVOLUTION}
        made = kind(**shape, bias=has_bias, device="meta")
    made.arrange(layer, scheme)
    return made


SHAPE_OF_CONVOLUTION = (
    "in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode",
)  # fmt: skip
