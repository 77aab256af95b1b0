"""A sweep of 24 points with one crash, one want of memory and one refusal, killed twice: does each end exactly once?

    python benchmarks/sweep.py [--seed 0] [--parallel 1]

Prints how each point ended, and what a point costs beside its steps and its evaluations. Ends with 1 where a point was
lost, ended twice, or ended otherwise than it should.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

NETS = (Path(__file__).parent / "sweep_nets.py").read_text()
BATCHES = [0, 8, 12, 13, 16, 20, 24, 28, 32, 36, 40, 44, 48, 52, 56, 60, 64, 68, 72, 76, 80, 84, 88, 92]
ODD = {0: "refused", 13: "failed", 48: "out_of_memory"}
STEPS = 60


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1000))
    parser.add_argument("--parallel", default="1")
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory(prefix="accel-sweep-") as name:
        folder = Path(name)
        (folder / "nets.py").write_text(NETS)
        began, told = time.monotonic(), []
        for first, last in ((1, 9), (11, 19)):
            told.append(killed(folder, arguments.parallel, draw.randint(first, last), draw.random()))
        ended = subprocess.run(command(arguments.parallel), cwd=folder, capture_output=True, text=True, check=False)
        seconds = time.monotonic() - began
        print(ended.stdout)
        problems = [f"exit code {ended.returncode}: {ended.stderr[-500:]}"] if ended.returncode else []
        return report(folder, told, problems, seconds, arguments.seed)


def command(parallel: str) -> list[str]:
    words = [f"train.global_batch={','.join(map(str, BATCHES))}", "train.epochs=null", f"train.steps={STEPS}"]
    words += ["hardware=cpu", "hardware.memory_gigabytes=2", "evaluate.every=30", "checkpoint.every=10"]
    custom = ["model=custom", "model.factory=nets:Net", "--plugin", "nets.py", "--parallel", parallel]
    return [sys.executable, "-m", "accel_cli", "sweep", *words, *custom]


def killed(folder: Path, parallel: str, points: int, later: float) -> dict[int, Any]:
    """Start it or go on with it, and kill it a moment after so many points have ended; returns what had ended then."""
    process = subprocess.Popen(command(parallel), cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and len(snapshot(folder)) < points:
        time.sleep(0.02)
    time.sleep(later)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(0.2)
    found = snapshot(folder)
    print(f"killed {later:.2f} s after {points} points had ended; {len(found)} had by then")
    return found


def content(folder: Path) -> dict[str, Any]:
    paths = list(folder.glob("runs/*-sweep/sweep.json"))
    assert len(paths) <= 1, f"several sweeps: {paths}"
    return {"points": [], **(json.loads(paths[0].read_text()) if paths else {})}


def snapshot(folder: Path) -> dict[int, Any]:
    """Number of each ended point -> its row, and when its run's summary was written."""
    found = {}
    for row in content(folder)["points"]:
        if row["status"] not in ("waiting", "running", "interrupted"):
            paths = list(folder.glob(f"runs/*-sweep/{row['run']}/summary.json"))
            found[row["number"]] = (row, [os.stat(path).st_mtime_ns for path in paths])
    return found


def report(folder: Path, told: list[dict[int, Any]], problems: list[str], seconds: float, seed: int) -> int:
    final = snapshot(folder)
    if sorted(final) != list(range(len(BATCHES))):
        problems.append(f"ended: {sorted(final)}")
    for earlier in told:
        problems += [f"point {n} ended twice" for n, was in earlier.items() if final.get(n) != was]
    costs = []
    for number, (row, _) in final.items():
        wanted = ODD.get(BATCHES[number], "completed")
        if row["status"] != wanted:
            problems.append(f"point {number}: {row['status']}, not {wanted}: {row['cause']}")
        if row["status"] != "completed":
            print(f"{' '.join(row['point'])}: {row['status']}, exit code {row['exit_code']}: {row['cause']}")
            continue
        run = next(folder.glob(f"runs/*-sweep/{row['run']}"))
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        steps = [line["step"] for line in lines if line["kind"] == "train"]
        if len(steps) != len(set(steps)) or steps[-1] != STEPS:
            problems.append(f"point {number}: steps {steps}")
        summary = json.loads((run / "summary.json").read_text())
        if summary["attempts"] == 1:
            share = summary["time_share"].get("evaluation", 0.0)
            evaluation = row["train_seconds"] * share / (1 - share)
            costs.append(row["seconds"] - row["train_seconds"] - evaluation)
        else:
            begun = [
                json.loads(line)["from_step"] for line in (run / "attempts" / "log.jsonl").read_text().splitlines()
            ]
            print(f"{' '.join(row['point'])}: {summary['attempts']} attempts, from steps {begun}")
    *_, next_most, most = sorted(costs)
    print(f"{len(final)} points in {seconds:.1f} s   --seed {seed}")
    print(
        f"a point costs {statistics.median(costs):.2f} s beside its steps and evaluations (median of {len(costs)}; "
        f"most {most:.2f} s, next {next_most:.2f} s)"
    )
    for problem in problems:
        print(f"WRONG: {problem}")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
