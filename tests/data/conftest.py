"""Any data option with its defaults from YAML, as a run would make it."""

from pathlib import Path

import pytest
import yaml

from accel_cli.config.parts import implementation
from accel_cli.config.schema.data import OPTIONS

ROOT = Path(__file__).parents[2]


@pytest.fixture
def make():
    def make(option, seed=0, **overrides):
        values = yaml.safe_load((ROOT / f"configs/data/{option}.yaml").read_text(encoding="utf-8"))
        config = OPTIONS[option].schema(option=option, **values | overrides)
        return implementation("data", config)(config, seed)

    return make


@pytest.fixture
def shared():
    """Where real data lies beside a checkout; skips without it."""

    def find(name):
        path = ROOT.parent / "shared/data" / name
        if not path.is_file():
            pytest.skip(f"needs shared/data/{name} beside the repository")
        return path

    return find
