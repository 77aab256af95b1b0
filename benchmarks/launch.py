"""From the command to the end of the first optimizer step, and what commands take that train nothing (goal G4).

    .venv/bin/python benchmarks/launch.py --peers DIR
    .venv/bin/python benchmarks/launch.py --rounds 2 --part commands           a trial of one half

first    the same net, 784-128-10, for one step of 64 samples: a script, torchrun with it, `accelerate launch`,
         Lightning, and `accel train`, which also checks its configuration, opens a run folder and saves at the end
commands `accel --help`, `accel check` and others, from start to exit

Every process start is a sample; the arms take turns. Wall is measured from outside, from before the process is made.
CPU seconds of the first part are those of all processes of a command up to the end of the first step, so that what
it does afterwards is not in them. Bytecode is compiled beforehand, and the files are in the page cache: each arm runs
once untimed. accel's step is seen by a plugin that holds the net: its import is in accel's time.

accelerate 2 is under torchrun: `accelerate launch` needs mpirun for two CPU processes. Of two ranks each has half of
the cores' threads, whoever starts them.
"""

from __future__ import annotations

import argparse
import compileall
import json
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import arms
import peers
from arms import ACCEL, Failed, Sample
from compare import interleave

SCRIPT = str(arms.HERE / "launch_arm.py")
PARAMETERS = 784 * 128 + 128 + 128 * 10 + 10
TORCHRUN = ["-m", "torch.distributed.run", "--standalone"]
FIRST = {
    "script": "", "accel": "", "script again": "", "torchrun 2": "", "accel 2": "", "torchrun 2 again": "",
    "accelerate": "accelerate", "accelerate 2": "accelerate", "lightning": "lightning", "lightning 2": "lightning",
}  # fmt: skip
"""Arm -> the peer that it needs."""
LIMITS = [
    ("accel", "script", "script again", 1.05),
    ("accel 2", "torchrun 2", "torchrun 2 again", 0.75),
]
COMMAND_LIMITS = [
    ("accel --help", "python -c pass", "python -c pass again", 2.0),
    ("accel --help", "torchrun --help", None, 0.25),
    ("accel check", "import torch", None, 0.5),
    ("accel show", "import torch", None, 0.5),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("first", "commands"), help="one half of it")
    arms.options(parser, rounds=20)
    given = parser.parse_args()
    noise = arms.Noise()
    arms.say("compiling bytecode")
    for source in (arms.HERE, arms.HERE.parent / "accel_cli"):
        compileall.compile_dir(str(source), quiet=2)
    missing: dict[str, str] = {}
    verdicts: list[str] = []
    kept: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        if given.part != "commands":
            found = turns(first(given, Path(folder), missing), given, missing, "script")
            kept["first"] = found
            equal = {name: proof(name, samples) for name, samples in found.items()}
            for reference in ("script", "torchrun 2"):
                shown = {n: s for n, s in found.items() if ("2" in n) == ("2" in reference)}
                if shown:
                    reference = reference if reference in shown else next(iter(shown))
                    lines = arms.rows(shown, reference, unit=1.0, unit_name="s", facts=equal)
                    arms.show(f"to the end of the first step, against {reference}", lines)
            for arm, reference, again, limit in LIMITS:
                verdicts += arms.judge(found, arm, reference, again, limit)
        if given.part != "first":
            found = turns(commands(given, Path(folder)), given, missing, "python -c pass")
            kept["commands"] = found
            reference = "python -c pass" if "python -c pass" in found else next(iter(found))
            arms.show("commands, from start to exit", arms.rows(found, reference, unit=1e3, unit_name="ms"))
            for arm, other, again, limit in COMMAND_LIMITS:
                verdicts += arms.judge(found, arm, other, again, limit)
        arms.close(given, verdicts, missing, kept, noise)


def turns(
    known: dict[str, Callable[[], Sample]], given: argparse.Namespace, missing: dict[str, str], reference: str
) -> dict[str, list[Sample]]:
    """Each once untimed, then in turns. A name of --arm that belongs to the other half is none here."""
    wanted = [name for name in given.arm or known if name in known] or [reference]
    tried = known if given.rounds > 1 else [name for name, peer in FIRST.items() if peer]
    working = arms.that_work(arms.chosen(known, wanted), tried, missing)
    if reference not in working and not working:
        raise SystemExit("; ".join(f"{name}: {why}" for name, why in missing.items()))
    return interleave(working, given.rounds, arms.say)


def first(given: argparse.Namespace, folder: Path, missing: dict[str, str]) -> dict[str, Callable[[], Sample]]:
    pythons, absent = peers.find(given.peers, ["accelerate", "lightning"])
    missing |= absent
    mark = folder / "mark.json"

    def command(name: str) -> list[str]:
        python, place = pythons.get(FIRST[name], sys.executable), str(mark)
        ranks = "2" if "2" in name else "1"
        if name.startswith("script"):
            return [python, SCRIPT, "raw", place]
        if name.startswith("torchrun"):
            return [python, *TORCHRUN, "--nproc-per-node", "2", SCRIPT, "ddp", place]
        if name.startswith("lightning"):
            return [python, SCRIPT, "lightning", place, ranks]
        if name == "accelerate 2":  # its own launcher starts several CPU processes by mpirun only
            return [python, *TORCHRUN, "--nproc-per-node", "2", SCRIPT, "accelerate", place]
        if name == "accelerate":
            several = ["--num_processes", ranks, "--num_machines", "1"]
            plain = ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
            start = ["-m", "accelerate.commands.accelerate_cli", "launch", "--cpu", *several, *plain]
            return [python, *start, SCRIPT, "accelerate", place]
        words = [
            "data=synthetic", "data.shape=vector", "data.features=784", "data.samples=1280", "model=custom",
            "model.factory=inside:small", f"model.args={{place:{mark}}}", "train.global_batch=64", "train.epochs=null",
            "train.steps=1", "optimizer=adamw", "hardware=cpu",
        ]  # fmt: skip
        if ranks == "2":
            words += ["strategy=ddp", "launch.processes=2"]
        return [*ACCEL, "train", "--json", "--plugin", str(arms.HERE / "inside.py"), *words]

    def sample(name: str) -> Sample:
        threads = max(1, given.threads // 2) if "2" in name else given.threads
        found = arms.windowed(command(name), threads, arms.folder(folder / "at"), mark)
        return {**found, "wall": found["ended"] - found["began"]}

    return {name: partial(sample, name) for name, peer in FIRST.items() if not peer or peer in pythons}


def proof(name: str, samples: list[Sample]) -> str:
    """The same number of parameters, in as many ranks."""
    told = {(sample["parameters"], sample["ranks"]) for sample in samples}
    wanted = (PARAMETERS, 2 if "2" in name else 1)
    ranks = ", ".join(f"{parameters} parameters in {ranks} rank(s)" for parameters, ranks in sorted(told))
    return f"{ranks}; {samples[0].get('version', 'accel')}" + ("" if told == {wanted} else "; NOT the same work")


def commands(given: argparse.Namespace, folder: Path) -> dict[str, Callable[[], Sample]]:
    known = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "import torch": [sys.executable, "-c", "import torch"],
        "torchrun --help": [sys.executable, "-m", "torch.distributed.run", "--help"],
        "accel --help": [*ACCEL, "--help"],
        "accel check": [*ACCEL, "check"],
        "accel check +recipe": [*ACCEL, "check", "+recipe=ci_cpu"],
        "accel show": [*ACCEL, "show"],
        "python -c pass again": [sys.executable, "-c", "pass"],
    }

    def sample(command: list[str]) -> Sample:
        found = arms.run(command, given.threads, arms.folder(folder / "at"))
        return {**found, "wall": found["whole_wall"], "cpu": found["whole_cpu"]}

    return {name: partial(sample, command) for name, command in known.items()}


if __name__ == "__main__":
    try:
        main()
    except Failed as error:
        raise SystemExit(json.dumps(str(error))) from None
