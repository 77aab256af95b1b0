"""Samples in litdata's chunks: read by number, fetched within a limit, trained on as any other data."""

import json
import shutil

import numpy as np
import pytest
import torch
from ranks import records, train_ranks
from test_resume import assert_equal_runs, back_to

from accel_cli.config.plan import plan
from accel_cli.errors import ConfigError, ResourceError

writer = pytest.importorskip("litdata.streaming.writer", reason="needs the package litdata")
CHUNK = 10


def write(folder, samples, chunk=CHUNK, first=0):
    made = writer.BinaryWriter(str(folder), chunk_size=chunk)
    for number, sample in enumerate(samples):
        made[number] = sample
    made.done()
    made.merge()
    return folder


def images(count, seed=0):
    """Images whose class can be seen, and whose number stands in a corner."""
    random = np.random.default_rng(seed)
    for number in range(count):
        image = random.integers(0, 100, (1, 8, 8), dtype=np.uint8)
        image[0, number % 4] += 120
        image[0, 7, 7] = number
        yield torch.from_numpy(image), number % 4


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write(tmp_path_factory.mktemp("shards") / "set", images(155))


def numbers(dataset):
    return [int(dataset[place][0][0, 7, 7]) for place in range(len(dataset))]


def test_splits_are_whole_chunks_from_the_end(make, shards):
    data = make("shards", path=str(shards), classes=4)
    data.prepare(lambda *_: None)
    facts = data.describe()
    assert (facts.input, facts.target, facts.input_shape, facts.classes) == ("image", "class", (1, 8, 8), 4)
    assert (facts.train_samples, facts.validation_samples, facts.test_samples) == (140, 10, 5)
    assert [numbers(data.split(name)) for name in ("train", "validation", "test")] == [
        list(range(140)), list(range(140, 150)), list(range(150, 155)),
    ]  # fmt: skip
    assert data.split("train").chunk_sizes == [CHUNK] * 14
    with pytest.raises(IndexError):
        data.split("train")[140]


@pytest.mark.parametrize("prefix", ["", "local:"])
def test_splits_in_folders(make, tmp_path, prefix):
    write(tmp_path / "set/train", images(30))
    write(tmp_path / "set/test", images(20, seed=1))
    data = make("shards", path=f"{prefix}{tmp_path / 'set'}", classes=4, cache=str(tmp_path / "cache"))
    data.prepare(lambda *_: None)
    assert (data.describe().train_samples, data.describe().validation_samples) == (20, 10)
    assert numbers(data.split("test")) == list(range(20))


def held(cache):
    return sum(path.stat().st_size for path in cache.glob("shards-*/*/*") if path.name != "index.json")


def test_the_cache_keeps_its_limit(make, shards, tmp_path):
    size = max(path.stat().st_size for path in shards.glob("*.bin"))
    most = 3 * size
    data = make("shards", path=f"local:{shards}", classes=4, cache=str(tmp_path), cache_gigabytes=most / 1e9)
    data.prepare(lambda *_: None)
    train, seen, chunks = data.split("train"), [], set()
    (folder,) = (path.parent for path in tmp_path.glob("shards-*/*/index.json"))
    left = folder / "chunk-0-3.bin.tmp"  # by a process that was killed as it wrote
    left.write_bytes(b"half")
    for place in [*range(140), *range(0, 140, 9)]:
        seen.append(int(train[place][0][0, 7, 7]))
        assert held(tmp_path) <= most
        chunks |= {path.name for path in tmp_path.glob("shards-*/*/*.bin")}
    assert seen == [*range(140), *range(0, 140, 9)]
    assert len(chunks) == 14
    assert not left.exists()
    assert held(tmp_path) > 2 * size


def test_what_changed_elsewhere_is_fetched_anew(make, tmp_path):
    source = write(tmp_path / "set", images(40))
    named = {"path": f"local:{source}", "classes": 4, "cache": str(tmp_path / "cache")}
    first = make("shards", **named)
    first.prepare(lambda *_: None)
    before = first.split("train")[0][0]
    shutil.rmtree(source)
    write(source, images(50, seed=5))
    again = make("shards", **named)
    again.prepare(lambda *_: None)
    assert again.describe().train_samples == 30
    assert not torch.equal(again.split("train")[0][0], before)
    assert len(list((tmp_path / "cache").glob("shards-*/*/index.json"))) == 1


def test_samples_of_any_kind(make, tmp_path):
    """What litdata's serializers know comes back as it went in, and batches as the loaders make them."""
    from torch.utils.data import default_collate

    samples = [
        {"text": f"naïve {n}", "number": n, "share": n / 3, "array": np.arange(n), "tensor": torch.full((2, 3), n / 7)}
        for n in range(40)
    ]
    data = make("shards", path=str(write(tmp_path / "set", samples, chunk=6)))
    train = data.split("train")
    assert (data.describe().input, data.describe().target) == ("other", "other")
    for number in range(len(train)):
        found, wanted = train[number], samples[number]
        assert (found["text"], found["number"], found["share"]) == (wanted["text"], number, wanted["share"])
        assert np.array_equal(found["array"], wanted["array"])
        assert torch.equal(found["tensor"], wanted["tensor"])
    batch = default_collate([{k: v for k, v in train[n].items() if k != "array"} for n in (3, 1)])
    assert batch["number"].tolist() == [3, 1]


@pytest.mark.parametrize("prefix", ["", "local:"])
@pytest.mark.parametrize("harm", ["missing", "short", "other"])
def test_a_missing_or_damaged_chunk_is_named(make, tmp_path, prefix, harm):
    source = write(tmp_path / "set", images(50))
    path = source / "chunk-0-1.bin"
    if harm == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:100] if harm == "short" else b"\xff" * 2000)
    data = make("shards", path=f"{prefix}{source}", classes=4, cache=str(tmp_path / "cache"))
    data.prepare(lambda *_: None)
    assert int(data.split("train")[3][0][0, 7, 7]) == 3
    with pytest.raises(
        ResourceError, match=r"chunk-0-1\.bin (is missing|is damaged|could not be fetched|cannot be r)"
    ) as error:
        data.split("train")[12]
    assert error.value.fix


def refused(make, **values):
    data = make("shards", classes=4, **values)

    def look():
        data.prepare(lambda *_: None)
        data.describe()

    with pytest.raises(ConfigError) as refusal:
        look()
    (problem,) = refusal.value.problems
    assert problem.fix
    return problem.why


def test_what_cannot_be_read_is_refused(make, shards, tmp_path):
    assert "no index.json" in refused(make, path=str(tmp_path))
    assert "no index.json" in refused(make, path=f"local:{tmp_path}/none", cache=str(tmp_path / "cache"))
    assert "too few" in refused(make, path=str(write(tmp_path / "few", images(20))))
    objects = write(tmp_path / "objects", ((torch.zeros(3), {1, 2}) for _ in range(50)))
    assert "could run code" in refused(make, path=str(objects))
    damaged = shutil.copytree(shards, tmp_path / "damaged")
    (damaged / "index.json").write_text("{")
    assert "damaged" in refused(make, path=str(damaged))
    index = json.loads((shards / "index.json").read_text())
    index["chunks"][0]["filename"] = "../../secret"
    (damaged / "index.json").write_text(json.dumps(index))
    assert "names files elsewhere" in refused(make, path=str(damaged))


RUN = [
    "data=shards", "data.classes=4", "model=mlp", "model.widths=[16]", "train.global_batch=16", "train.epochs=null",
    "train.steps=12", "metrics.every=1", "evaluate.every=6", "checkpoint.every=6", "checkpoint.keep_last=10",
    "loader.shuffle_chunks=2",
]  # fmt: skip


def test_a_run_resumes_exactly_and_two_ranks_equal_one(shards, tmp_path):
    """More than an epoch, through a cache of five of fourteen chunks; two ranks read without workers."""
    size = max(path.stat().st_size for path in shards.glob("*.bin"))
    words = [
        *RUN, f"data.path=local:{shards}", f"data.cache={tmp_path / 'cache'}", f"data.cache_gigabytes={5 * size / 1e9}",
        "loader=stream", "loader.workers=2",
    ]  # fmt: skip
    straight, resumed, two = tmp_path / "straight", tmp_path / "resumed", tmp_path / "two"
    train_ranks(words, straight)
    back_to(6, straight, resumed)
    for path in (tmp_path / "cache").glob("shards-*/*/*.bin"):
        path.unlink()
    train_ranks([], resumed, resume=True)
    assert_equal_runs(resumed, straight, 12)
    train_ranks([*words[:-1], "loader.workers=0", "strategy=ddp"], two, 2)
    for one, both in zip(records(straight, "train"), records(two, "train"), strict=True):
        assert both["loss"] == pytest.approx(one["loss"], rel=1e-5)


def test_a_small_set_trains_from_memory(shards, tmp_path):
    words = [word for word in RUN if "shuffle" not in word]
    summary = train_ranks([*words, f"data.path={shards}", "loader=memory"], tmp_path)
    assert summary["steps"] == 12


def test_resuming_reads_nothing_of_what_came_before(make, shards, monkeypatch):
    from accel_cli.loader.chunks import ChunkOrder
    from accel_cli.loader.order import Order

    train = make("shards", path=str(shards), classes=4).split("train")
    order = ChunkOrder(Order(0, len(train), 10), train.chunk_sizes, 2)
    read = set()
    monkeypatch.setattr(train.store, "_open", lambda chunk, own=train.store._open: (read.add(chunk), own(chunk))[1])
    for step in (12, 13):
        for sample in order.share(step)[1].tolist():
            train[sample]
    assert read == set(order.blocks(0).chunks[6].tolist())


def test_auto_takes_stream_and_a_small_cache_is_refused(shards, tmp_path, monkeypatch):
    planned = plan(["data=shards", f"data.path={shards}", "data.classes=4", "model=mlp"])
    assert planned.run.loader.option == "stream"
    (decision,) = (d for d in planned.decisions if d.key == "loader")
    assert "a few of them are on the disk at a time" in decision.why
    with pytest.raises(ConfigError, match="do not lie in chunks"):
        plan(["loader=stream"])
    words = [*RUN, f"data.path=local:{shards}", f"data.cache={tmp_path}", "data.cache_gigabytes=1e-6", "loader=stream"]
    with pytest.raises(RuntimeError, match=r"two times loader.shuffle_chunks=2 chunks"):
        train_ranks(words, tmp_path / "run")
