"""A file of published weights in torch's hub folder, which models and transfer both read."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from accel_cli.errors import ResourceError


def read(url: str, name: str, instead: str) -> dict[str, Tensor]:
    """The tensors of the file that ``url`` names, downloaded into the folder where the network allows.

    It must carry the hash that its name promises, and is read as tensors only. Raises ResourceError where it is not on
    this machine and cannot be downloaded, or is damaged; ``instead`` is what to type to do without.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    prefix = path.stem.rsplit("-", 1)[-1]
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), hash_prefix=prefix, progress=False)
        except (OSError, RuntimeError) as error:
            message = f"cannot download {name}: {error}"
            raise ResourceError(message, f"put {url} at {path}, or {instead}") from error
    if not hashlib.sha256(path.read_bytes()).hexdigest().startswith(prefix):
        message = f"{path} is damaged: its hash is not {prefix}"
        raise ResourceError(message, f"delete it and put {url} there, or {instead}")
    tensors: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return tensors
