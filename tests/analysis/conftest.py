from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from run_builder import records, settings, summary, write_run


@pytest.fixture
def build_run(tmp_path: Path) -> Callable[..., Path]:
    """``build_run(name, settings=..., summary=..., records=...)`` writes a folder; ``summary=None`` is a killed run."""

    def build(name: str = "20260712-140312-digits", **parts: Any) -> Path:
        whole = {"settings": settings(), "summary": summary(), "records": records(), **parts}
        return write_run(tmp_path / "runs" / name, **whole)

    return build
