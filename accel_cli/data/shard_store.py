"""Chunks of litdata's format on this disk: read where they lie, or fetched into a cache of a limited size."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from litdata.streaming.config import ChunksConfig
from litdata.streaming.downloader import get_downloader
from litdata.streaming.item_loader import PyTreeLoader
from litdata.streaming.serializers import _SERIALIZERS

from accel_cli.data.base import refuse
from accel_cli.data.cache import locked
from accel_cli.errors import ResourceError

INDEX = "index.json"
REMOTE = ("s3://", "gs://", "azure://", "hf://", "r2://", "local:")
OPEN = 64
"""Chunks that a process keeps mapped."""


class Store:
    """The chunks that one index.json names; ``address`` is a folder, or a URL that litdata knows.

    A remote index is read anew by ``refresh``, once a node; chunks of another index than before are dropped. Fetching
    is one at a time on each node, and what was opened longest ago goes first, so that the cache holds ``most_bytes``
    at most.
    """

    def __init__(self, address: str, cache: Path, most_bytes: int) -> None:
        self.where = f"data.path={address}"
        self.remote = address if address.startswith(REMOTE) else None
        self.most_bytes = most_bytes
        self.home = cache / f"shards-{_digest(address.encode())}" if self.remote else Path(address).expanduser()
        self.failure = ""
        self._maps: OrderedDict[int, tuple[np.ndarray, np.ndarray]] = OrderedDict()

    def refresh(self) -> bool:
        """Fetch the index; False where there is none."""
        if self.remote is None:
            return (self.home / INDEX).is_file()
        with locked(self.home, "index"):
            fresh = self.home / f"{INDEX}.new"
            fresh.unlink(missing_ok=True)
            try:
                self._downloader([]).download_file(f"{self.remote.rstrip('/')}/{INDEX}", str(fresh))
            except Exception as error:  # each kind of storage raises its own for what is not there
                self.failure = (str(error).splitlines() or [type(error).__name__])[0][:120]
                return False
            if not fresh.is_file():
                return False
            folder = self.home / _digest(fresh.read_bytes())
            for stale in self.home.iterdir():
                if stale.is_dir() and stale != folder:
                    shutil.rmtree(stale, ignore_errors=True)
            folder.mkdir(exist_ok=True)
            shutil.copy(fresh, folder / INDEX)
            fresh.replace(self.home / INDEX)
        return True

    def load(self) -> None:
        """Read the index. Raises ConfigError for one that is missing, damaged, or of chunks that can't be read."""
        try:
            content = (self.home / INDEX).read_bytes()
            found = json.loads(content)
            chunks, config = found["chunks"], found["config"]
            self.names = [str(chunk["filename"]) for chunk in chunks]
            self.sizes = [int(chunk["chunk_size"]) for chunk in chunks]
            self.bytes = [int(chunk["chunk_bytes"]) for chunk in chunks]
        except OSError as error:
            raise refuse(self.where, f"no {INDEX} can be read there", "name what litdata.optimize wrote") from error
        except (ValueError, KeyError, TypeError) as error:
            raise refuse(self.where, f"its {INDEX} is damaged: {error}", "write it anew with litdata") from error
        problem = _unfit(config)
        if problem:
            raise refuse(self.where, *problem)
        if any(os.path.basename(name) != name for name in self.names):
            raise refuse(self.where, f"its {INDEX} names files elsewhere", "write it anew with litdata")
        self.folder = self.home / _digest(content) if self.remote else self.home
        self._config = ChunksConfig(str(self.folder), dict(_SERIALIZERS), None, PyTreeLoader())
        self._decoder: Any = self._config._item_loader

    def read(self, chunk: int, place: int) -> Any:
        """Sample ``place`` of a chunk. Raises ResourceError where the chunk is missing or damaged."""
        content, places = self._map(chunk)
        start, end = int(places[place]), int(places[place + 1])
        return self._decoder.load_item_from_bytes(bytearray(content[start:end]), chunk)

    def fetch(self, chunk: int) -> Path:
        """The file of a chunk, fetched if need be."""
        path = self.folder / self.names[chunk]
        if self.remote is None or path.is_file():
            return path
        with locked(self.home, "fetch"):
            if path.is_file():
                return path
            for left in self.folder.glob("*.tmp*"):  # the lock is ours: whoever wrote it died
                left.unlink(missing_ok=True)
            self._make_room(self.bytes[chunk])
            try:
                source = f"{self.remote.rstrip('/')}/{path.name}"
                self._downloader([]).download_file(source, str(path))
            except Exception as error:  # each kind of storage raises its own
                raise self._lost(chunk, f"could not be fetched: {error}") from error
            if not path.is_file():
                raise self._lost(chunk, "could not be fetched")
        return path

    def _map(self, chunk: int) -> tuple[np.ndarray, np.ndarray]:
        if chunk in self._maps:
            self._maps.move_to_end(chunk)
            return self._maps[chunk]
        # What another process has let go is freed when the last map of it goes.
        for number in [n for n in self._maps if not (self.folder / self.names[n]).exists()]:
            del self._maps[number]
        while len(self._maps) >= OPEN:
            self._maps.popitem(last=False)
        self._maps[chunk] = self._open(chunk)
        return self._maps[chunk]

    def _open(self, chunk: int) -> tuple[np.ndarray, np.ndarray]:
        for _ in range(10):
            path = self.fetch(chunk)
            try:
                content = np.memmap(path, dtype=np.uint8, mode="r")
                if self.remote:
                    os.utime(path)
                break
            except FileNotFoundError:  # let go by another process a moment ago
                continue
            except (OSError, ValueError) as error:
                raise self._lost(chunk, f"cannot be read: {error}") from error
        else:
            raise self._lost(chunk, "is missing")
        samples = self.sizes[chunk]
        header = 4 * (samples + 2)
        places = content[4:header].view("<u4") if len(content) >= header else content[:0]
        if len(places) != samples + 1 or int(content[:4].view("<u4")[0]) != samples or int(places[-1]) > len(content):
            raise self._lost(chunk, f"is damaged: {len(content):,} bytes do not hold its {samples} samples")
        return content, places

    def _make_room(self, needed: int) -> None:
        files = sorted(
            ((stat.st_mtime_ns, stat.st_size, path) for path in self.folder.glob("*.bin") for stat in [path.stat()]),
        )
        held = sum(size for _, size, _ in files)
        for _, size, path in files:
            if held + needed <= self.most_bytes:
                break
            path.unlink(missing_ok=True)
            held -= size

    def _downloader(self, chunks: list[Any]) -> Any:
        return get_downloader(str(self.remote), str(self.home), chunks)

    def _lost(self, chunk: int, why: str) -> ResourceError:
        fix = (
            "check the network, then accel resume the run" if self.remote else "copy it anew, then accel resume the run"
        )
        return ResourceError(f"{self.where}: the chunk {self.names[chunk]} {why}", fix)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_maps": OrderedDict()}


def _unfit(config: dict[str, Any]) -> tuple[str, str] | None:
    if any(str(kind).partition(":")[0] == "pickle" for kind in config.get("data_format") or []):
        return "holds pickled objects, which could run code", "write tensors, numbers, text, images or arrays"
    if config.get("compression") or config.get("encryption"):
        return "its chunks are compressed or encrypted", "write them with compression=None and encryption=None"
    if config.get("item_loader", "PyTreeLoader") != "PyTreeLoader" or config.get("format", "") == "mds":
        return "its chunks do not hold samples one by one", "write them with litdata.optimize and no item_loader"
    return None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
