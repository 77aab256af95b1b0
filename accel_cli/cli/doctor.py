"""accel doctor: this machine's devices, versions and measured rates, and which options can be used here and pay."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import accel_cli
from accel_cli.analysis.wording import duration, size, times
from accel_cli.cli.availability import FLAGS, Judge
from accel_cli.cli.findings import findings, places
from accel_cli.cli.rate_findings import BUSY, Finding, bandwidth, flops
from accel_cli.cli.table import columns, paint
from accel_cli.config.machine import detect, memory_available, version
from accel_cli.config.parts import GROUPS
from accel_cli.data.cache import cache_folder
from accel_cli.launch import local

PATIENCE = 60
"""Seconds after which the measuring process is ended: torch may come from a cold disk, but not for ever."""
RATES = ("flops_per_second", "spread", "bytes_per_second", "convolutions", "threads", "fills", "to_device")
"""What is measured of a device; None where it is not."""
SHOWN = ("torch", "torchvision", "numpy", "timm", "transformers", "tensorboard")


def main(arguments: argparse.Namespace) -> int:
    report = examine()
    print(json.dumps(report) if arguments.json else text(report))
    return 0


def examine() -> dict[str, Any]:
    """All that doctor knows, as plain containers."""
    machine = detect()
    with progress() as show:
        show("looking at the option tree")
        judge = Judge.of()
        verdicts = [(g, o, judge.availability(g, o)) for g in GROUPS for o in judge.names.options[g]]
        measured = measure(show)
    where = places(cache_folder(None))
    return {
        "versions": {
            "accel": accel_cli.__version__,
            "python": platform.python_version(),
            **{name: version(name) for name in SHOWN},
            "cuda": measured["versions"].get("cuda"),
        },
        "platform": platform.platform(),
        "machine": machine.to_dict(),
        "memory_available_bytes": memory_available(),
        "compiler": compiler(),
        "places": where,
        "measured": measured,
        "unusable": [{"option": f"{g}={o}", "why": v.why, "fix": v.fix} for g, o, v in verdicts if not v.usable],
        "findings": [finding._asdict() for finding in findings(machine, measured, where, os.environ)],
    }


def measure(show: Callable[[str], None]) -> dict[str, Any]:
    """Let a process of its own import torch and measure; what it could not is under ``problem``."""
    found: dict[str, Any] = {
        "versions": {}, "capability": None, "import_seconds": None, "threads": None, "links": {}, "rates": {},
        "load": os.getloadavg()[0], "took": None, "problem": None,
    }  # fmt: skip
    command = [sys.executable, "-m", "accel_cli.cli.measure"]
    beside = Path(accel_cli.__file__).parents[1]  # not the user's folder, where a file may be named torch.py
    environment = {**os.environ, **local.waiting(os.environ)}
    process = subprocess.Popen(
        command,
        cwd=beside,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    errors: list[str] = []
    reader = threading.Thread(target=lambda: errors.extend(process.stderr or ()), daemon=True)
    reader.start()
    timer = threading.Timer(PATIENCE, process.kill)
    timer.start()
    try:
        for line in process.stdout or ():
            take(json.loads(line), found, show)
        code = process.wait()
    finally:
        timer.cancel()
        process.kill()
        process.wait()
    reader.join(timeout=1)
    if code and not found["problem"]:
        last = errors[-1].strip() if errors else f"it ended with {code}"
        found["problem"] = last if code > 0 else f"measuring was ended by signal {-code} after at most {PATIENCE} s"
    return found


def take(fact: dict[str, Any], found: dict[str, Any], show: Callable[[str], None]) -> None:
    """Put one line of the measuring process where it belongs."""
    if "doing" in fact:
        show(fact["doing"])
    elif "error" in fact:
        found["problem"] = fact["error"]
    elif "device" not in fact:
        found.update(fact)
    else:
        empty: dict[str, Any] = dict.fromkeys(RATES) | {"flops_per_second": {}}
        rates = found["rates"].setdefault(fact["device"], empty)
        rates.update({key: value for key, value in fact.items() if key in empty})


@contextlib.contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """One live line on a terminal; a single plain one in a pipe."""
    if not sys.stderr.isatty():
        print("measuring this machine: a few seconds", file=sys.stderr)
        yield lambda text: None
        return
    from rich.console import Console

    with Console(stderr=True).status("") as status:
        yield status.update


def compiler() -> dict[str, Any] | None:
    """The C++ compiler that compile=full would use: path and version."""
    path = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")
    if path is None:
        return None
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=5).stdout
    except (OSError, subprocess.TimeoutExpired):
        return {"path": path, "version": None}
    return {"path": path, "version": (said.splitlines() or [""])[0]}


def text(report: dict[str, Any]) -> str:
    """Facts, rates, what cannot be used, and what follows."""
    rows = [*_facts(report), *_rates(report["measured"])]
    rows += [("not usable" if i == 0 else "", f"{row['option']}: {row['why']}; {row['fix']}".rstrip("; "))
             for i, row in enumerate(report["unusable"])]  # fmt: skip
    lines = [columns(rows, [("dim", "")] * len(rows))]
    found = [Finding(**row) for row in report["findings"]]
    if found:
        lines += ["", paint("findings", "bold")]
    for finding in found:
        lines.append(f"  {finding.finding}")
        lines.append(paint(f"      {finding.evidence}", "dim"))
        if finding.fix:
            lines.append("      " + paint(finding.fix, "cyan"))
    return "\n".join(lines)


def _facts(report: dict[str, Any]) -> list[tuple[str, str]]:
    machine, versions = report["machine"], report["versions"]
    cores = f"{machine['cores']} core" + ("" if machine["cores"] == 1 else "s")
    flags = " ".join(sorted(FLAGS & set(machine["cpu_flags"])))
    gpus = [f"{gpu['name']}, {size(gpu['memory_bytes'])}, compute capability {'.'.join(map(str, gpu['capability']))}"
            for gpu in machine["gpus"]]  # fmt: skip
    others = (("xpus", "Intel GPU"), ("tpus", "TPU"), ("mps", "Apple GPU"))
    gpus += [f"{int(machine[key])} x {name}" for key, name in others if machine[key]]
    found = report["compiler"]
    return [
        ("accel", f"{versions['accel']}   python {versions['python']}   {report['platform']}"),
        ("packages", "   ".join(f"{name} {versions[name] or '(absent)'}" for name in SHOWN)),
        ("processor", ", ".join(part for part in (machine["cpu_name"], cores, flags) if part)),
        ("memory", f"{size(machine['memory_bytes'])}, {size(report['memory_available_bytes'])} available"),
        *(("GPU" if i == 0 else "", gpu) for i, gpu in enumerate(gpus or ["none"])),
        ("compiler", (found["version"] or found["path"]) if found else "none: compile=full needs g++"),
        *((place["what"], f"{place['path']}   {size(place['free_bytes'])} free   {place['holds']}")
          for place in report["places"]),
    ]  # fmt: skip


def _rates(measured: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    if measured["import_seconds"] is not None:
        rows.append(("torch import", f"{measured['import_seconds']:.1f} s"))
    for device, rates in measured["rates"].items():
        known = rates["flops_per_second"].items()
        busy = f"   (busy: fp32 alone varied {times(rates['spread'])})" if (rates["spread"] or 1) > BUSY else ""
        rows.append((device, "matrix products   " + _words(known, flops) + busy))
        if rates["convolutions"]:
            rows.append(("", "convolutions   " + _words(rates["convolutions"].items(), flops)))
        if rates["threads"]:
            counted = {
                "1 thread": rates["threads"]["one"],
                f"{rates['threads']['cores']} threads": rates["threads"]["all"],
            }
            rows.append(("", _words(counted.items(), flops)))
        copies = {"copies": rates["bytes_per_second"]} if rates["bytes_per_second"] else {}
        copies |= {f"from {kind} host memory": rate for kind, rate in (rates["to_device"] or {}).items()}
        copies |= {f"fills {kind}": rate for kind, rate in (rates["fills"] or {}).items()}
        rows.append(("", "memory   " + _words(copies.items(), bandwidth)))
    for name, link in measured["links"].items():
        rate = bandwidth(link["bytes_per_second"]) if link["bytes_per_second"] else "cannot tell the rate"
        rows.append(("link", f"all-reduce of two ranks over {name}   {rate}, {duration(link['seconds'])} at least"))
    if measured["problem"]:
        rows.append(("not measured", measured["problem"]))
    return rows


def _words(rates: Iterable[tuple[str, float | None]], form: Callable[[float], str]) -> str:
    return "   ".join(f"{name} {form(rate) if rate else 'unsupported'}" for name, rate in rates)
