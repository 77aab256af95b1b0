"""Samples in chunks, on a disk or behind a URL, as litdata writes them: for sets larger than the disk."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from torch.utils.data import Dataset

from accel_cli.data.base import SPLITS, Data, Loaded, Report, Split, refuse, sample_counts
from accel_cli.data.cache import cache_folder
from accel_cli.data.custom import look_at
from accel_cli.data.shard_store import Store
from accel_cli.description import DataDescription


class Shards(Data):
    """train/, validation/ and test/ with an index.json each; or one index.json, from whose end whole chunks are cut."""

    def prepare(self, report: Report) -> None:
        report("read the index", 0, 1)
        self._stores(refresh=True)
        report("read the index", 1, 1)

    def load(self) -> Loaded:
        stores = self._stores(refresh=False)
        splits: dict[Split, Any] = {}
        for name, store in stores.items():
            store.load()
            splits[name] = ShardSet(store, range(len(store.sizes)))
        if len(splits) < len(SPLITS):
            splits |= self._cut(splits["train"], [name for name in SPLITS[1:] if name not in splits])
        facts = look_at(splits["train"], self.config, f"data.path={self.config.path}")
        return Loaded(DataDescription(**facts, **sample_counts(splits)), splits)

    def _stores(self, *, refresh: bool) -> dict[Split, Store]:
        address = self.config.path.rstrip("/")
        cache, most = cache_folder(self.config.cache), int(self.config.cache_gigabytes * 1e9)
        found: dict[Split, Store] = {}
        for name in SPLITS:
            store = Store(f"{address}/{name}", cache, most)
            if store.refresh() if refresh or store.remote is None else (store.home / "index.json").is_file():
                found[name] = store
        if "train" not in found:
            whole = Store(address, cache, most)
            if (refresh or whole.remote is None) and not whole.refresh():
                why = "there is no index.json, nor one in train/" + (f" ({whole.failure})" if whole.failure else "")
                raise refuse(
                    whole.where, why, "name what litdata.optimize wrote: a folder, s3://, gs://, azure:// or hf://"
                )
            found = {"train": whole}
        return found

    def _cut(self, whole: ShardSet, missing: list[Split]) -> dict[Split, Any]:
        share = {"validation": self.config.validation_share, "test": self.config.test_share}
        end, parts = len(whole.chunks), dict[Split, Any]()
        for name in reversed(missing):
            count = max(1, round(len(whole.chunks) * share[name]))
            parts[name] = ShardSet(whole.store, whole.chunks[end - count : end])
            end -= count
        if end < 1:
            why = f"{len(whole.chunks)} chunks are too few to cut {' and '.join(missing)} from"
            raise refuse(
                f"data.path={self.config.path}",
                why,
                "write smaller chunks, or name folders train/, validation/ and test/",
            )
        return parts | {"train": ShardSet(whole.store, whole.chunks[:end])}


class ShardSet(Dataset[Any]):
    """The samples of some chunks, by number. ``chunk_sizes``: samples of each; they are near each other on the disk."""

    def __init__(self, store: Store, chunks: range) -> None:
        self.store = store
        self.chunks = chunks
        self.chunk_sizes = [store.sizes[chunk] for chunk in chunks]
        self.chunk_bytes = [store.bytes[chunk] for chunk in chunks]
        self.most_bytes = store.most_bytes if store.remote else None
        self._ends = list(accumulate(self.chunk_sizes))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        chunk = bisect_right(self._ends, index)
        return self.store.read(self.chunks[chunk], index - (self._ends[chunk] - self.chunk_sizes[chunk]))

    def fetch(self, chunks: Sequence[int]) -> None:
        """Bring chunks to this disk that will be read soon."""
        for chunk in chunks:
            self.store.fetch(self.chunks[chunk])
