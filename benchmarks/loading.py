"""Batches of small augmented images: accel's memory loader against DataLoader, tf.data and SPDL (goal G2).

    .venv/bin/python benchmarks/loading.py --data FOLDER                    FOLDER holds train/<class>/*.jpg, 32 x 32
    .venv/bin/python benchmarks/loading.py --archive cifar10.tar.xz --peers DIR         unpacked for the time being
    .venv/bin/python benchmarks/loading.py --data FOLDER --augment "augment=[flip,crop,cutout]" --cutout 8
    .venv/bin/python benchmarks/loading.py --samples 1000 --rounds 2        a trial, on images that it makes

Every arm flips, crops from 4 reflected pixels, normalises to float32 [128, 3, 32, 32], in an order drawn anew each
epoch. A first epoch of each is not timed, but looked at: samples, mean, deviation, blank pixels; and before all, each
arm is given images on which a flip and a shift can be read off. Figures are microseconds for a sample.

dataloader 0, 1, 2    torchvision v2 over ImageFolder, with so many workers; dataloader decoded reads no JPEG
spdl, tf.data         decode at each read, in threads; tf.data cached decodes once

Then the cache: building it against one pass of ImageFolder's own decoding, and what two ranks on one cache hold.
"""

from __future__ import annotations

import argparse
import json
import random
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import arms
import numpy as np
import peers
from arms import Failed, Sample
from compare import interleave, ratio
from PIL import Image

PEERS = {"spdl": "spdl", "tf.data": "tensorflow", "tf.data cached": "tensorflow"}
LOADERS = ["dataloader 0", "dataloader 1", "dataloader 2", "dataloader decoded"]
TIMES = 20.0
"""More samples a CPU second than the best DataLoader."""
LIMIT_OF_BUILD = 1.2
PROBES = 1280


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="holds train/<class>/*")
    parser.add_argument("--archive", type=Path, help="a tar file of such a folder")
    parser.add_argument("--samples", type=int, default=5000, help="images of one epoch (5000)")
    parser.add_argument("--epochs", type=int, help="timed, of accel; the others take a tenth, at least one")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--augment", default="augment=basic", help="accel's words, as one would type them")
    parser.add_argument("--cutout", type=int, default=0, help="side of the peers' blank square, in pixels")
    parser.add_argument("--only", choices=("batches", "cache"), help="one half of it")
    arms.options(parser, rounds=8)
    given = parser.parse_args()
    given.epochs = given.epochs or 20
    if ("cutout" in given.augment) != bool(given.cutout):
        parser.error(
            f"{given.augment} and --cutout {given.cutout}: give the peers the square that accel blanks, or none"
        )
    noise = arms.Noise()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        root = subset(given, place)
        missing: dict[str, str] = {}
        verdicts: list[str] = []
        kept: dict[str, Any] = {}
        if given.only != "cache":
            verdicts += batches(given, place, root, missing, kept)
        if given.only != "batches":
            verdicts += cache(given, place, root, kept)
        arms.close(given, verdicts, missing, kept, noise)


def subset(given: argparse.Namespace, place: Path) -> Path:
    """``--samples`` images, as many of each class, with one of each to validate and test on."""
    source = given.data
    if given.archive:
        arms.say(f"unpacking {given.archive.name}")
        with tarfile.open(given.archive) as archive:
            archive.extractall(place / "archive", filter="data")
        source = place / "archive"
    if source is None:
        arms.say("no --data and no --archive: images of noise, as many; decoding them costs about the same")
        return made(place / "images", given.samples)
    if not (source / "train").is_dir():
        raise SystemExit(f"{source} holds no train/<class>/*")
    root, classes = place / "images", sorted(path for path in (source / "train").iterdir() if path.is_dir())
    each = max(1, given.samples // len(classes))
    for folder in classes:
        files = sorted(folder.iterdir())
        random.Random(0).shuffle(files)
        for split, some in (("train", files[:each]), ("validation", files[-1:]), ("test", files[-2:-1])):
            (root / split / folder.name).mkdir(parents=True, exist_ok=True)
            for file in some:
                shutil.copyfile(file, root / split / folder.name / file.name)
    return root


def made(root: Path, count: int, image: Any = None) -> Path:
    """A folder of JPEG images in ten classes: noise over a colour, or all the same ``image``."""
    draw = np.random.default_rng(0)
    for number in range(10):
        for split, some in (("train", count // 10), ("validation", 1), ("test", 1)):
            folder = root / split / f"class{number}"
            folder.mkdir(parents=True)
            for index in range(some):
                pixels = image
                if pixels is None:
                    cells = draw.integers(0, 256, (8, 8, 3)).repeat(4, 0).repeat(4, 1)
                    pixels = np.clip(cells + draw.normal(0, 20, (32, 32, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{index:05}.jpg", quality=95)
    return root


def words(given: argparse.Namespace, root: Path, cache: Path) -> list[str]:
    return [
        "data=image_folder", f"data.root={root}", f"data.cache={cache}", "loader=memory", *shlex.split(given.augment),
        "model=mlp", "model.widths=[]", "hardware=cpu", f"hardware.threads={given.threads}",
        f"train.global_batch={given.batch}", "train.epochs=1000000",
    ]  # fmt: skip


def batches(
    given: argparse.Namespace, place: Path, root: Path, missing: dict[str, str], kept: dict[str, Any]
) -> list[str]:
    mean, std = statistics_of(root)
    common = {
        "batch": given.batch, "threads": given.threads, "cutout": given.cutout, "mean": mean, "std": std,
        "probe": False, "root": str(root), "words": words(given, root, place / "cache"),
    }  # fmt: skip
    pythons, absent = peers.find(given.peers, sorted(set(PEERS.values())))
    missing |= absent
    known = dict.fromkeys(("accel", *LOADERS), sys.executable)
    known["accel again"] = sys.executable
    known |= {arm: pythons[peer] for arm, peer in PEERS.items() if peer in pythons}

    def arm(name: str, python: str) -> Callable[[], Sample]:
        kind = name.removesuffix(" again")
        epochs = given.epochs if kind == "accel" else max(1, given.epochs // 10)
        return partial(by_arm, python, kind, {**common, "epochs": epochs}, place, given.threads)

    turns = arms.chosen({name: arm(name, python) for name, python in known.items()}, given.arm)
    turns = arms.that_work(turns, PEERS, missing)
    probed = probe(given, place, common, {name: known[name] for name in turns if name != "accel again"})
    found = interleave(turns, given.rounds, arms.say)
    for samples in found.values():
        for sample in samples:  # of one training sample
            sample["wall"] /= sample["count"]
            sample["cpu"] /= sample["count"]
    reference = "accel" if "accel" in found else next(iter(found))
    facts = {name: same_work(name, found[name][0], found[reference][0]) for name in found}
    title = f"{given.samples} images an epoch, batches of {given.batch}, {given.augment}, {given.threads} threads"
    lines = arms.rows(found, reference, unit=1e6, unit_name="us/sample", facts=facts)
    arms.show(title, lines)
    print(f"\nwhat was done to {PROBES} images on which it shows (half flipped; chi-square below 26.1)")
    for name, told in probed.items():
        print(f"{name}: {told}")
    kept |= {"samples": found, "probed": probed}
    return times_faster(found)


def by_arm(python: str, kind: str, given: dict[str, Any], place: Path, threads: int) -> Sample:
    at = arms.folder(place / "arm")
    (at / "given.json").write_text(json.dumps(given))
    command = [python, str(arms.HERE / "loading_arm.py"), kind, str(at)]
    return arms.windowed(command, threads, at, at / "window.json")


def probe(given: argparse.Namespace, place: Path, common: dict[str, Any], known: dict[str, str]) -> dict[str, str]:
    """Each arm once on images that grow redder to the right and greener downwards."""
    ramp = np.zeros((32, 32, 3), dtype=np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(32)[None, :] * 8, np.arange(32)[:, None] * 8
    root = made(place / "ramps", PROBES, ramp)
    changed = {
        **common, "root": str(root), "words": words(given, root, place / "cache"), "probe": True, "epochs": 1,
    }  # fmt: skip
    told = {}
    for name, python in known.items():
        arms.say(f"looking at what {name} does")
        shifts = by_arm(python, name, changed, place, given.threads)["shifts"]
        told[name] = f"{100 * shifts['flipped']:.0f}% flipped, shifts {shifts['chi_square']:.1f}"
        if not 0.4 < shifts["flipped"] < 0.6 or shifts["chi_square"] > 40:
            told[name] += ": NOT the same augmentation"
    return told


def statistics_of(root: Path) -> tuple[list[float], list[float]]:
    """Of each channel, over the training images."""
    images = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in sorted((root / "train").rglob("*.jpg"))])
    flat = images.reshape(-1, 3).astype(np.float64)
    return flat.mean(0).tolist(), flat.std(0).tolist()


def same_work(name: str, sample: Sample, other: Sample) -> str:
    own, theirs = sample["seen"], other["seen"]
    apart = max(abs(own[key] - theirs[key]) for key in ("mean", "std"))
    same = (own["samples"], own["classes"]) == (theirs["samples"], theirs["classes"]) and apart < 0.05
    told = f"{own['samples']} samples, mean {own['mean']:.3f}, std {own['std']:.3f}, blank {100 * own['blank']:.1f}%"
    return f"{told}; {sample['version']}" + ("" if same else "; NOT the same work")


def times_faster(found: dict[str, list[Sample]]) -> list[str]:
    """Against the best of each kind, in samples a second of CPU and of wall."""
    if "accel" not in found:
        return ["accel: not measured"]
    lines = []
    if "accel again" in found:
        floors = {w: ratio(arms.pick(found["accel again"], w), arms.pick(found["accel"], w)) for w in ("cpu", "wall")}
        lines.append(f"floor, accel / accel: CPU {floors['cpu']}, wall {floors['wall']}")
    for name in found:
        if name in ("accel", "accel again"):
            continue
        cpu, wall = (ratio(arms.pick(found[name], w), arms.pick(found["accel"], w)) for w in ("cpu", "wall"))
        lines.append(f"samples a CPU second, accel / {name}: {cpu}; a second: {wall}")
    loaders = [name for name in LOADERS[:3] if name in found]
    if loaders:
        best = min(loaders, key=lambda name: float(np.median(arms.pick(found[name], "cpu"))))
        own = ratio(arms.pick(found[best], "cpu"), arms.pick(found["accel"], "cpu"))
        rounds = len(found["accel"])
        said = "holds" if own.low >= TIMES else "broken" if own.high < TIMES else "cannot tell"
        said = said if rounds >= arms.FEWEST else arms.FEW
        lines.append(f"best DataLoader ({best}) / accel, CPU: {own}; at least {TIMES:g}: {said}")
    return lines


def cache(given: argparse.Namespace, place: Path, root: Path, kept: dict[str, Any]) -> list[str]:
    """Building the cache, and two ranks on one."""

    def build() -> Sample:
        shutil.rmtree(place / "built", ignore_errors=True)
        common = {"words": words(given, root, place / "built"), "root": str(root)}
        return by_arm(sys.executable, "build", common, place, given.threads)

    decode = partial(by_arm, sys.executable, "decode", {"root": str(root)}, place, given.threads)
    turns: dict[str, Callable[[], Sample]] = {"build": build, "ImageFolder": decode}
    if given.rounds > 1:  # one round has no floor
        turns["ImageFolder again"] = decode
    found = interleave(turns, given.rounds, arms.say)
    whole = sum(1 for _ in root.rglob("*.jpg"))
    for name, samples in found.items():
        for sample in samples:
            count = whole if name == "build" else sample["count"]
            sample["wall"] /= count
            sample["cpu"] /= count
    arms.show("decoding the folder once", arms.rows(found, "ImageFolder", unit=1e6, unit_name="us/image"))
    kept["cache"] = found
    lines = arms.judge(found, "build", "ImageFolder", "ImageFolder again", LIMIT_OF_BUILD)
    return [*lines, shared(given, place, root)]


def shared(given: argparse.Namespace, place: Path, root: Path) -> str:
    """Two processes that have read the whole cache: whether its pages are in memory once."""
    if not Path("/proc/self/smaps_rollup").exists():
        return "two ranks on one cache: not measured: this system has no smaps"
    at = arms.folder(place / "arm")
    (at / "given.json").write_text(json.dumps({"words": words(given, root, place / "built"), "batch": given.batch}))
    command = [sys.executable, str(arms.HERE / "loading_arm.py"), "hold", str(at)]
    held = [
        subprocess.Popen(
            command, env=arms.environment(given.threads), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    try:
        first = [answer(process) for process in held]
        for process in held:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        second = [answer(process) for process in held]
    finally:
        for process in held:
            process.kill()
            process.wait()
    same = first[0]["inodes"] == first[1]["inodes"] and len(first[0]["inodes"]) == 1
    rss, pss = sum(each["rss"] for each in first), sum(each["pss"] for each in second)
    whole = [f"{each['whole_pss'] / 1e3:.0f} of {each['whole_rss'] / 1e3:.0f} MB" for each in second]
    return (
        f"two ranks on one cache: {'one file' if same else 'NOT one file'}; of its pages they map {rss / 1e3:.1f} MB, "
        f"{pss / 1e3:.1f} MB by proportional share ({'in memory once' if pss < 0.6 * rss else 'NOT shared'}); the "
        f"processes' own shares: {', '.join(whole)}"
    )


def answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("{"):
            found: dict[str, Any] = json.loads(line)
            return found
    raise Failed("a rank on the cache ended before it was measured")


if __name__ == "__main__":
    main()
