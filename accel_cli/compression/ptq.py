"""Quantization after training: the weights stay what they are, and are stored as integers."""

from __future__ import annotations

from torch import nn

from accel_cli.compression.quantization import Quantization
from accel_cli.compression.quantized import Scheme
from accel_cli.config.schema.compression import PTQ as Config


class PTQ(Quantization):
    """Static, dynamic, or of the weights alone; Nagel et al. 2021, arXiv:2106.08295, section 3."""

    config: Config

    def borders(self, steps: int) -> tuple[int, ...]:
        return (steps,)

    def scheme(self, layer: nn.Module) -> Scheme:
        config = self.config
        is_linear = isinstance(layer, nn.Linear)
        if config.mode == "static":
            return Scheme(8)
        if config.mode == "dynamic":
            # Runtimes are slow at convolutions of integers whose scale is not known beforehand.
            return Scheme(8, activations="dynamic" if is_linear else "none")
        packed = is_linear and config.bits == 4
        return Scheme(4, activations="none", group_size=config.group_size) if packed else Scheme(8, activations="none")

    def says(self) -> str:
        config = self.config
        if config.mode == "static":
            return "weights of 8 bits and inputs of 8, by calibrated ranges"
        if config.mode == "dynamic":
            return "weights of 8 bits and, if linear, inputs of 8 by their own range"
        return f"weights of {config.bits} bits" + (", convolutions of 8" if config.bits != 8 else "")
