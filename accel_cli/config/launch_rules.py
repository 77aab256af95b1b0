"""Rules about nodes: how they meet, and how a run starts again."""

from __future__ import annotations

from accel_cli.config import network
from accel_cli.config.facts import Facts, Rule


def _saves_at_end_only(facts: Facts) -> bool:
    every, steps = facts.run.checkpoint.every, facts.steps
    return every != "epoch" and steps is not None and every >= steps


def _only_here(rendezvous: str | None) -> bool:
    host, _ = network.endpoint(rendezvous or "") or ("", 0)
    return host == "localhost" or host == "::1" or host.startswith("127.")


def _own_address() -> str:
    try:
        return network.own_address()
    except OSError:
        return "ADDRESS"


LAUNCH_RULES: tuple[Rule, ...] = (
    Rule(
        "nodes-in-order", "refuse", "launch.nodes=MIN:MAX has its least number first",
        lambda f: f"launch.nodes={f.run.launch.nodes}",
        lambda f: f.run.launch.least_nodes > f.run.launch.most_nodes,
        "the least number of nodes comes first",
        lambda f: f"try launch.nodes={f.run.launch.most_nodes}:{f.run.launch.least_nodes}",
    ),
    Rule(
        "nodes-meet-somewhere", "refuse", "several nodes meet at launch.rendezvous",
        lambda f: f"launch.nodes={f.run.launch.nodes}",
        lambda f: f.run.launch.option == "local" and f.run.launch.most_nodes > 1 and f.run.launch.rendezvous is None,
        "the nodes need an address to meet at: the first node's, the same word on each",
        lambda f: f"add launch.rendezvous={_own_address()}:29500 if this is the first node",
    ),
    Rule(
        "rendezvous-of-several", "refuse", "launch.rendezvous is for several nodes",
        lambda f: f"launch.rendezvous={f.run.launch.rendezvous}",
        lambda f: f.run.launch.most_nodes == 1 and f.run.launch.rendezvous is not None,
        "one node meets nobody; launch.nodes=1",
        "add launch.nodes=2, or try launch.rendezvous=null",
    ),
    Rule(
        "rendezvous-form", "refuse", "launch.rendezvous is a host and a port",
        lambda f: f"launch.rendezvous={f.run.launch.rendezvous}",
        lambda f: f.run.launch.rendezvous is not None and network.endpoint(f.run.launch.rendezvous) is None,
        "is not a host and a port",
        lambda f: f"try launch.rendezvous={f.run.launch.rendezvous.partition(':')[0] or _own_address()}:29500",
    ),
    Rule(
        "rendezvous-in-reach", "refuse", "other machines reach launch.rendezvous",
        lambda f: f"launch.rendezvous={f.run.launch.rendezvous}",
        lambda f: _only_here(f.run.launch.rendezvous),
        "every machine takes this address for itself",
        lambda f: f"try launch.rendezvous={_own_address()}:29500 if this is the first node",
    ),
    Rule(
        "interface-exists", "refuse", "launch.interface is an interface of this machine",
        lambda f: f"launch.interface={f.run.launch.interface}",
        lambda f: f.run.launch.option == "local"
        and f.run.launch.interface not in ("auto", *network.interfaces()),
        lambda f: f"no such interface on this machine, which has {', '.join(network.interfaces())}",
        "try launch.interface=auto",
    ),
    Rule(
        "restarts-from-something", "warn", "launch.max_restarts goes back to a checkpoint",
        lambda f: f"launch.max_restarts={f.run.launch.max_restarts}",
        lambda f: bool(f.run.launch.max_restarts) and _saves_at_end_only(f),
        "the run saves at its end only: a restart begins at step 0",
        lambda f: f"try checkpoint.every={max(1, (f.steps or 0) // 4)}",
    ),
)  # fmt: skip
