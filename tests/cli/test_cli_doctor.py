"""accel doctor: what it measures, and what it concludes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from accel_cli.cli.doctor import measure
from accel_cli.cli.findings import findings, places
from accel_cli.cli.rate_findings import Finding, bandwidth, flops
from accel_cli.config.machine import GPU, Machine

CPU = Machine(cores=4, memory_bytes=8 << 30)


def found(
    machine: Machine = CPU,
    rates: dict[str, Any] | None = None,
    environment: dict[str, str] | None = None,
    places: list[dict[str, Any]] | None = None,
    **measured: Any,
) -> list[Finding]:
    return findings(machine, {"rates": rates or {}, **measured}, places or [], environment or {})


def rates(device: str = "cpu", spread: float = 1.0, **each: float) -> dict[str, Any]:
    return {device: {"flops_per_second": each, "spread": spread, "bytes_per_second": 1e10}}


def test_the_whole_command(tmp_path: Path) -> None:
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "999"}
    (tmp_path / "torch.py").write_text("raise SystemExit('the wrong torch')")
    code = "import sys; from accel_cli.cli.main import main; code = main(['doctor', '--json']); "
    code += "assert 'torch' not in sys.modules; sys.exit(code)"
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    report = json.loads(ended.stdout)
    rate = report["measured"]["rates"]["cpu"]
    assert report["measured"]["problem"] is None
    assert rate["flops_per_second"]["fp32"] > 1e8
    assert rate["bytes_per_second"] > 1e7
    assert rate["spread"] >= 1
    assert set(rate["flops_per_second"]) == {"fp32", "tf32", "bf16", "fp16", "int8", "fp8"}
    assert all(rate["convolutions"][name] > 1e8 for name in ("contiguous", "channels_last"))
    assert all(value > 1e7 for value in rate["fills"].values())
    link = report["measured"]["links"]["gloo"]
    assert 0 < link["seconds"] < 4
    assert link["bytes_per_second"] is None or 1e6 < link["bytes_per_second"] < 1e12
    assert report["versions"]["torch"]
    assert report["machine"]["cores"] >= 1
    assert {place["what"] for place in report["places"]} >= {"here", "cache"}
    text = json.dumps(report["findings"])
    assert "unset PYTHONDONTWRITEBYTECODE" in text
    assert "OMP_NUM_THREADS=999 makes threads take turns" in text


def test_a_torch_that_cannot_be_imported_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text("raise OSError('libtorch.so: no such file')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[2]}")
    monkeypatch.setattr("accel_cli.__file__", str(tmp_path / "accel_cli/__init__.py"))
    found = measure(lambda text: None)
    assert found["problem"] == "torch cannot be imported: OSError: libtorch.so: no such file"
    assert found["rates"] == {}


def test_what_pays_follows_from_the_rates() -> None:
    slow, fast = found(rates=rates(fp32=95e9, bf16=12e9, fp16=400e9))
    assert slow == (
        "bf16 on this CPU is slower, 7.9x the time",
        "matrix products: 12 GFLOP/s against fp32's 95 GFLOP/s",
        "precision=fp32",
    )
    assert fast[0] == "fp16 pays on this CPU: 4.2x the speed"
    assert fast[2] == "precision=fp16"


def test_below_the_noise_it_cannot_tell() -> None:
    assert found(rates=rates(fp32=100e9, bf16=120e9))[0][0].endswith("cannot tell it from fp32")
    (busy,) = found(rates=rates(fp32=100e9, bf16=200e9, spread=3.0))
    assert busy[0].endswith("cannot tell it from fp32")
    assert "other programs" in busy[1]


def test_other_formats_threads_and_memory_are_judged_with_both_numbers() -> None:
    cpu = rates(fp32=100e9)["cpu"]
    cpu |= {
        "convolutions": {"contiguous": 40e9, "channels_last": 60e9},
        "fills": {"again": 30e9, "fresh": 1e9, "tuned": 28e9},
        "threads": {"cores": 4, "one": 30e9, "all": 31e9},
    }
    layout, kept, stuck = found(rates={"cpu": cpu})
    assert layout == (
        "channels_last pays on this CPU: 1.5x the speed",
        "convolutions: 60 GFLOP/s against contiguous 40 GFLOP/s",
        "hardware.memory_format=channels_last",
    )
    assert (kept[2], "28 GB/s against 1 GB/s" in kept[1]) == ("hardware.allocator=tuned", True)
    assert (stuck[0], stuck[2]) == ("4 threads are 1x as fast as one", "hardware.threads=1")
    cpu["threads"] = {"cores": 4, "one": 30e9, "all": 110e9}
    assert len(found(rates={"cpu": cpu})) == 2
    cpu["threads"] = {"cores": 16, "one": 170e9, "all": 1180e9}  # eight cores of two threads each
    assert len(found(rates={"cpu": cpu})) == 2
    cpu["threads"] = {"cores": 16, "one": 170e9, "all": 900e9}
    assert found(rates={"cpu": cpu})[2][::2] == ("16 threads are 5.3x as fast as one", "")


def test_rates_are_told_in_the_unit_that_fits() -> None:
    assert [flops(rate) for rate in (5.5e8, 1.2e12, 1.17e15)] == ["550 MFLOP/s", "1.2 TFLOP/s", "1.17 PFLOP/s"]
    assert [bandwidth(rate) for rate in (2e5, 9.3e9, 4.08e12)] == ["0.2 MB/s", "9.3 GB/s", "4.08 TB/s"]


def test_a_busy_machine_is_not_blamed_for_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = rates(fp32=100e9)["cpu"] | {"threads": {"cores": 4, "one": 30e9, "all": 31e9}}
    (busy,) = found(rates={"cpu": cpu}, load=9.0)
    assert "9 other processes" in busy[1]
    assert busy[2] == ""
    monkeypatch.setenv("GOMP_CPU_AFFINITY", "0")
    assert found(rates={"cpu": cpu})[0][2] == "unset GOMP_CPU_AFFINITY"


def test_cores_that_are_held_back_are_told() -> None:
    masked = Machine(cores=1, memory_bytes=8 << 30, all_cores=4, core_mask=1)
    assert found(masked)[0][0] == "1 of 4 cores may be used here"
    granted = Machine(cores=2, memory_bytes=8 << 30, all_cores=4, core_mask=4, core_quota=1.5)
    assert found(granted)[0][0] == "the time of 1.5 of 4 cores may be used here"


def test_the_first_gpu_is_judged_where_there_is_one() -> None:
    machine = Machine(8, 1 << 34, (GPU("H200", 140 << 30, (9, 0)),))
    both = rates(fp32=1e11, bf16=1e10) | rates("cuda:0", fp32=5e13, bf16=7e14)
    (finding,) = found(machine, both, versions={"torch": "2", "cuda": "13", "cuda_usable": True})
    assert finding[0] == "bf16 pays on H200: 14x the speed"


def test_a_gpu_that_torch_cannot_use() -> None:
    machine = Machine(8, 1 << 34, (GPU("H200", 140 << 30, (9, 0)),))
    (finding,) = found(machine, versions={"torch": "2.15.0+cpu", "cuda": None, "cuda_usable": False})
    assert finding[0] == "torch 2.15.0+cpu cannot use the H200"
    assert "built without CUDA" in finding[1]


@pytest.mark.parametrize(
    ("value", "word"), [("1", "leaves cores idle"), ("64", "take turns"), ("many", "no number"), ("4", None)]
)
def test_omp_num_threads(value: str, word: str | None) -> None:
    said = found(environment={"OMP_NUM_THREADS": value})
    assert (word in said[0][0]) if word else said == []


def test_room_where_accel_writes(tmp_path: Path) -> None:
    rows = places(tmp_path / "not/yet/made")
    assert {row["what"] for row in rows} >= {"here", "cache"}
    assert all(row["free_bytes"] > 0 and row["writable"] for row in rows)
    full = [{**row, "free_bytes": 1 << 20} for row in rows]
    assert len(found(places=full)) == len(full)
    sealed = [{**rows[1], "writable": False}]
    assert found(places=sealed)[0][2] == "data.cache=FOLDER"
