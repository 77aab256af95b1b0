"""Rules about data that lies in chunks, and the loader that reads it so."""

from __future__ import annotations

from accel_cli.config.facts import Rule

STREAM_RULES: tuple[Rule, ...] = (
    Rule(
        "stream-reads-chunks", "refuse", "loader=stream reads data that lies in chunks",
        lambda f: f"loader=stream data={f.run.data.option}",
        lambda f: f.run.loader.option == "stream" and f.run.data.option != "shards",
        lambda f: f"the samples of {f.run.data.option} do not lie in chunks",
        "try loader=auto",
    ),
)  # fmt: skip
