"""Rules about the memory that a process may take, and micro-batches that fit into it."""

from __future__ import annotations

from accel_cli.config.facts import Rule

MEMORY_RULES: tuple[Rule, ...] = (
    Rule(
        "micro-batch-of-stages", "refuse", "train.micro_batch=auto is for micro-batches that come one by one",
        "train.micro_batch=auto",
        lambda f: f.run.train.micro_batch == "auto" and f.sizes["pipeline"] > 1,
        "the stages of a pipeline hold several micro-batches at a time",
        "try train.micro_batch=null strategy.micro_batches=auto",
    ),
    Rule(
        "memory-can-be-seen", "refuse", "train.micro_batch=auto needs a device that tells how much memory was taken",
        "train.micro_batch=auto",
        lambda f: f.run.train.micro_batch == "auto"
        and not (f.device == "cuda" or (f.device == "cpu" and f.machine.counts_memory)),
        lambda f: f"a process on {f.device} cannot tell here how much memory it took",
        "try train.micro_batch=16, or a number that fits",
    ),
    Rule(
        "memory-limit-on-linux", "refuse", "hardware.memory_gigabytes is a limit that the Linux kernel keeps",
        lambda f: f"hardware.memory_gigabytes={f.run.hardware.memory_gigabytes}",
        lambda f: f.device == "cpu" and f.run.hardware.memory_gigabytes is not None and not f.machine.counts_memory,
        "this system keeps no limit on a process's data",
        "try hardware.memory_gigabytes=null",
    ),
)  # fmt: skip
