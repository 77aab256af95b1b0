"""Peak rates: by the names that torch gives devices, and none where the table has none."""

import pytest

from accel_cli.hardware.peaks import PEAKS, peak_flops


@pytest.mark.parametrize(
    ("name", "dtype", "tera"),
    [
        ("NVIDIA H200", "bfloat16", 989), ("NVIDIA H100 80GB HBM3", "tf32", 494), ("NVIDIA H100 PCIe", "float16", 756),
        ("NVIDIA A100-SXM4-80GB", "float32", 19.5),
        ("Tesla V100-PCIE-16GB", "float16", 112), ("NVIDIA L4", "int8", 242),
        ("NVIDIA L40S", "float8_e4m3fn", 733), ("Tesla T4", "bfloat16", None), ("NVIDIA L400", "float16", None),
        ("AMD Instinct MI300X", "bfloat16", 1307), ("GeForce GTX 1080", "float32", None),
    ],
)  # fmt: skip
def test_a_name_finds_its_row(name: str, dtype: str, tera: float | None) -> None:
    assert peak_flops(name, dtype) == (None if tera is None else tera * 1e12)


def test_tensor_cores_are_never_slower() -> None:
    for name, rates in PEAKS:
        for dtype in ("tf32", "bfloat16", "float16"):
            assert rates.get(dtype, rates["float32"]) >= rates["float32"], name
