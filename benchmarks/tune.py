"""accel tune against an exhaustive grid, on a model of one's own: how close it comes, and what it costs.

    .venv/bin/python benchmarks/tune.py                      24 settings over 5 seeds, some 25 minutes
    .venv/bin/python benchmarks/tune.py --small --seeds 2 --epochs 4                         a trial

The grid is what answers the same question without tune: accel sweep over every setting and every seed, whole runs all
of them. Its best is the one of the least median seconds of training whose metric keeps the floor. What it calls best
and what tune chose are then timed against each other in rounds of their own, for the luckiest of 24 looks better than
it is.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from accel_cli.analysis.probes import AGAIN, Stage
from accel_cli.analysis.statistics import interval
from accel_cli.analysis.techniques import over
from accel_cli.config.plan import plan
from accel_cli.launch.crew import Crew

OWN = '''
import torch
from torch import nn
from torch.utils.data import Dataset


class Clouds(Dataset):
    """Ten clouds, of images of 16x16."""

    def __init__(self, split, size=2048):
        generator = torch.Generator().manual_seed({"train": 0, "validation": 1, "test": 2}[split])
        centres = torch.randn(10, 1, 16, 16, generator=torch.Generator().manual_seed(7))
        self.labels = torch.arange(size) % 10
        self.images = 1.5 * torch.randn(size, 1, 16, 16, generator=generator) + centres[self.labels]

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.images[index], int(self.labels[index])


class Net(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(4),
            nn.Flatten(), nn.Linear(16 * width, 10),
        )

    def forward(self, images):
        return self.layers(images)
'''
RUN = ["model=custom", "model.factory=own:Net", "data=custom", "data.factory=own:Clouds", "data.classes=10",
       "evaluate.every=64"]  # fmt: skip
AXES = {
    "loader": ["workers", "threads", "memory"],
    "hardware.threads": ["2", "1"],
    "hardware.memory_format": ["contiguous", "channels_last"],
    "optimizer.kernel": ["loop", "fused"],
}
LOSS_ALLOWED = 0.003


class Setting(NamedTuple):
    words: tuple[str, ...]
    seconds: float
    """Of training, a median over seeds."""
    metric: float
    """Its mean."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=13, help="of the two best against each other")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=16, help="of a whole run")
    parser.add_argument("--budget", type=float, default=8.0, help="minutes of tune")
    parser.add_argument("--small", action="store_true", help="four settings")
    arguments = parser.parse_args()
    axes = dict(itertools.islice(AXES.items(), 1, 3)) if arguments.small else AXES
    folder = Path(tempfile.mkdtemp(prefix="accel-tune-"))
    (folder / "own.py").write_text(OWN)
    with contextlib.chdir(folder):
        run = [*RUN, f"train.epochs={arguments.epochs}"]
        compare(run, axes, tune(run, axes, arguments), arguments)
    load = os.getloadavg()[1]
    print(f"{os.cpu_count()} cores, load {load:.1f} over the last minutes; files in {folder}")


def accel(*words: str) -> dict:
    line = [sys.executable, "-m", "accel_cli", *words, "--plugin", "own.py", "--json"]
    return json.loads(subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True).stdout)


def tune(run: list[str], axes: dict[str, list[str]], arguments: argparse.Namespace) -> dict:
    words = [f"{key}={','.join(values)}" for key, values in axes.items()]
    floor, more = f"floor=validation_accuracy-{LOSS_ALLOWED}", ["--seeds", str(arguments.seeds)]
    found = accel("tune", *run, *words, floor, *more, "--budget", str(arguments.budget))
    chosen, metric = found["chosen"], found["chosen"]["metric"]
    print(f"tune: {' '.join(chosen['words']) or 'as it stands'}, {found['status']}, in {found['spent_seconds']:.0f} s")
    print(f"  {found['search_seconds']:.0f} s of them the search; ratio to the baseline {chosen['ratio']}")
    if metric:
        print(f"  {metric['name']} {metric['difference']}, {len(metric['values'])} seeds, floor: {metric['floor']}")
    for row in found["bought"]:
        print(f"  {row['technique']} bought {row['ratio']}: {row['verdict']}")
    return found


def grid(run: list[str], axes: dict[str, list[str]], arguments: argparse.Namespace) -> tuple[float, list[Setting]]:
    """Its seconds, and its settings, the quickest first."""
    seeds = ",".join(map(str, range(arguments.seeds)))
    words = [f"{key}={','.join(values)}" for key, values in axes.items()]
    found = accel("sweep", *run, *words, f"train.seed={seeds}", "--run-dir", "grid")
    runs: dict[tuple[str, ...], list[dict]] = {}
    for row in found["points"]:
        drawn = dict(zip(found["axes"], row["values"], strict=True))
        values = tuple(f"{key}={drawn[key]}" for key in axes)
        runs.setdefault(values, []).append(json.loads(Path("grid", row["run"], "summary.json").read_text()))
    settings = [
        Setting(
            values,
            statistics.median(each["train_seconds"] for each in ended),
            statistics.fmean(each["metric"]["best"] for each in ended),
        )
        for values, ended in runs.items()
    ]
    return found["seconds"], sorted(settings, key=lambda setting: setting.seconds)


def compare(run: list[str], axes: dict[str, list[str]], tuned: dict, arguments: argparse.Namespace) -> None:
    seconds, settings = grid(run, axes, arguments)
    first = tuple(f"{key}={values[0]}" for key, values in axes.items())
    least = next(setting.metric for setting in settings if setting.words == first) - LOSS_ALLOWED
    best = next(setting for setting in settings if setting.metric >= least)
    mine = tuple(sorted(over(first, tuned["chosen"]["words"]), key=lambda w: list(axes).index(w.partition("=")[0])))
    print(f"grid: {len(settings)} settings, {arguments.seeds} seeds, {seconds:.0f} s")
    for setting in settings:
        if setting is best or setting.words in (mine, first) or setting in settings[:5]:
            whose = {best.words: "   (the best)", mine: "   (tune's)"}.get(setting.words, "")
            print(f"  {setting.seconds:.2f} s  {setting.metric:.4f}  {' '.join(setting.words)}{whose}")
    shares = [tuned[key] / seconds for key in ("search_seconds", "confirmed_seconds", "spent_seconds")]
    search, runs, bought = (f"{share:.2f}" for share in shares)
    print(f"tune's search cost {search} of the grid, with its whole runs {runs}, with what each bought {bought}")
    if mine == best.words:
        print("tune / best of the grid: the same settings")
        return
    arms = {name: plan([*run, *words], plugins=["own.py"]) for name, words in (("grid", best.words), ("tune", mine))}
    with Crew() as crew:
        last = Stage(crew, arms, Path("final").resolve())
        last.look()
        rounds = [last.round() for _ in range(arguments.rounds)]
    both = interval([r["tune"] / math.sqrt(r["grid"] * r[AGAIN]) for r in rounds], 0.01)
    floor = interval([r[AGAIN] / r["grid"] for r in rounds], 0.01)
    print(f"tune / best of the grid: {both}; the grid's best against itself: {floor}; {len(rounds)} rounds")


if __name__ == "__main__":
    main()
