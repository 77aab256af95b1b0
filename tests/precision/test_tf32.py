"""fp32 is fp32: what may round to TF32 is said by precision alone."""

from __future__ import annotations

import pytest
import torch
from ranks import compose

from accel_cli.config.parts import implementation


@pytest.mark.parametrize("option", ["fp32", "tf32", "bf16"])
def test_fp32_means_fp32_and_the_switches_are_set_by_precision_alone(option: str) -> None:
    run = compose([], 1).with_option("precision", option)
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        implementation("precision", run.precision)(run.precision, torch.device("cuda")).start()
        expected = ("highest", False) if option == "fp32" else ("high", True)
        assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == expected
        implementation("precision", run.precision)(run.precision, torch.device("cpu")).start()
        assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == ("highest", False)
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
