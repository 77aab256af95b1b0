"""What passes that make models smaller are worth: the metric of a run with a pass and of the same without, by seed.

    .venv/bin/python benchmarks/compress.py distill [--data cifar]   a student with a teacher, and the same alone
    .venv/bin/python benchmarks/compress.py masks [--data cifar]     90% of the weights pruned, and dense; a resume
    .venv/bin/python benchmarks/compress.py structured [--data cifar]  half the multiply-adds, and dense
    .venv/bin/python benchmarks/compress.py chain [--data cifar]     prune_structured, distill and qat in one run

Both arms of a seed have the same data, first weights, batches and steps. Told are the test metric's mean and spread
over seeds, and the mean of the seeds' own differences with its 95% interval by Student's t. The student learns from a
few images of each class, its teacher has seen more of them; the test images neither has seen. --data cifar reads
shared/data/cifar10-jpeg.tar.xz beside the repository, or --archive.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import shutil
import statistics
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from arms import ACCEL, HERE
from compare import merged, table
from PIL import Image
from safetensors.torch import load_file
from scipy.stats import t as student_t

from accel_cli.analysis.summary_panel import lines
from accel_cli.api import train
from accel_cli.data.digits import read_digits

ARCHIVE = HERE.parents[1] / "shared/data/cifar10-jpeg.tar.xz"
TEST, VALIDATION = {"digits": 60, "cifar": 100}, 10
"""Images of each class that are kept apart."""
MANY, FEW = {"digits": 100, "cifar": 500}, {"digits": 10, "cifar": 50}
"""Images of each class that the teacher, and the student, is trained on."""
DISTILL, PRUNE = "compression.passes.distill", "compression.passes.prune_magnitude"
SHORT = ["hardware=cpu", "train.epochs=null", "metrics.every=100", "evaluate.every=1000000", "checkpoint.every=1000000",
         "data=image_folder"]  # fmt: skip
SMALL = ["model=cnn", "model.channels=[16,32]", "optimizer.learning_rate=0.01"]
RESNET = ["model=resnet", "model.width=16", "model.blocks=[1,1,1]", "train.steps=1500"]
DATA = {"digits": ["data.channels=1"], "cifar": ["augment=[flip,crop]"]}
LARGE = {"digits": ["model=cnn", "train.steps=600"], "cifar": RESNET}
WIDE = {
    "digits": ["model=cnn", "model.channels=[128,256,256]", "train.steps=300"],
    "cifar": ["model=resnet", "model.width=64", "model.blocks=[1,1]", "train.steps=400"],
}
STUDENT = {
    "digits": [*SMALL, "train.steps=300"],
    "cifar": [*SMALL, "model.channels=[16,32,64]", "train.steps=600"],
}
TAUGHT = {
    "digits": [f"{DISTILL}.temperature=4.0", f"{DISTILL}.share=0.9"],
    "cifar": [f"{DISTILL}.temperature=4.0", f"{DISTILL}.share=0.9", f"{DISTILL}.cache=false"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=tuple(PARTS))
    parser.add_argument("--data", choices=tuple(DATA), default="digits")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--archive", type=Path, default=ARCHIVE)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--with", dest="more", nargs="*", default=[], metavar="OVERRIDE", help="for all arms")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        PARTS[given.part](Bench(Path(folder), given))


class Bench:
    """Runs in a folder, by what was given on the command line."""

    def __init__(self, folder: Path, given: argparse.Namespace) -> None:
        self.folder, self.given = folder, given
        self.words = [*SHORT, *DATA[given.data], f"hardware.threads={given.threads}"]
        images = digits() if given.data == "digits" else cifar(given.archive)
        lay_out(images, given.data, folder)

    def images(self, which: str) -> str:
        """The data of ``many`` or ``few`` images of each class."""
        return f"data.root={self.folder / which}"

    def run(self, name: str, seed: int, *words: str) -> tuple[Path, float]:
        """(run folder, test metric) of a run."""
        place = self.folder / f"{name}-{seed}"
        given = merged([*self.words, *words, f"train.seed={seed}", *self.given.more])
        summary = train(given, run_dir=place)
        value = float(summary["metric"]["value"])
        print(f"seed {seed}: {name} {summary['metric']['name']} {value:.4f}", flush=True)
        return place, value

    @property
    def seeds(self) -> range:
        return range(self.given.seeds)


def distill(bench: Bench) -> None:
    data = bench.given.data
    found: dict[str, list[float]] = {"teacher": [], "alone": [], "taught": []}
    for seed in bench.seeds:
        teacher, value = bench.run("teacher", seed, *LARGE[data], bench.images("many"))
        found["teacher"].append(value)
        student = [*STUDENT[data], bench.images("few")]
        found["alone"].append(bench.run("alone", seed, *student)[1])
        pass_ = ["compression=distill", f"{DISTILL}.teacher={teacher}", f"{DISTILL}.checkpoint=latest", *TAUGHT[data]]
        found["taught"].append(bench.run("taught", seed, *student, *pass_)[1])
    print(told(found, ("taught", "alone")))


def masks(bench: Bench) -> None:
    data = bench.given.data
    found: dict[str, list[float]] = {"dense": [], "pruned": []}
    dense = [*LARGE[data], bench.images("many")]
    pruned = [*dense, "compression=prune_magnitude", f"{PRUNE}.sparsity=0.9"]
    rows: list[Sequence[object]] = [["seed", "of masked weights zero", "of all parameters zero", "said of speed"]]
    for seed in bench.seeds:
        found["dense"].append(bench.run("dense", seed, *dense)[1])
        place, value = bench.run("pruned", seed, *pruned)
        found["pruned"].append(value)
        zero, masked, every = counted(place)
        row = json.loads((place / "compression.json").read_text())[-1]
        rows.append([seed, f"{zero / masked:.4f}", f"{zero / every:.4f}", row["notes"][-1]])
    print(table(rows))
    print(told(found, ("pruned", "dense")))
    steps = int(json.loads((place / "summary.json").read_text())["steps"])
    half = [f"checkpoint.every={steps // 2}", "checkpoint.keep_last=9"]
    straight, _ = bench.run("straight", 0, *pruned, *half)
    print(f"killed after step {steps // 2} and resumed: {resumed(straight, steps // 2)}")


def structured(bench: Bench) -> None:
    data = bench.given.data
    found: dict[str, list[float]] = {"dense": [], "pruned": []}
    wide = [*WIDE[data], bench.images("many")]
    rows: list[Sequence[object]] = [
        [
            "seed",
            "multiply-adds",
            "file",
            "latency, times quicker",
            "same model twice",
            "a training step, times quicker",
        ]
    ]
    for seed in bench.seeds:
        dense, value = bench.run("dense", seed, *wide)
        found["dense"].append(value)
        pruned, value = bench.run("pruned", seed, *wide, "compression=prune_structured")
        found["pruned"].append(value)
        (row,) = json.loads((pruned / "compression.json").read_text())
        before, after, latency, step = row["before"], row["after"], row["latency"], row["step_milliseconds"]
        rows.append(
            [
                seed,
                f"{after['multiply_adds'] / before['multiply_adds']:.3f}",
                f"{weights_bytes(pruned) / weights_bytes(dense):.3f}",
                spoken(latency["times_quicker"]),
                spoken(latency["floor"]),
                f"{step['before'] / step['after']:.2f}",
            ]
        )
    print(table(rows))
    print(told(found, ("pruned", "dense")))


def chain(bench: Bench) -> None:
    data = bench.given.data
    found: dict[str, list[float]] = {"teacher": [], "chain": []}
    for seed in bench.seeds:
        wide = [*WIDE[data], bench.images("many")]
        teacher, value = bench.run("teacher", seed, *wide)
        found["teacher"].append(value)
        passes = ["compression=[prune_structured,distill,qat]", f"{DISTILL}.teacher={teacher}",
                  f"{DISTILL}.checkpoint=latest", *TAUGHT[data]]  # fmt: skip
        place, value = bench.run("chain", seed, *wide, *passes)
        found["chain"].append(value)
        summary, settings = json.loads((place / "summary.json").read_text()), {}
        print("\n".join(f"{label:<18} {text}" for label, text in lines(summary, settings, run="RUN")))
    print(told(found, ("chain", "teacher")))


def weights_bytes(run: Path) -> int:
    return (run / "checkpoints/latest/model.safetensors").stat().st_size


def spoken(ratio: dict[str, float]) -> str:
    return f"{ratio['value']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]"


PNG = b"\x89PNG"
PARTS: dict[str, Callable[[Bench], None]] = {
    "distill": distill, "masks": masks, "structured": structured, "chain": chain,
}  # fmt: skip


Images = dict[str, list[bytes]]
"""Class -> its images as files, in one order."""


def digits() -> Images:
    """As PNG, in a random order."""
    found: Images = {}
    images, classes = read_digits()
    for number in random.Random(0).sample(range(len(images)), len(images)):
        file = io.BytesIO()
        Image.fromarray(images[number, 0] * 15).save(file, "PNG")
        found.setdefault(str(classes[number]), []).append(file.getvalue())
    return found


def cifar(archive: Path) -> Images:
    """The first of each class, by their names in order."""
    found: Images = {}
    with tarfile.open(archive) as opened:
        for member in sorted((m for m in opened.getmembers() if m.isfile()), key=lambda m: m.name):
            name = Path(member.name).parent.name
            file = opened.extractfile(member) if "train" in Path(member.name).parts else None
            if file is not None and len(found.setdefault(name, [])) < TEST["cifar"] + VALIDATION + MANY["cifar"]:
                found[name].append(file.read())
    return found


def lay_out(images: Images, data: str, folder: Path) -> None:
    """Two image folders, ``many`` and ``few``, of the same test and validation."""
    for which, count in (("many", MANY[data]), ("few", FEW[data])):
        for name, files in images.items():
            ends = {"test": TEST[data], "validation": TEST[data] + VALIDATION, "train": TEST[data] + VALIDATION + count}
            begin = 0
            for part, end in ends.items():
                place = folder / which / part / name
                place.mkdir(parents=True)
                for number, file in enumerate(files[begin:end], begin):
                    (place / f"{number:05}.{'png' if file[:4] == PNG else 'jpg'}").write_bytes(file)
                begin = end


def counted(run: Path) -> tuple[int, int, int]:
    """(zeros, numbers in weights of two dimensions or more, numbers in all parameters) of a run's finished model."""
    tensors = load_file(run / "checkpoints/finished/model.safetensors")
    parameters = {n: v for n, v in tensors.items() if "running_" not in n and "num_batches" not in n}
    masked = [value for value in parameters.values() if value.dim() > 1]
    zero = sum(int((value == 0).sum()) for value in masked)
    return zero, sum(value.numel() for value in masked), sum(value.numel() for value in parameters.values())


def resumed(straight: Path, step: int) -> str:
    """Take a run back to where it was saved at ``step``, resume it, and compare all tensors of the last checkpoint."""
    again = straight.with_name("resumed")
    shutil.copytree(straight, again, symlinks=True)
    (again / "summary.json").unlink()
    shutil.rmtree(again / "checkpoints/finished")
    for path in (again / "checkpoints").glob("step-*"):
        if int(path.name.removeprefix("step-")) > step:
            shutil.rmtree(path)
    subprocess.run([*ACCEL, "resume", str(again)], check=True, capture_output=True)
    last = sorted((straight / "checkpoints").glob("step-*"))[-1]
    files = sorted(last.glob("*.safetensors"))
    same = all(equal(path, again / "checkpoints" / last.name / path.name) for path in files)
    names = ", ".join(path.stem for path in files)
    return f"the same bits ({names})" if same else f"NOT the same bits ({names})"


def equal(one: Path, other: Path) -> bool:
    first, second = load_file(one), load_file(other)
    return first.keys() == second.keys() and all(torch.equal(second[name], value) for name, value in first.items())


def told(found: dict[str, list[float]], pair: tuple[str, str]) -> str:
    """Mean and spread of every arm, and of the differences of two, seed by seed."""
    rows: list[Sequence[object]] = [["arm", "mean", "standard deviation", "least", "most"]]
    for name, values in found.items():
        spread = statistics.stdev(values) if len(values) > 1 else float("nan")
        rows.append([name, *(f"{x:.4f}" for x in (statistics.mean(values), spread, min(values), max(values)))])
    first, second = pair
    apart = [a - b for a, b in zip(found[first], found[second], strict=True)]
    middle, half = statistics.mean(apart), interval(apart)
    verdict = "better" if middle > half else "worse" if -middle > half else "cannot tell"
    told_apart = f"{first} - {second}: {middle:+.4f} [{middle - half:+.4f}, {middle + half:+.4f}], n={len(apart)} seeds"
    return f"{table(rows)}\n{told_apart}: {verdict}"


def interval(values: Sequence[float]) -> float:
    """Half of the 95% interval of a mean, by Student's t; infinite for one value."""
    if len(values) < 2:
        return float("inf")
    return float(student_t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5


if __name__ == "__main__":
    main()
