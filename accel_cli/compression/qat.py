"""Quantization during training: from some step on the model learns with rounded weights and rounded inputs."""

from __future__ import annotations

from torch import nn

from accel_cli.compression.quantization import Quantization
from accel_cli.compression.quantized import Scheme
from accel_cli.config.schema.compression import QAT as Config


class QAT(Quantization):
    """Gradients pass the rounding as if it were not there; Jacob et al. 2018, arXiv:1712.05877, section 3.

    BatchNorms are folded when it begins, and ranges of inputs stay as calibrated: so early in training neither fits.
    """

    config: Config

    def borders(self, steps: int) -> tuple[int, ...]:
        return (min(round(steps * self.config.start), steps - 1),)

    def scheme(self, layer: nn.Module) -> Scheme:
        config = self.config
        return Scheme(config.weight_bits, config.activation_bits, power_of_two=config.power_of_two)

    def says(self) -> str:
        scales = ", in steps that are powers of two" if self.config.power_of_two else ""
        return f"weights of {self.config.weight_bits} bits and inputs of {self.config.activation_bits}{scales}"
