"""The whole model through torch.compile, which times several kernels for each product and keeps the quickest."""

from __future__ import annotations

from accel_cli.compile.full import Full


class MaxAutotune(Full):
    mode = "max-autotune-no-cudagraphs"
    mode_of_graphs = "max-autotune"
