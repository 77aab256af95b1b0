"""accel's ddp step against a DDP loop written by hand, both under torchrun, taking turns.

.venv/bin/python benchmarks/ddp.py                     the ratio of wall and of CPU seconds, with its noise floor
.venv/bin/python benchmarks/ddp.py --rounds 2 --steps 20     a trial
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from compare import interleave, merged, ratio, table, verdict
from safetensors.torch import load_file

from accel_cli.config import run as run_file
from accel_cli.config.parts import implementation
from accel_cli.config.plan import plan
from accel_cli.config.run import Run
from accel_cli.engine.setup import seed_everything
from accel_cli.loader.finish import Finish
from accel_cli.loader.order import Order
from accel_cli.loader.read import Reader

RANK = Path(__file__).with_name("ddp_rank.py")
LIMIT = 1.01
RUN = [
    "hardware=cpu", "hardware.threads=1", "strategy=ddp", "precision=fp32", "data=stdlib_text", "data.length=64",
    "data.max_bytes=400000", "model=gpt", "model.width=128", "model.depth=4", "model.heads=4", "train.epochs=null",
    "train.global_batch=32", "optimizer=sgd", "optimizer.learning_rate=0.1", "optimizer.momentum=0.9",
    "optimizer.weight_decay=0", "schedule=constant", "evaluate.every=1000000", "checkpoint.every=1000000",
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=120, help="steps of a run; a sixth of them warms up")
    parser.add_argument("--clip", type=float, help="clip gradients to this norm, in both")
    parser.add_argument("--json", type=Path, help="write all samples and ratios here")
    parser.add_argument("overrides", nargs="*", help="of accel's run, such as model.width=64; not the optimizer")
    arguments = parser.parse_intermixed_args()
    with tempfile.TemporaryDirectory() as folder:
        result = compare(arguments, Path(folder))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1))


def compare(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    words = [*RUN, f"train.steps={arguments.steps}", *arguments.overrides]
    if arguments.clip:
        words.append(f"train.clip_norm={arguments.clip}")
    run = plan(merged(words)).run
    prepare(run, folder, arguments.clip)
    arms = {
        "accel": lambda: measured("accel", run, folder),
        "hand": lambda: measured("hand", run, folder),
        "hand again": lambda: measured("hand", run, folder),
    }
    found = interleave(arms, arguments.rounds, lambda text: print(text, file=sys.stderr))
    difference = equal_work(folder)
    rows: list[list[object]] = [["accel / hand", "ratio", "floor (hand / hand)", f"at most {LIMIT}"]]
    ratios = {}
    for what in ("cpu", "wall"):
        samples = {name: [each[what] for each in runs] for name, runs in found.items()}
        own, floor = ratio(samples["accel"], samples["hand"]), ratio(samples["hand again"], samples["hand"])
        ratios[what] = {"ratio": own, "floor": floor, "verdict": verdict(own, floor, LIMIT)}
        rows.append([f"{what} seconds", own, floor, ratios[what]["verdict"]])
    print(table(rows))
    print(f"equal work: the final weights differ by at most {difference:.1e} of the largest")
    return {"samples": found, "ratios": ratios, "difference": difference}


def prepare(run: Run, folder: Path, clip: float | None) -> None:
    """What the loop by hand starts from: the same model, the same samples in the same order."""
    data = implementation("data", run.data)(run.data, run.train.seed)
    description = data.describe()
    ranks, steps = run.launch.processes, run.train.steps
    orders = [Order(run.train.seed, description.train_samples, run.train.global_batch, r, ranks) for r in range(ranks)]
    seen = torch.stack([torch.stack([order.share(step)[1] for order in orders]) for step in range(steps)])
    used, order = seen.unique(return_inverse=True)
    reader = Reader(data.split("train"), collate=data.collate, seed=run.train.seed)
    epochs = torch.zeros_like(used)
    inputs, targets = Finish(description, torch.device("cpu"))(reader(epochs, used), epochs, used)
    hardware = implementation("hardware", run.hardware)(run.hardware)
    seed_everything(hardware, run.train.seed)
    given = {
        "model": implementation("model", run.model)(run.model, description),
        "inputs": inputs, "targets": targets, "order": order, "clip": clip, "threads": run.hardware.threads,
        "learning_rate": run.optimizer.learning_rate, "momentum": run.optimizer.momentum,
    }  # fmt: skip
    torch.save(given, folder / "hand.pt")


def measured(kind: str, run: Run, folder: Path) -> dict[str, float]:
    """Seconds of the steps after warming up: wall of the slowest rank, CPU of all ranks."""
    place = folder / kind
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    run_file.write(run, place / "run.yaml")
    ranks, steps = run.launch.processes, run.train.steps
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", str(RANK)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(run.hardware.threads)}
    environment["PYTHONPATH"] = os.pathsep.join([str(RANK.parents[1]), environment.get("PYTHONPATH", "")])
    words = [kind, str(place), str(steps // 6), str(steps)]
    done = subprocess.run([*command, *words], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{kind} failed:\n{(done.stdout + done.stderr)[:6000]}")
    windows = [json.loads((place / f"window-{rank}.json").read_text()) for rank in range(ranks)]
    return {"wall": max(w["wall"] for w in windows), "cpu": sum(w["cpu"] for w in windows)}


def equal_work(folder: Path) -> float:
    """How far accel's last weights are from the hand loop's, as a part of the largest. Unequal work voids all."""
    own = load_file(folder / "accel" / "checkpoints" / "latest" / "model.safetensors")
    theirs = torch.load(folder / "hand" / "weights.pt")
    largest = max(float(value.abs().max()) for value in theirs.values())
    difference = max(float((own[name] - value).abs().max()) for name, value in theirs.items()) / largest
    if difference > 1e-2:
        raise SystemExit(f"unequal work: the weights differ by {difference:.1e} of the largest; the ratio is void")
    return difference


if __name__ == "__main__":
    main()
