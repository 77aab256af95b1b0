"""Whether accel ledger judges rightly what is known beforehand.

    .venv/bin/python benchmarks/ledger.py repeats             three techniques, each alone, ten times, on the digits
    .venv/bin/python benchmarks/ledger.py injected            a step slowed by 5% and by 0.3%, on purpose
    .venv/bin/python benchmarks/ledger.py six                 six techniques: alone, added up, left out; on the digits
    .venv/bin/python benchmarks/ledger.py six --images FOLDER      the same on JPEG files, in train/ and test/

repeats: a data set of one's own that reads image by image. Known to help: decoded once, batches by one gather. Known to
hurt on two cores, with steps this short: two worker processes. Nothing: how many checkpoints are kept.
injected: an optimizer that waits in every step, as long as a share of the step that was measured just before. Counted
as found where it hurts, and as right where 0.3% is no effect or cannot be told.
Each repeat is a command of its own, in a folder of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
from sklearn.datasets import load_digits

ACCEL = [sys.executable, "-m", "accel_cli", "ledger"]
SMALL = "data=custom data.factory=own:digits model=mlp hardware.threads=1 loader=workers loader.workers=0"
THREE = {
    "loader=memory": ("helps",),
    "loader=workers loader.workers=2": ("hurts",),
    "checkpoint.keep_last=7": ("no effect", "cannot tell"),
}
SIX = [
    "loader=memory",
    "optimizer.kernel=loop",
    "hardware.allocator=system",
    "train.ema=0.99",
    "checkpoint.keep_last=7",
    "metrics.every=5",
]
CODE = '''
import time
import torch
import numpy

class Digits(torch.utils.data.Dataset):
    """Handwritten digits, one at a time, as users' data sets read them."""
    classes = [str(number) for number in range(10)]
    def __init__(self, places):
        found = numpy.load("digits.npz")
        self.images = (found["images"][places] / 16).astype("float32")[:, None]
        self.targets = found["target"][places]
    def __len__(self):
        return len(self.targets)
    def __getitem__(self, index):
        return torch.from_numpy(self.images[index]), int(self.targets[index])

def digits(split):
    return Digits({"train": slice(0, 1200), "validation": slice(1200, 1500), "test": slice(1500, None)}[split])

def images(split, root):
    """Every tenth file of a folder, decoded whenever it is read."""
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import ToTensor
    found = ImageFolder(f"{root}/{'test' if split == 'test' else 'train'}", ToTensor())
    some = torch.utils.data.Subset(found, range(5 if split == "validation" else 0, len(found), 10))
    some.classes = found.classes
    return some

class Slowed(torch.optim.AdamW):
    """AdamW that takes so many seconds more."""
    def __init__(self, parameters, delay=0.0, **more):
        super().__init__(parameters, fused=True, **more)
        self.delay = delay
    def step(self, closure=None):
        found = super().step(closure)
        end = time.perf_counter() + self.delay
        while time.perf_counter() < end:
            pass
        return found
'''
OWN = "model=cnn hardware.threads=1 loader=memory optimizer=custom optimizer.factory=own:Slowed"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("repeats", "injected", "six"))
    parser.add_argument("--times", type=int, default=10, help="of the part repeats; 3 of injected")
    parser.add_argument("--budget", type=float, default=3.0, help="minutes of one ledger")
    parser.add_argument("--images", type=Path, help="folder with train/<class>/* and test/<class>/*, for the part six")
    parser.add_argument("--seeds", type=int, default=3, help="of the whole runs, for the part six")
    parser.add_argument("--error", type=float, default=0.001, help="of one verdict")
    arguments = parser.parse_args()
    {"repeats": repeats, "injected": injected, "six": six}[arguments.part](arguments)


def repeats(arguments: argparse.Namespace) -> None:
    right: Counter[str] = Counter()
    for number in range(arguments.times):
        found = ledger(list(THREE), "--alone", "--base", SMALL, arguments=arguments)
        for row in found["rows"]:
            right[row["technique"]] += row["verdict"] in THREE[row["technique"]]
        print(f"{number + 1}: {said(found)}", flush=True)
    for technique, times in right.items():
        print(f"{technique}: right in {times} of {arguments.times}")


def injected(arguments: argparse.Namespace) -> None:
    for _ in range(min(3, arguments.times)):
        first = ledger(["checkpoint.keep_last=7"], "--alone", "--base", OWN, arguments=arguments, budget=0.2)
        step = first["baseline"]["step_milliseconds"] / 1e3
        techniques = {f"optimizer.args={{delay: {share * step:.9f}}}": share for share in (0.05, 0.003)}
        found = ledger(list(techniques), "--alone", "--base", OWN, arguments=arguments)
        for row in found["rows"]:
            share = techniques[row["technique"]]
            right = row["verdict"] == "hurts" if share > 0.01 else row["verdict"] in ("no effect", "cannot tell")
            text = "right" if right else "WRONG"
            print(f"a step of {1e3 * step:.3f} ms slowed by {share:.1%}: {told(row)}: {text}")
        print(f"  floor {interval(found['floor'])}, {found['rounds']} rounds", flush=True)


def six(arguments: argparse.Namespace) -> None:
    base = SMALL
    if arguments.images:
        base = f"{SMALL.replace('digits', 'images')} data.args={{root: {arguments.images.resolve()}}}"
        base += " train.epochs=null train.steps=150"
    found = ledger(SIX, "--base", base, "--seeds", str(arguments.seeds), arguments=arguments, show=True)
    print(said(found))


def ledger(
    techniques: Sequence[str],
    *words: str,
    arguments: argparse.Namespace,
    budget: float | None = None,
    show: bool = False,
) -> dict[str, Any]:
    """The content of ledger.json of one command."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "own.py").write_text(CODE)
        found = load_digits()
        numpy.savez(Path(folder) / "digits.npz", images=found.images, target=found.target)
        line = [*ACCEL, *techniques, *words, "--plugin", "own.py", "--error", str(arguments.error)]
        line += ["--budget", str(budget or arguments.budget)]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
        output = None if show else subprocess.DEVNULL
        subprocess.run(line, check=True, cwd=folder, env=environment, stdout=output, stderr=output)
        (path,) = Path(folder).glob("runs/*-ledger/ledger.json")
        return dict(json.loads(path.read_text()))


def said(found: dict[str, Any]) -> str:
    rows = "; ".join(f"{row['technique']} {told(row)}" for row in found["rows"] if row["form"] == "alone")
    return f"{rows}; floor {interval(found['floor'])}, {found['rounds']} rounds, {found['probe_seconds']:.0f} s"


def told(row: dict[str, Any]) -> str:
    return f"{row['verdict']} {interval(row['ratio'])}"


def interval(ratio: dict[str, Any] | None) -> str:
    if not ratio or ratio["low"] is None:
        return "[...]"
    return f"{ratio['value']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}]"


if __name__ == "__main__":
    main()
