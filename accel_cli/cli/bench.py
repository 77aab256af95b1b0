"""accel bench: a gate for CI. Is this run slower than it was? Exit 1 only beyond noise."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from accel_cli.analysis import bench
from accel_cli.analysis.bench import Bench, Samples
from accel_cli.analysis.probes import Interrupted
from accel_cli.analysis.result import ratio_text
from accel_cli.analysis.statistics import CANNOT_TELL, Interval
from accel_cli.analysis.study import Study
from accel_cli.analysis.techniques import on_this_machine
from accel_cli.cli.check import base
from accel_cli.cli.train import say, shorter
from accel_cli.config.plan import Plan, plan
from accel_cli.errors import REGRESSION, ConfigError, Problem
from accel_cli.launch.begin import command_line
from accel_cli.launch.crew import Crew

SAID = {
    bench.REGRESSION: "slower than allowed, beyond noise",
    bench.FASTER: "faster, beyond noise",
    bench.WITHIN: "within what is allowed",
    CANNOT_TELL: "cannot tell whether it is more than allowed: too few rounds, or too unlike a machine",
}


def main(arguments: argparse.Namespace) -> int:
    if (arguments.save is None) == (arguments.against is None):
        fix = "add --save FILE to make a baseline, or --against FILE to compare with one"
        raise ConfigError(Problem("accel bench", "needs one of --save and --against", fix))
    planned = plan(
        arguments.overrides, config_dirs=arguments.config_dir, plugins=arguments.plugin, base=base(arguments.run)
    )
    on_this_machine(planned.run)
    baseline = bench.read(arguments.against, arguments.error) if arguments.against else None
    differing = bench.differences(baseline, planned.run) if baseline else []
    if differing and not arguments.unequal:
        fix = "make the baseline anew with --save, or add --unequal"
        raise ConfigError(
            [Problem(f"--against {arguments.against}", f"is of another run: {one}", fix) for one in differing]
        )
    if not arguments.json:
        say(planned)
    opened = Study.open("bench", arguments.words, run_dir=arguments.run_dir, new=arguments.new)
    with opened as study, Crew() as crew:
        try:
            made = Bench(study, planned, crew)
            code = (
                _save(arguments, made, planned) if baseline is None else _compare(arguments, made, baseline, differing)
            )
        except Interrupted:
            study.end("interrupted")
            return crew.exit_code
        except BaseException:
            study.end("failed")
            raise
    if arguments.json:
        print(json.dumps({**study.content, "run": str(study.folder), "exit_code": code}))
    return code


def _save(arguments: argparse.Namespace, made: Bench, planned: Plan) -> int:
    error, most = arguments.error, arguments.max_slowdown
    status = made.measure(
        lambda samples: bench.is_sharp(samples, error, most), 60 * arguments.budget, _progress(arguments),
        least=bench.fewest_rounds(error),
    )  # fmt: skip
    bench.save(arguments.save, planned, command_line(arguments.words), made.samples)
    with made.study.change() as content:
        content.update(baseline=str(arguments.save), floor=bench.floor_of(made.samples, error).to_dict())
    made.study.end(status)
    if not arguments.json:
        known = bench.beside(made.samples, error)
        print(f"{bench.rounds(made.samples)} rounds, known to {known.high / known.low - 1:.1%}: {arguments.save}")
        if status == "budget":
            print(
                f"warning: too blurred to find {most:.0%}; try a larger --budget, or a quieter machine", file=sys.stderr
            )
    return 0


def _compare(arguments: argparse.Namespace, made: Bench, baseline: dict[str, Any], differing: list[str]) -> int:
    error, most, old = arguments.error, arguments.max_slowdown, baseline["samples"]

    def judge(samples: Samples) -> tuple[Interval, Interval, str]:
        ratio, floor = bench.slowdown_of(samples, old, error), bench.floor_of(samples, error)
        return ratio, floor, bench.verdict(ratio, floor, most, bench.by_part(samples, old))

    status = made.measure(
        lambda samples: judge(samples)[2] != CANNOT_TELL, 60 * arguments.budget, _progress(arguments)
    )  # fmt: skip
    ratio, floor, verdict = judge(made.samples)
    drift = bench.machine_drift(made.samples, old) if bench.rounds(made.samples) else {}
    with made.study.change() as content:
        content.update(
            baseline=str(arguments.against), ratio=ratio.to_dict(), floor=floor.to_dict(), max_slowdown=most,
            verdict=verdict, unequal=differing, machine=drift,
            by_part=bench.by_part(made.samples, old), error=error, rounds=bench.rounds(made.samples),
        )  # fmt: skip
    made.study.end(status)
    if not arguments.json:
        for one in differing:
            print(f"unequal: {one}")
        print(f"time of a step, new over old   {ratio_text(content['ratio'])}   {SAID[verdict]} ({most:.1%})")
        print(f"the run against itself         {ratio_text(content['floor'])}   {content['rounds']} rounds")
        print(f"the machine itself             {'   '.join(f'{part} {value:.3f}' for part, value in drift.items())}")
        print(f"{shorter(made.study.folder)}/bench.json", file=sys.stderr)
    return REGRESSION if verdict == bench.REGRESSION else 0


def _progress(arguments: argparse.Namespace) -> Any:
    def shown(samples: Samples) -> None:
        if not arguments.json and (sys.stderr.isatty() or bench.rounds(samples) % 10 == 0):
            end = "\r" if sys.stderr.isatty() else "\n"
            print(f"round {bench.rounds(samples)}", end=end, file=sys.stderr, flush=True)

    return shown
