"""float8 matrix products with a scale for every 32 elements, by torchao; everything else as in bf16."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchao.float8.float8_linear_utils import swap_linear_layers
from torchao.prototype.moe_training.mxfp8_linear import MXFP8Linear, _to_mxfp8_then_scaled_mm
from torchao.quantization.quantize_.common import KernelPreference

from accel_cli.precision.fp8 import FP8

BLOCK = 32
"""Elements that share a scale."""


class Linear(MXFP8Linear):
    """torchao's layer, for weights in fp32 and any number of samples."""

    def forward(self, input: Tensor) -> Tensor:
        """[..., inputs] -> [..., outputs] in bf16. The weight's gradient sums over blocks of samples: zeros fill up."""
        samples = input.reshape(-1, self.in_features).to(torch.bfloat16)
        missing = -len(samples) % BLOCK
        filled = functional.pad(samples, (0, 0, 0, missing)) if missing else samples
        with torch.autocast(input.device.type, enabled=False):
            output = _to_mxfp8_then_scaled_mm(
                filled, self.weight.to(filled.dtype), self.kernel_preference, self.scale_calculation_mode
            )
        output = output[: len(samples)].view(*input.shape[:-1], self.out_features)
        return output if self.bias is None else output + self.bias.to(output.dtype)


class MXFP8(FP8):
    """The microscaling format of the Open Compute Project (Rouhani et al. 2023, arXiv 2310.10537), e4m3 throughout.

    Not tried on a GPU that has it: the tests run torchao's emulation of it.
    """

    name = "mxfp8"
    step = BLOCK
    layer = Linear

    def swap(self, model: nn.Module, names: set[str], micro_batch: int) -> None:
        on_gpu = self.device.type == "cuda"

        def made(layer: nn.Linear) -> nn.Linear:
            with torch.device("meta"):
                new = Linear(
                    layer.in_features,
                    layer.out_features,
                    bias=False,
                    kernel_preference=KernelPreference.AUTO if on_gpu else KernelPreference.EMULATED,
                )
            new.weight, new.bias = layer.weight, layer.bias
            return new

        swap_linear_layers(model, made, module_filter_fn=lambda module, name: name in names)
