"""What a machine has, found without torch: devices below a /sys of the test's own, cores, and the build of torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from accel_cli.config import accelerators, cores
from accel_cli.config.accelerators import GPU
from accel_cli.config.decide import decide
from accel_cli.config.machine import Machine, detect
from accel_cli.config.run import check_tree

ROOT = Path(__file__).parents[2]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def amd(tmp_path: Path) -> Path:
    """A processor's node and two MI300X; in the middle one that a container may not use."""
    nodes = tmp_path / "class/kfd/kfd/topology/nodes"
    write(nodes / "0/properties", "cpu_cores_count 96\nsimd_count 0\nvendor_id 0\n")
    for number in (1, 3):
        write(nodes / f"{number}/properties", "simd_count 1216\nvendor_id 4098\ngfx_target_version 90402\n")
        write(nodes / f"{number}/mem_banks/0/properties", "heap_type 1\nsize_in_bytes 206141652992\n")
    write(nodes / "2/name", "")
    return tmp_path


def test_amd_gpus_are_the_nodes_with_simd_units(amd: Path) -> None:
    found = accelerators.amd(amd)
    assert found == (GPU("AMD gfx942", 206141652992, (9, 4)),) * 2


@pytest.mark.parametrize(
    ("environment", "count"),
    [({}, 2), ({"HIP_VISIBLE_DEVICES": "1"}, 1), ({"CUDA_VISIBLE_DEVICES": ""}, 0), ({"ROCR_VISIBLE_DEVICES": "0"}, 1)],
)
def test_the_users_variables_choose_among_them(
    amd: Path, environment: dict[str, str], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accelerators, "_nvidia", tuple)
    assert len(accelerators.gpus(environment, amd)) == count


def test_nvidias_come_first(amd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = GPU("NVIDIA H200", 1 << 37, (9, 0))
    monkeypatch.setattr(accelerators, "_nvidia", lambda: (card, card))
    assert accelerators.gpus({"CUDA_VISIBLE_DEVICES": "0"}, amd) == (card,)


def test_intel_gpus_have_intels_number_and_its_driver(tmp_path: Path) -> None:
    for card, vendor, driver in (("card0", "0x8086", "xe"), ("card1", "0x1002", "amdgpu"), ("card2", "0x8086", "ast")):
        device = tmp_path / "class/drm" / card / "device"
        write(device / "vendor", f"{vendor}\n")
        (tmp_path / "drivers" / driver).mkdir(parents=True)
        (device / "driver").symlink_to(tmp_path / "drivers" / driver)
    (tmp_path / "class/drm/card0-HDMI-A-1").mkdir()
    assert accelerators.intel(tmp_path) == 1


def test_a_tpu_is_not_googles_network_card(tmp_path: Path) -> None:
    for slot, device in (("0", "0x0063"), ("1", "0x0042"), ("2", "0x0063")):
        write(tmp_path / f"bus/pci/devices/{slot}/vendor", "0x1ae0\n")
        write(tmp_path / f"bus/pci/devices/{slot}/device", f"{device}\n")
    assert accelerators.tpus(tmp_path) == 2
    assert accelerators.tpus(tmp_path / "absent") == 0


@pytest.mark.parametrize(
    ("stated", "absent"),
    [
        ("cuda: Optional[str] = None\nhip: Optional[str] = None\nxpu: Optional[str] = None\n", {"cuda", "xpu"}),
        ("cuda: Optional[str] = '13.0'\nhip: Optional[str] = None\nxpu: Optional[str] = None\n", {"xpu"}),
        ("cuda: Optional[str] = None\nhip: Optional[str] = '7.0'\n", set()),
        ("cuda: Optional[str] = None\nhip: Optional[str] = None\nxpu: Optional[str] = '2026'\n", {"cuda"}),
        ("what?", set()),
    ],
)
def test_what_torch_was_built_for_stands_in_its_files(tmp_path: Path, stated: str, absent: set[str]) -> None:
    write(tmp_path / "version.py", f"from typing import Optional\n{stated}")
    assert accelerators.built_without(tmp_path) == absent


def test_auto_leaves_a_gpu_that_torch_has_no_code_for() -> None:
    from accel_cli.config.plan import plan

    run = check_tree(plan([]).composed.tree).run
    assert run is not None
    gpus = (GPU("NVIDIA H200", 1 << 37, (9, 0)),)
    chosen, _ = decide(run, Machine(8, 1 << 34, gpus, glibc=True))
    kept, told = decide(run, Machine(8, 1 << 34, gpus, built_without=frozenset({"cuda"}), glibc=True))
    assert (chosen.hardware.option, kept.hardware.option) == ("cuda", "cpu")
    assert "built without code for the NVIDIA H200" in told[0].why
    intel, _ = decide(run, Machine(8, 1 << 34, xpus=1))
    assert (intel.hardware.option, intel.launch.backend) == ("xpu", "xccl")


@pytest.fixture
def two_nodes(tmp_path: Path) -> Path:
    """Eight cores as Linux numbers them: four of two threads, the first two on node 0."""
    for core in range(8):
        folder = tmp_path / f"devices/system/cpu/cpu{core}"
        write(folder / "topology/thread_siblings_list", f"{core % 4},{core % 4 + 4}\n")
        (folder / f"node{core % 4 // 2}").mkdir()
    return tmp_path


def test_shares_keep_to_a_memory_node_and_to_whole_cores(two_nodes: Path) -> None:
    everything = list(range(8))
    assert [sorted(cores.share(everything, n, 2, two_nodes)) for n in range(2)] == [[0, 1, 4, 5], [2, 3, 6, 7]]
    assert [sorted(cores.share(everything, n, 4, two_nodes)) for n in range(4)] == [[0, 4], [1, 5], [2, 6], [3, 7]]
    assert sorted(sum((cores.share(everything, n, 3, two_nodes) for n in range(3)), [])) == everything
    assert cores.share([0], 0, 2, two_nodes) == []
    assert (cores.nodes(everything, two_nodes), cores.nodes([0, 4], two_nodes)) == (2, 1)


@pytest.mark.parametrize(("text", "worth"), [("max 100000", None), ("150000 100000", 1.5), ("nonsense", None)])
def test_a_quota_is_worth_cores(tmp_path: Path, text: str, worth: float | None) -> None:
    write(tmp_path / "fs/cgroup/cpu.max", text)
    assert cores.quota(tmp_path) == worth
    assert cores.usable(tmp_path) == (len(cores.allowed()) if worth is None else min(2, len(cores.allowed())))


def test_absent_devices_are_refused_with_the_reason_and_without_torch(tmp_path: Path) -> None:
    has = detect()
    absent = [device for device in ("cuda", "xpu", "mps", "tpu") if not has.count(device)]
    code = f"""
import sys
from accel_cli.config.plan import plan
from accel_cli.errors import ConfigError
for device in [*{absent}, "onnx"]:
    try:
        plan([f"hardware={{device}}"])
    except ConfigError as error:
        print(error.problems[0].where, "|", error.problems[0].why, "|", error.problems[0].fix)
assert not {{"torch", "torch_tpu"}} & set(sys.modules)
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = ended.stdout.splitlines()
    assert len(lines) == len(absent) + 1
    assert all("is visible on this machine" in line and "try hardware=" in line for line in lines[:-1])
    assert "try export=onnx" in lines[-1]
