"""What the README promises of learning, through the real command, on real data."""

from __future__ import annotations

import json
import math
import sys
import tarfile
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "launch"))
from command import accel, run_folder

SHARED = Path(__file__).parents[1].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the project's real data is not beside this checkout")


def test_the_default_reaches_97_percent_on_the_digits(tmp_path: Path) -> None:
    ended = accel("train", "--json", folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["metric"]["value"] >= 0.97


def test_the_ci_recipe(tmp_path: Path) -> None:
    ended = accel("train", "+recipe=ci_cpu", "--json", folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["world_size"] == 2
    assert found["metric"]["value"] >= 0.96


def unigram_bits(text: bytes) -> float:
    """Entropy of single bytes: what a model that knows only frequencies pays for one."""
    counts = Counter(text)
    return -sum(n / len(text) * math.log2(n / len(text)) for n in counts.values())


TINY_GPT = ["model=gpt", "model.width=64", "model.depth=2", "data.length=64", "train.epochs=null", "train.steps=200",
            "train.global_batch=32", "optimizer.learning_rate=0.004", "schedule.warmup=10", "--json"]  # fmt: skip


@pytest.mark.slow
@needs_shared
def test_a_gpt_on_a_text_file_knows_more_than_frequencies(tmp_path: Path) -> None:
    path = SHARED / "tinyshakespeare.txt"
    ended = accel("train", "data=text", f"data.path={path}", *TINY_GPT, folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["metric"]["value"] < 0.85 * unigram_bits(path.read_bytes())


@pytest.mark.slow
def test_a_gpt_on_pythons_own_library_knows_more_than_frequencies(tmp_path: Path) -> None:
    ended = accel("train", "data=stdlib_text", "data.max_bytes=1000000", *TINY_GPT, folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    library = Path(json.__file__).parents[1]
    text = b"".join(path.read_bytes() for path in sorted(library.glob("*.py"))[:40])
    assert json.loads(ended.stdout)["metric"]["value"] < 0.85 * unigram_bits(text)


@pytest.mark.slow
@needs_shared
def test_cifar_from_a_folder_of_images(tmp_path: Path) -> None:
    """A third of an epoch over all 50,000 images; the folder's own test images are the test split."""
    with tarfile.open(SHARED / "cifar10-jpeg.tar.xz") as archive:
        archive.extractall(tmp_path / "cifar", filter="data")
    ended = accel(
        "train", "data=image_folder", "data.root=cifar", f"data.cache={tmp_path / 'cache'}", "model=resnet",
        "model.blocks=[1,1]", "model.width=8", "train.global_batch=128", "train.steps=120",
        "optimizer.learning_rate=0.01", "metrics.every=20", "--json", folder=tmp_path, timeout=400,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    records = [json.loads(line) for line in (run_folder(tmp_path) / "metrics.jsonl").read_text().splitlines()]
    losses = [record["loss"] for record in records if record["kind"] == "train"]
    assert losses[-1] < 0.9 * losses[0]
    assert found["metric"]["value"] > 0.25
    settings = json.loads((run_folder(tmp_path) / "checkpoints/latest/manifest.json").read_text())["description"]
    assert settings["test_samples"] == 10_000
