"""accel: a training launcher driven by YAML."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from accel_cli.api import load, train

__version__ = "0.1.0"
__all__ = ["__version__", "load", "train"]


def __getattr__(name: str) -> Any:
    """``train`` and ``load`` on first use: importing accel_cli must not import torch."""
    if name in ("train", "load"):
        from accel_cli import api

        return getattr(api, name)
    raise AttributeError(name)
