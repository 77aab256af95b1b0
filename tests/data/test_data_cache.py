"""The cache: built once, rebuilt on change, never half-read."""

import multiprocessing
import warnings

import numpy as np
import pytest
import torch

from accel_cli.data.cache import cache_folder, cached, fingerprint, load, load_facts, save
from accel_cli.errors import ResourceError


def entry_of(folder, content, build, bytes_needed=10):
    return cached(folder, name="t", source={"root": "r"}, content=content, bytes_needed=bytes_needed, build=build)


def write(value, calls=None):
    def build(entry):
        if calls is not None:
            calls.append(value)
        save(entry, facts={"value": value}, numbers=np.full((4, 3), value, dtype=np.float32))

    return build


def test_built_once_then_read(tmp_path):
    calls = []
    entries = [entry_of(tmp_path, [["a", 1, 1]], write(7, calls)) for _ in range(3)]
    assert calls == [7]
    assert len(set(entries)) == 1
    assert load_facts(entries[0]) == {"value": 7}


def test_memory_mapped_without_a_warning_and_never_written(tmp_path):
    entry = entry_of(tmp_path, [["a", 1, 1]], write(7))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tensor = torch.from_numpy(load(entry, "numbers"))
    tensor += 1
    assert torch.from_numpy(load(entry, "numbers")).eq(7).all()


def test_changed_files_are_another_entry_and_the_old_one_goes(tmp_path):
    source = tmp_path / "a"
    source.write_text("1")
    before = entry_of(tmp_path / "c", fingerprint(tmp_path, ["a"]), write(1))
    source.write_text("22")
    after = entry_of(tmp_path / "c", fingerprint(tmp_path, ["a"]), write(2))
    assert load_facts(after) == {"value": 2}
    assert not before.exists()


def test_half_written_entry_is_never_read(tmp_path):
    def die(entry):
        write(1)(entry)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        entry_of(tmp_path, [["a", 1, 1]], die)
    assert not any(path.is_dir() for path in tmp_path.iterdir())
    assert load_facts(entry_of(tmp_path, [["a", 1, 1]], write(2))) == {"value": 2}


def test_what_a_killed_writer_left_is_cleared(tmp_path):
    entry = entry_of(tmp_path, [["a", 1, 1]], write(1))
    left = entry.rename(entry.with_name(entry.name + ".partial"))
    (left / "numbers.npy").write_bytes(b"half")
    assert np.array_equal(load(entry_of(tmp_path, [["a", 1, 1]], write(3)), "numbers"), np.full((4, 3), 3))
    assert not left.exists()


def _build_slowly(folder, done):
    def build(entry):
        done.put("built")
        write(5)(entry)

    entry_of(folder, [["a", 1, 1]], build)


def test_ranks_that_come_together_build_once(tmp_path):
    context = multiprocessing.get_context("fork")
    done = context.Queue()
    ranks = [context.Process(target=_build_slowly, args=(tmp_path, done)) for _ in range(4)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(20)
    assert [rank.exitcode for rank in ranks] == [0] * 4
    assert done.get(timeout=5) == "built"
    assert done.empty()


def test_full_disk_names_bytes(tmp_path):
    with pytest.raises(ResourceError, match=r"needs 1,152,921,504,606,846,976 bytes and its disk has [\d,]+ free"):
        entry_of(tmp_path, [["a", 1, 1]], write(1), bytes_needed=2**60)
    assert not any(path.is_dir() for path in tmp_path.iterdir())


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="cannot write the data cache"):
        entry_of(tmp_path / "file" / "cache", [["a", 1, 1]], write(1))


def test_default_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder(None) == tmp_path / "accel"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder(None) == tmp_path / ".cache/accel"
    assert cache_folder("~/mine") == tmp_path / "mine"
