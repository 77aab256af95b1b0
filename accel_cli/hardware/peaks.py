"""What GPUs can do at most, by their vendors' data sheets: dense matrix products, without sparsity."""

from __future__ import annotations

TERA = 1e12
PEAKS: tuple[tuple[str, dict[str, float]], ...] = (
    # NVIDIA Blackwell and Hopper: https://www.nvidia.com/en-us/data-center/dgx-b200/ , .../h200/ , .../h100/
    ("B200", {"float32": 75, "tf32": 1100, "bfloat16": 2250, "float16": 2250, "float8": 4500, "int8": 4500}),
    ("H200", {"float32": 67, "tf32": 494, "bfloat16": 989, "float16": 989, "float8": 1979, "int8": 1979}),
    ("H100 PCIe", {"float32": 51, "tf32": 378, "bfloat16": 756, "float16": 756, "float8": 1513, "int8": 1513}),
    ("H100 NVL", {"float32": 60, "tf32": 418, "bfloat16": 835, "float16": 835, "float8": 1671, "int8": 1671}),
    ("H100", {"float32": 67, "tf32": 494, "bfloat16": 989, "float16": 989, "float8": 1979, "int8": 1979}),
    # Ada: https://www.nvidia.com/en-us/data-center/l40s/ , https://www.nvidia.com/en-us/data-center/l4/
    ("L40S", {"float32": 91.6, "tf32": 183, "bfloat16": 362, "float16": 362, "float8": 733, "int8": 733}),
    ("L4", {"float32": 30.3, "tf32": 60, "bfloat16": 121, "float16": 121, "float8": 242, "int8": 242}),
    ("RTX 4090", {"float32": 82.6, "tf32": 82.6, "bfloat16": 165, "float16": 165, "float8": 330, "int8": 661}),
    # Ampere, Turing, Volta: the data sheets of A100, A10, T4 and V100
    ("A100", {"float32": 19.5, "tf32": 156, "bfloat16": 312, "float16": 312, "int8": 624}),
    ("A10G", {"float32": 35, "tf32": 35, "bfloat16": 70, "float16": 70, "int8": 140}),
    ("A10", {"float32": 31.2, "tf32": 62.5, "bfloat16": 125, "float16": 125, "int8": 250}),
    ("T4", {"float32": 8.1, "float16": 65, "int8": 130}),
    ("V100 PCIE", {"float32": 14, "float16": 112}),
    ("V100", {"float32": 15.7, "float16": 125}),
    # AMD: https://www.amd.com/en/products/accelerators/instinct.html
    ("MI325X", {"float32": 163.4, "bfloat16": 1307, "float16": 1307, "float8": 2615, "int8": 2615}),
    ("MI300X", {"float32": 163.4, "bfloat16": 1307, "float16": 1307, "float8": 2615, "int8": 2615}),
    ("MI250X", {"float32": 47.9, "bfloat16": 191.5, "float16": 191.5, "int8": 191.5}),  # torch sees each half as a GPU
)
"""The first row whose words all stand in the device's name holds; TFLOP/s (TOP/s for int8)."""


def peak_flops(name: str, dtype: str) -> float | None:
    """Operations per second of the device that torch calls ``name``; ``dtype`` is torch's word, or tf32.

    None for a device or a type that the table does not have: better no utilisation than a wrong one.
    """
    words = name.replace("-", " ").split()
    for device, rates in PEAKS:
        if set(device.split()) <= set(words):
            rate = rates.get("float8" if dtype.startswith("float8") else dtype)
            return None if rate is None else rate * TERA
    return None
