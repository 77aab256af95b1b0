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
        if config.mode != "weight_only":
            return Scheme(config.bits, activations=config.mode)
        if isinstance(layer, nn.Linear):
            return Scheme(config.bits, activations="none", group_size=config.group_size)
        # Runtimes have no convolution of packed weights.
        return Scheme(8, activations="none")

    def says(self) -> str:
        bits, mode = self.config.bits, self.config.mode
        if mode == "weight_only":
            return f"weights of {bits} bits" + (", convolutions of 8" if bits != 8 else "")
        how = "calibrated" if mode == "static" else "their own"
        return f"weights of {bits} bits and inputs of 8, by {how} ranges"
