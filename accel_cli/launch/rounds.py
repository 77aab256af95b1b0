"""Rounds: one node's ranks, and when they start again, together with those of all other nodes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from dataclasses import asdict
from functools import partial
from typing import Any

from torch.distributed import DistError, Store
from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerSpec, WorkerState
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.rendezvous import RendezvousClosedError, RendezvousError, RendezvousTimeoutError

from accel_cli.engine.stop import REGROUP
from accel_cli.errors import INTERRUPTED, NO_TIME_TO_SAVE, SAVED_RUN_AGAIN, HangError
from accel_cli.launch import first_failure
from accel_cli.launch.first_failure import LOST, Failure
from accel_cli.launch.loopback import Loopback
from accel_cli.launch.meeting import Meeting
from accel_cli.launch.notes import PATIENCE, Notes
from accel_cli.worker import Request, rank

MONITOR_INTERVAL = 0.02
"""Seconds between two looks at the ranks: how late their end may be noticed."""
ASKED_TO_END = (SAVED_RUN_AGAIN, INTERRUPTED, -signal.SIGINT, -signal.SIGTERM, -signal.SIGHUP, -signal.SIGUSR1)
"""Exit codes of ranks that a signal ended, after they had saved or before there was anything to save."""
AGAIN_THE_SAME = (2, 4, 5, 8)
"""Exit codes of failures that starting again would only repeat: configuration, checkpoint, divergence, security."""


def say(descriptor: int, event: str, **values: Any) -> None:
    """Tell the front."""
    os.write(descriptor, (json.dumps({"event": event, **values}) + "\n").encode())


class Rounds(LocalElasticAgent):
    """torchelastic's agent with accel's own idea of when to start again.

    Ranks that end because they were asked to are not started again. A node that joins lets all ranks save first. A
    failure counts once however many ranks and nodes it took down, and what is reported is its cause. ``store``
    is the one that lasts through all rounds; ``descriptor`` the pipe to the front.
    """

    def __init__(
        self,
        meeting: Loopback | Meeting,
        store: Store,
        request: Request,
        processes: int,
        most_restarts: int,
        descriptor: int,
    ) -> None:
        spec = WorkerSpec(
            role="accel",
            local_world_size=processes,
            entrypoint=rank,
            args=(request, descriptor),
            rdzv_handler=meeting,
            max_restarts=0,
            monitor_interval=MONITOR_INTERVAL,
        )
        super().__init__(
            spec,
            logs_specs=DefaultLogsSpecs(log_dir=os.devnull),
            start_method="spawn" if sys.platform == "darwin" else "fork",
            exit_barrier_timeout=30,
        )
        self.meeting = meeting
        self.notes, self.folder, self.most_restarts = Notes(store), request.path, most_restarts
        self.tell = partial(say, descriptor)
        self.code: int | None = None
        """The exit code that the run ended with on this node; None while it has not."""
        self.failure: Failure | None = None

    def end(self) -> dict[str, Any]:
        """Run to the end: ``code``, the exit code of the run on this node, and ``failure``, or None."""
        try:
            self.run()
            if self.code is None or (self.failure is not None and self.failure.type == LOST):
                self._believe_the_others()
            self.notes.ended(self._end())
            self.meeting.set_closed()
            self.notes.leave()
        except RendezvousClosedError:
            self._believe_the_others()
            self.notes.leave()
        except RendezvousTimeoutError:
            self._fail(HangError.exit_code, "fewer nodes than launch.nodes asks for came within launch.wait")
        except (RendezvousError, DistError):
            if self.code is None or (self.failure is not None and (self.failure.type == LOST or self.failure.echo)):
                self._fail(3, "the first node, at launch.rendezvous, is gone")
        return self._end()

    def _end(self) -> dict[str, Any]:
        return {"code": self.code, "failure": asdict(self.failure) if self.failure is not None else None}

    def _fail(self, code: int, why: str) -> None:
        self.code, self.failure = code, Failure(None, None, LOST, why, "", None, code)

    def _believe_the_others(self) -> None:
        """Another node has ended the run; it noted how."""
        if end := self.notes.end():
            self.code, self.failure = end["code"], Failure(**end["failure"]) if end["failure"] else None

    def _rendezvous(self, worker_group: WorkerGroup) -> None:
        super()._rendezvous(worker_group)
        # What torchelastic counts is local; ranks have to know how often all of them were started.
        self._remaining_restarts = self._worker_group.spec.max_restarts - self.meeting.round
        me = worker_group.group_rank
        assert self._store is not None
        assert me is not None
        self.notes.begin(self._store, self.meeting.round, self.meeting.size, me, self.meeting.address)
        if isinstance(self.meeting, Meeting):
            ranks = [worker.global_rank for worker in worker_group.workers]
            here = f"ranks {ranks[0]}-{ranks[-1]}" if len(ranks) > 1 else f"rank {ranks[0]}"
            nodes = f"{self.meeting.size} node{'s' * (self.meeting.size > 1)}"
            self.tell("say", text=f"{nodes}: {here} of {worker_group.workers[0].world_size} on this one")

    def _invoke_run(self, role: str = "") -> RunResult:
        group = self._worker_group
        while True:
            self._initialize_workers(group)
            result, regroups = self._watch()
            ended = self._ended(result)
            code = ended[0]["exit_code"] if ended else None
            if result.state == WorkerState.SUCCEEDED:
                self.code = 0
                self._exit_barrier()
                return result
            told = first_failure.find(self.folder, ended) if ended else None
            if code in ASKED_TO_END:
                self.code = code if code > 0 else INTERRUPTED if code == -signal.SIGINT else NO_TIME_TO_SAVE
                self.failure = told if code < 0 else None
                return result
            if code == REGROUP or regroups:
                continue
            self.failure = self.notes.cause(told)
            self.code = self.failure.exit_code
            attempt = self.notes.failed_rounds() + 1
            again = attempt <= self.most_restarts + 1 and self.code not in AGAIN_THE_SAME
            if not again or self.meeting.standing() == "closed":
                return result
            self.tell("restarting", failure=asdict(self.failure), attempt=attempt, attempts=self.most_restarts + 1)
            self.code = self.failure = None
            for worker in group.workers:
                (self.folder / "ranks" / f"{worker.global_rank}.failure.json").unlink(missing_ok=True)

    def _watch(self) -> tuple[RunResult, bool]:
        """Wait for the end of this round. The flag: it ends because another node wants to join."""
        regroups, alone_since = False, None
        while True:
            time.sleep(self._worker_group.spec.monitor_interval)
            result = self._monitor_workers(self._worker_group)
            self._worker_group.state = result.state
            if result.state != WorkerState.HEALTHY:
                return result, regroups
            try:
                standing = self.meeting.standing()
            except (RendezvousError, DistError):
                self._shutdown(signal.SIGKILL)
                raise
            if standing == "awaited" and not regroups:
                regroups = True
                self.tell("say", text="another node joins: saving, then all begin again together")
                self._signal(signal.SIGUSR2)
            elif standing in ("apart", "closed") and alone_since is None:
                alone_since = time.monotonic()
            elif alone_since is not None and time.monotonic() - alone_since > PATIENCE:
                self._shutdown(signal.SIGKILL)
                return RunResult(state=WorkerState.FAILED), regroups

    def _signal(self, number: int) -> None:
        assert self._pcontext is not None
        for pid in self._pcontext.pids().values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _ended(self, result: RunResult) -> list[dict[str, Any]]:
        """The ranks of this node that ended by themselves in a failed round: first the one that was noticed first."""
        if not result.is_failed():
            return []
        found = [{"rank": n, "pid": f.pid, "exit_code": f.exitcode} for n, f in result.failures.items()]
        context = getattr(self._pcontext, "_pc", None)
        for worker, process in zip(self._worker_group.workers, context.processes if context else (), strict=False):
            left = process.exitcode not in (None, -signal.SIGTERM, NO_TIME_TO_SAVE)
            if result.failures and left and worker.global_rank not in result.failures:
                found.append({"rank": worker.global_rank, "pid": process.pid, "exit_code": process.exitcode})
        return found
