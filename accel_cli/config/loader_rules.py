"""Rules about loaders."""

from __future__ import annotations

from accel_cli.config.facts import Rule

LOADER_RULES: tuple[Rule, ...] = (
    Rule(
        "device-is-the-host", "warn", "loader=device is for an accelerator",
        lambda f: f"loader=device hardware={f.device}",
        lambda f: f.run.loader.option == "device" and f.device == "cpu",
        "on a CPU the device's memory is the host's: each rank would hold a copy",
        "try loader=memory",
    ),
    Rule(
        "loader-threads-and-cores", "warn", "loader threads and processes share the cores",
        lambda f: f"loader.threads={f.run.loader.threads}",
        lambda f: f.run.loader.option == "threads"
        and f.run.loader.threads != "auto"
        and f.run.loader.threads * f.processes > max(2, f.machine.cores),
        lambda f: f"{f.processes} x {f.run.loader.threads} threads on {f.machine.cores} cores: they take turns",
        "try loader.threads=auto",
    ),
    Rule(
        "fingerprint-keeps", "warn", "data.fingerprint is for samples that are held in memory",
        lambda f: f"data.fingerprint={f.run.data.fingerprint}",
        lambda f: getattr(f.run.data, "fingerprint", None) is not None
        and f.run.loader.option in ("workers", "threads"),
        lambda f: f"loader={f.run.loader.option} reads each sample anew: nothing is kept",
        "try loader=memory",
    ),
)  # fmt: skip
