"""Runs that are slowed in one way each: is the bottleneck named, and how near is the gain expected to the one measured?

    .venv/bin/python benchmarks/advice.py                     all of them, some 6 minutes
    .venv/bin/python benchmarks/advice.py --only data --only evaluation
    .venv/bin/python benchmarks/advice.py --cost              what timing a step's parts costs: CPU seconds of the marks

Each run is trained, then `accel advise` runs it again, short, with and without the override that its end named, in
turns, until an always-valid interval settles whether the expectation holds. link wants Linux and root: scripts/link.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from compare import table

from accel_cli.engine.clock import Clock

ROOT = Path(__file__).parents[1]
LINK = ROOT / "scripts" / "link"
NEAR = 1.3
OWN = (Path(__file__).parent / "slowed.py").read_text()
ALONE = ["hardware=cpu", "hardware.threads=1", "model=mlp", "train.epochs=null"]
SLEEPS = ["data=custom", "data.factory=own:Set", "train.global_batch=16", "train.steps=200", "loader=workers",
          "loader.workers=0", "data.args={samples: 400}"]  # fmt: skip
SLOWED = {
    "data": ("data", [*SLEEPS]),
    "batch": ("batch", ["train.global_batch=2", "train.steps=3000"]),
    "optimizer": ("optimizer", ["train.steps=1000", "optimizer=custom", "optimizer.factory=own:Steps"]),
    "link": ("link", ["train.steps=200", "+strategy=ddp", "launch.processes=2"]),
    "evaluation": ("evaluation", ["train.steps=1000", "evaluate.every=2"]),
    "data, drawn anew": ("data", [*SLEEPS[:-1], "data.args={samples: 400, draws: true}"]),
    "optimizer, a loop": ("optimizer", ["train.steps=300", "model.widths=[768,768]", "train.global_batch=32",
                                        "optimizer.kernel=loop"]),
}  # fmt: skip
RATE = "50mbit"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "LINK": f"advice{os.getpid()}-"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=list(SLOWED), help="may be given again")
    parser.add_argument("--budget", default="3", metavar="MINUTES", help="of measuring one override; default 3")
    parser.add_argument("--cost", action="store_true", help="of the marks, instead")
    parser.add_argument("--json", type=Path, help="write everything here")
    given = parser.parse_args()
    if given.cost:
        cost()
        return
    rows: list[list[object]] = [["slowed by", "named", "override", "expected", "measured", "rounds", "factor", "held"]]
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "own.py").write_text(OWN)
        for name in given.only or SLOWED:
            found[name] = slowed(name, Path(folder), given.budget)
            rows.append(told(name, found[name]))
            print(table(rows[-1:]), file=sys.stderr, flush=True)
    print(table(rows))
    tried = [each for each in found.values() if each.get("measured")]
    named = sum(each["named"] for each in tried)
    near = sum(each["factor"] is not None and each["factor"] <= NEAR for each in tried)
    print(f"named {named} of {len(tried)}; expected within a factor of {NEAR} of the measured median: {near}")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))


def slowed(name: str, folder: Path, budget: str) -> dict[str, Any]:
    """Train it, then try its advice."""
    word, words = SLOWED[name]
    run, host = name.replace(", ", "-").replace(" ", "-"), []
    if name == "link":
        made = subprocess.run([LINK, "up", "1gbit"], env=ENVIRONMENT, capture_output=True, text=True)
        if made.returncode:
            return {"why": made.stderr.strip()}
        shape = ["qdisc", "replace", "dev", "lo", "root", "tbf", "rate", RATE, "burst", "256kb", "latency", "50ms"]
        subprocess.run(["tc", "-n", f"{ENVIRONMENT['LINK']}A", *shape], check=True)
        host = [str(LINK), "exec", "A"]
    try:
        plugin = ["--plugin", "own.py", "--json"]
        ended = accel([*host], folder, "train", *ALONE, *words, *plugin, "--run-dir", run)
        found = accel([*host], folder, "advise", run, "--budget", budget, *plugin)
    finally:
        if name == "link":
            subprocess.run([LINK, "down"], env=ENVIRONMENT, check=False)
    first = ended["advice"][0]
    return {**found, "named": word in first["finding"] and found["override"] == first["override"]}


def accel(host: list[str], folder: Path, *words: str) -> dict[str, Any]:
    done = subprocess.run(
        [*host, sys.executable, "-m", "accel_cli", *words], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"accel {' '.join(words)}\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def told(name: str, found: dict[str, Any]) -> list[object]:
    if not found.get("measured"):
        return [name, "-", found.get("why", "nothing to try"), "-", "-", "-", "-", "-"]
    ends = ["?" if found["measured"][end] is None else f"{found['measured'][end]:.3f}" for end in ("low", "high")]
    measured = f"{found['measured']['value']:.3f} [{', '.join(ends)}]"
    held = {True: "yes", False: "no", None: "cannot tell"}[found["held"]]
    return [name, "yes" if found["named"] else "NO", found["override"], f"{found['expected']:.3f}", measured,
            found["rounds"], f"{found['factor']:.2f}", held]  # fmt: skip


def cost(marks: int = 200_000) -> None:
    """A step has six marks and one beginning."""
    clock = Clock()
    began = time.process_time()
    for _ in range(marks):
        clock.mark("forward")
    mark = (time.process_time() - began) / marks
    began = time.process_time()
    for step in range(marks):
        clock.begin(step)
    begin = (time.process_time() - began) / marks
    step = 6 * mark + begin
    print(f"a mark {1e6 * mark:.2f} us, a step {1e6 * step:.2f} us of CPU: 1% of a step of {1e5 * step:.2f} ms")


if __name__ == "__main__":
    main()
