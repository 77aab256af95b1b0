"""accel tune against an exhaustive grid, on a model of one's own: how close it comes, and what it costs.

    .venv/bin/python benchmarks/tune.py                      24 settings, 5 rounds each; then accel tune; then both
    .venv/bin/python benchmarks/tune.py --rounds 1 --seeds 1 --small                         a trial

Both time steps by the same probes: every arm set up anew each round, in turns with the others. What the grid calls its
best and what tune chose are then timed against each other in rounds of their own, for the luckiest of 24 looks better
than it is. The grid's cost is that of its probes; tune's is told for its search alone, and with all that it confirms.
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
import time
from pathlib import Path

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
       "train.epochs=4", "evaluate.every=64"]  # fmt: skip
AXES = {
    "loader": ["workers", "threads", "memory"],
    "hardware.threads": ["2", "1"],
    "hardware.memory_format": ["contiguous", "channels_last"],
    "optimizer.kernel": ["loop", "fused"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="of the grid")
    parser.add_argument("--final", type=int, default=13, help="rounds of the two best against each other")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--budget", type=float, default=4.0, help="minutes of tune")
    parser.add_argument("--small", action="store_true", help="four settings")
    arguments = parser.parse_args()
    axes = dict(itertools.islice(AXES.items(), 1, 3)) if arguments.small else AXES
    folder = Path(tempfile.mkdtemp(prefix="accel-tune-"))
    (folder / "own.py").write_text(OWN)
    with contextlib.chdir(folder):
        chosen = tune(axes, arguments)
        compare(axes, chosen, arguments)
    load = os.getloadavg()[1]
    print(f"{os.cpu_count()} cores, load {load:.1f} over the last minutes; files in {folder}")


def tune(axes: dict[str, list[str]], arguments: argparse.Namespace) -> dict:
    words = [f"{key}={','.join(values)}" for key, values in axes.items()]
    line = [sys.executable, "-m", "accel_cli", "tune", *RUN, *words, "floor=validation_accuracy-0.003"]
    line += ["--plugin", "own.py", "--seeds", str(arguments.seeds), "--budget", str(arguments.budget), "--json"]
    found = json.loads(subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True).stdout)
    chosen, metric = found["chosen"], found["chosen"]["metric"]
    print(
        f"tune: {' '.join(chosen['words']) or 'as it stands'}, {found['status']}, in {found['spent_seconds']:.0f} s, "
    )
    print(f"  {found['search_seconds']:.0f} s of them the search; ratio to the baseline {chosen['ratio']}")
    if metric:
        print(f"  {metric['name']} {metric['difference']}, {len(metric['values'])} seeds, floor: {metric['floor']}")
    for row in found["bought"]:
        print(f"  {row['technique']} bought {row['ratio']}: {row['verdict']}")
    return found


def compare(axes: dict[str, list[str]], tuned: dict, arguments: argparse.Namespace) -> None:
    points = [
        [f"{key}={value}" for key, value in zip(axes, values, strict=True)]
        for values in itertools.product(*axes.values())
    ]
    arms = {" ".join(point): plan([*RUN, *point], plugins=["own.py"]) for point in points}
    first = next(iter(arms))
    began = time.monotonic()
    with Crew() as crew:
        stage = Stage(crew, arms, Path("grid").resolve())
        stage.look()
        taken = []
        for number in range(arguments.rounds):
            taken.append(stage.round())
            print(f"grid: round {number + 1} of {arguments.rounds}", file=sys.stderr, flush=True)
        seconds = time.monotonic() - began
        ratios = {
            name: statistics.median(r[name] / math.sqrt(r[first] * r[AGAIN]) for r in taken if name in r)
            for name in arms
        }
        best = min(ratios, key=lambda name: ratios[name])
        mine = " ".join(
            sorted(over(points[0], tuned["chosen"]["words"]), key=lambda w: list(axes).index(w.partition("=")[0]))
        )
        print(f"grid: {len(arms)} settings, {arguments.rounds} rounds, {seconds:.0f} s")
        for name in sorted(ratios, key=lambda name: ratios[name])[:5]:
            print(f"  {ratios[name]:.3f}  {name}")
        print(f"  {ratios[mine]:.3f}  {mine}   (tune's)")
        share = tuned["search_seconds"] / seconds
        print(
            f"tune's search cost {share:.2f} of the grid's probes, all of tune {tuned['spent_seconds'] / seconds:.2f}"
        )
        if mine == best:
            print("tune / best of the grid: the same settings")
            return
        last = Stage(crew, {"grid": arms[best], "tune": arms[mine]}, Path("final").resolve())
        last.look()
        rounds = [last.round() for _ in range(arguments.final)]
        both = interval([r["tune"] / math.sqrt(r["grid"] * r[AGAIN]) for r in rounds], 0.01)
        floor = interval([r[AGAIN] / r["grid"] for r in rounds], 0.01)
        print(f"tune / best of the grid: {both}; the grid's best against itself: {floor}; {len(rounds)} rounds")


if __name__ == "__main__":
    main()
