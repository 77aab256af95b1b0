"""The device contract: the engine asks hardware for all that differs between devices, and nothing of torch itself."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest
import torch
from ranks import records, run_ranks, write_run
from stand_in import PEAK, PEAK_FLOPS, train_on_stand_in
from test_resume import RUN, SMALL, assert_equal_runs, back_to

from accel_cli.config.parts import load, table
from accel_cli.hardware.base import Hardware

ROOT = Path(__file__).parents[2]
ENGINE = [*sorted((ROOT / "accel_cli/engine").glob("*.py")), ROOT / "accel_cli/worker.py", ROOT / "accel_cli/world.py"]


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_whole_run_and_its_resume_ask_the_device(tmp_path: Path, world_size: int) -> None:
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    write_run([*RUN, *SMALL], straight, world_size)
    calls = run_ranks(train_on_stand_in, world_size, str(straight))
    for rank, asked in enumerate(calls):
        assert asked[:3] == [f"device {rank}", "start cpu default", "seed"]
        counts = {key: len(list(group)) for key, group in itertools.groupby(sorted(asked))}
        parameters = json.loads((straight / "summary.json").read_text())["parameters"]
        assert counts[f"arrange {parameters}"] == 1
        assert asked.index(f"arrange {parameters}") < asked.index("seed", 4)
        assert counts["seed"] == 2 + 10  # at the start, before what user code draws, and before every step
        assert counts["peak_memory"] == 1
    assert calls[0].count("read_later") == len(records(straight, "train")) == 10
    summary = json.loads((straight / "summary.json").read_text())
    assert summary["peak_memory_bytes"]["device"] == PEAK
    # 64 -> 32 -> 10: three products a layer and sample, but the first layer's input needs no gradient.
    operations = 2 * (32 // world_size) * (2 * 64 * 32 + 3 * 32 * 10)
    seconds = summary["step_milliseconds"]["median"] / 1e3
    assert summary["utilisation"] == pytest.approx(operations / seconds / PEAK_FLOPS, rel=1e-3)

    back_to(5, straight, resumed)
    again = run_ranks(train_on_stand_in, world_size, str(resumed), True)
    assert again[0].count("seed") == 2 + 5
    assert_equal_runs(resumed, straight)


@pytest.mark.parametrize("path", ENGINE, ids=lambda path: path.name)
def test_the_engine_names_no_device(path: Path) -> None:
    text = path.read_text()
    assert not re.findall(r"torch\.(cuda|mps|xpu|tpu|backends)\b|device\.type ==|ProfilerActivity\.", text)


@pytest.mark.parametrize("option", table("hardware"))
def test_every_option_meets_the_contract_by_its_names(option: str) -> None:
    part = load(table("hardware")[option].implementation)
    assert issubclass(part, Hardware)
    own = {name for name in vars(part) if not name.startswith("_")}
    assert own <= set(dir(Hardware)), "the engine would never ask for it"
    assert part.sum_dtype in (torch.float32, torch.float64)
    if option not in ("auto", "cpu", "cuda"):
        assert "not tried on the device" in (part.__doc__ or "").lower()


def test_devices_are_named_by_their_rank() -> None:
    for option in ("cuda", "xpu"):
        part = load(table("hardware")[option].implementation)
        assert part(None).device(1) == torch.device(option, 1)
