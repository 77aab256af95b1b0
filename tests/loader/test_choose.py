"""What auto means, and the schema's limits."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from accel_cli.config.schema.loader import OPTIONS
from accel_cli.loader.choose import choose, worker_count

GB = 10**9
FOLDER = Path(__file__).parents[2] / "configs/loader"


@pytest.mark.parametrize(
    ("size", "has_batch", "device", "option", "why"),
    [
        (0, True, None, "memory", "gather"),
        (1 * GB, False, None, "memory", "small: 1 GB as tensors, 8 GB free"),
        (3 * GB, False, None, "workers", "large: 3 GB"),
        (None, False, None, "workers", "drawn anew"),
        (None, False, 80 * GB, "workers", "drawn anew"),
        (1 * GB, True, 80 * GB, "device", "1 GB, the device has 80 GB free"),
        (1 * GB, False, 80 * GB, "device", "the device has"),
        (1 * GB, False, 3 * GB, "memory", "small"),
        (30 * GB, True, 80 * GB, "memory", "gather"),
    ],
)
def test_choose(size, has_batch, device, option, why):
    chosen, reason = choose(size, 8 * GB, has_batch, device_bytes=device, reason="drawn anew")
    assert chosen == option
    assert why in reason


@pytest.mark.parametrize(
    ("workers", "cores", "device", "count"),
    [("auto", 1, "cpu", 0), ("auto", 2, "cpu", 1), ("auto", 1, "cuda", 1), ("auto", 64, "cuda", 16), (3, 1, "cpu", 3)],
)
def test_worker_count(workers, cores, device, count):
    assert worker_count(workers, cores=cores, device=device) == count


@pytest.mark.parametrize("option", OPTIONS)
def test_defaults_are_valid_and_complete(option):
    values = yaml.safe_load((FOLDER / f"{option}.yaml").read_text())
    OPTIONS[option].schema(option=option, **values)
    assert set(values) == set(OPTIONS[option].schema.model_fields) - {"option"}


@pytest.mark.parametrize("wrong", [{"workers": True}, {"workers": -1}, {"prefetch": 0}, {"timeout": 0.0}])
def test_the_schema_refuses(wrong):
    values = {"option": "workers", "workers": "auto", "prefetch": 2, "timeout": 1} | wrong
    with pytest.raises(ValidationError):
        OPTIONS["workers"].schema(**values)


def test_choosing_needs_no_torch():
    code = "import sys, accel_cli.loader.choose, accel_cli.config.schema.loader; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=FOLDER.parents[1]).returncode == 0
