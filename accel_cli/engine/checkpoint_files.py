"""A checkpoint on the disk: written all or nothing, and believed only while every hash is right.

    step-00000100/   manifest.json  model.safetensors  average.safetensors  optimizer.safetensors  state.json

It is written beside its place, flushed, described by a manifest with a hash of every file, and renamed: whoever reads
sees the old state or the new one. Nothing is pickled, so nothing that is read can run.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from accel_cli.errors import CheckpointError

FORMAT_VERSION = 1
PIECE = 1 << 22
"""Bytes hashed and then written while they are still in the processor's cache."""
NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2", torch.bool: "BOOL",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint64: "U64", torch.uint32: "U32", torch.uint16: "U16", torch.uint8: "U8",
}  # fmt: skip
"""What safetensors calls them."""


@dataclass(frozen=True)
class Saved:
    """A checkpoint whose every file matches its manifest."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def step(self) -> int:
        return int(self.manifest["step"])

    def tensors(self, name: str) -> dict[str, torch.Tensor]:
        """{} where nothing was saved. Raises CheckpointError for a file that is no safetensors."""
        if not self.holds(name):
            return {}
        path = self.folder / f"{name}.safetensors"
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{self.folder.name}: {path.name} cannot be read ({error})") from None

    def holds(self, name: str) -> bool:
        return f"{name}.safetensors" in self.manifest["files"]

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "state.json").read_text())
        return found


def folder_name(step: int) -> str:
    return f"step-{step:08d}"


def steps_in(folder: Path) -> list[int]:
    """The steps that have a checkpoint, whole or not, in order."""
    return sorted(int(path.name.removeprefix("step-")) for path in folder.glob("step-????????"))


def write(
    folder: Path,
    step: int,
    tensors: dict[str, dict[str, torch.Tensor]],
    state: str,
    manifest: dict[str, Any],
    name: str = "",
) -> Path:
    """Write one checkpoint, all or nothing; ``state`` is JSON. Raises OSError, having removed what it began.

    It is called after its step, or by ``name``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{folder_name(step)}-{uuid.uuid4().hex}"
    partial.mkdir()
    files: dict[str, dict[str, Any]] = {}
    try:
        for part, held in tensors.items():
            files[f"{part}.safetensors"] = write_tensors(partial / f"{part}.safetensors", held)
        files["state.json"] = write_hashed(partial / "state.json", [state.encode()])
        (partial / "manifest.json").write_text(json.dumps({**manifest, "files": files}, indent=1))
        for path in partial.iterdir():
            flush(path)
        flush(partial)
        target = folder / (name or folder_name(step))
        if target.exists():
            shutil.rmtree(target)
        partial.rename(target)
        flush(folder)
        return target
    except OSError:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Write a safetensors file of contiguous tensors on the host; returns what a manifest says of it.

    The library's own ``save_file`` copies every tensor under Python's lock, in which training would stand still, and
    the file would be read again for its hash. The format: https://github.com/huggingface/safetensors#format.
    """
    # The widest first: every tensor is then aligned.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    header, end = {}, 0
    for name, tensor in ordered:
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    blocks = (tensor.reshape(-1).view(torch.uint8).numpy().data for _, tensor in ordered if tensor.numel())
    return write_hashed(path, chain([len(text).to_bytes(8, "little"), text], blocks))


def write_hashed(path: Path, blocks: Iterable[bytes | memoryview]) -> dict[str, Any]:
    """Write blocks behind each other, hashing them as they pass: neither holds Python's lock over a large one."""
    sha256, size = hashlib.sha256(), 0
    with path.open("wb", buffering=0) as file:
        for block in blocks:
            left = memoryview(block)
            size += left.nbytes
            while left.nbytes:
                piece = left[:PIECE]
                sha256.update(piece)
                while piece.nbytes:
                    piece = piece[file.write(piece) :]
                left = left[PIECE:]
    return {"bytes": size, "sha256": sha256.hexdigest()}


def amend(saved: Saved, facts: dict[str, Any]) -> None:
    """Change what a checkpoint's manifest says, all or nothing; its files stay."""
    path = saved.folder / "manifest.json"
    partial = path.with_name(f".manifest-{uuid.uuid4().hex}")
    partial.write_text(json.dumps({**saved.manifest, **facts}, indent=1))
    flush(partial)
    partial.replace(path)
    flush(saved.folder)


def flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify(folder: Path) -> Saved:
    """Read a manifest and compare every file with it. Raises CheckpointError naming the file that is wrong."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        files = manifest["files"]
        version = manifest["format_version"]
    except FileNotFoundError:
        raise CheckpointError(f"{folder.name}: no manifest; it was never finished") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder.name}: its manifest is damaged ({error})") from None
    if version > FORMAT_VERSION:
        raise CheckpointError(f"{folder.name}: written by a newer accel (format {version})", "upgrade accel")
    for name, facts in files.items():
        path = folder / name
        if Path(name).name != name or path.is_symlink() or not path.is_file():
            raise CheckpointError(f"{folder.name}: {name} is missing")
        if path.stat().st_size != facts["bytes"] or digest(path) != facts["sha256"]:
            raise CheckpointError(f"{folder.name}: {name} is damaged: its hash is not the manifest's")
    return Saved(folder, manifest)


def newest(run_folder: Path) -> tuple[Saved, list[str]]:
    """The newest checkpoint that is whole, and what was wrong with those passed over.

    Raises CheckpointError where there is none: a resume never starts afresh by itself.
    """
    folder = run_folder / "checkpoints"
    passed: list[str] = []
    for path in sorted(folder.glob("step-????????"), reverse=True):
        try:
            return verify(path), passed
        except CheckpointError as error:
            passed.append(error.message)
    if not passed:
        raise CheckpointError(f"{run_folder} has no checkpoint", "start it again: accel train --run " + str(run_folder))
    raise CheckpointError("no checkpoint is whole: " + "; ".join(passed), "start the run again from its run.yaml")
