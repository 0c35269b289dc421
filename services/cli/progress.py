"""Shows a run while it happens: a line for each member and each stage on standard error, the answer on standard output."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ensemble.v1 import gateway_service_pb2, outcome_pb2, permit_pb2, receipt_pb2, run_event_pb2
from services.cli.receipt_table import outcome, outcome_name, plain, seconds
from services.cli.terminal_text import visible, write_answer

_REFINER = "refiner"
"""What a stage without a name is called; services before this version gave none."""
_WORK = {
    "": "writes from",
    "refinement": "writes from",
    "analysis": "compares",
    "judgement": "judges",
    "ranking": "ranks",
    "scoring": "scores",
    "repair": "repairs",
}
"""What a model does in each stage; of one that only a later version has, no more is told than that it works."""
_GOOD = outcome_name(outcome_pb2.OUTCOME_OK)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """What is known of one call."""

    model: str = ""
    state: str = "waiting"
    style: str = ""
    since: float | None = None
    """When it began; None where it has not, or has ended."""


class Progress:
    """Follows the events of one run.

    On a terminal the members stand in a live table until the answer begins, which is then written as it grows. Elsewhere each event is a line, and the answer
    is written once, when it is whole: what a failed writer had begun to say must not end up in a file.
    """

    def __init__(self, console: Console, answer: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._answer = answer
        self._clock = clock
        self._rows: dict[str, _Row] = {}
        self._stages: dict[str, _Row] = {}
        self._live = Live(console=console, refresh_per_second=8, transient=True, get_renderable=self._table) if console.is_terminal else None
        self._spoken = ""

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._settle()

    def show(self, event: gateway_service_pb2.StreamGenerateResponse) -> None:
        """Show one event."""
        match event.WhichOneof("event"):
            case "run_started":
                self._run_started(event.run_started)
            case "candidate_started":
                self._candidate_started(event.candidate_started)
            case "candidate_finished":
                self._candidate_finished(event.candidate_finished)
            case "refinement_started":
                self._refinement_started(event.refinement_started)
            case "stage_finished":
                self._stage_finished(event.stage_finished.stage)
            case "answer_delta":
                self._speak(event.answer_delta.text, restart=event.answer_delta.restart)
            case "run_finished":
                self._finish(event.run_finished.answer)

    def _run_started(self, started: run_event_pb2.RunStarted) -> None:
        self._rows = {candidate_id: _Row() for candidate_id in started.candidate_ids}
        line = f"run {started.run_id}, trace {started.trace_id or 'none'}: {started.strategy} of {len(self._rows)} calls"
        # Above the live table, which never holds it.
        self._console.print(plain(line))

    def _candidate_started(self, started: run_event_pb2.CandidateStarted) -> None:
        name = started.candidate_id
        match started.attempt_kind:
            case permit_pb2.ATTEMPT_KIND_HEDGE:
                # The call before is still under way, and its time goes on.
                since = self._rows.get(name, _Row()).since
                self._rows[name] = _Row(model=started.model, state="hedged", since=self._clock() if since is None else since)
                self._say(f"{name}: hedged")
            case permit_pb2.ATTEMPT_KIND_RETRY:
                self._rows[name] = self._begun(started.model, "tried again")
                self._say(f"{name}: tried again")
            case _:
                self._rows[name] = self._begun(started.model, "asked")
                self._say(f"{name}: asked {started.model}")

    def _refinement_started(self, started: run_event_pb2.RefinementStarted) -> None:
        stage = started.stage or _REFINER
        count = len(started.candidate_ids)
        work = f"{_WORK.get(started.stage, 'works on')} {count} candidate{'' if count == 1 else 's'}"
        self._stages[stage] = self._begun(started.model, work)
        self._say(f"{stage}: {started.model} {work}")

    def _stage_finished(self, finished: receipt_pb2.StageReceipt) -> None:
        """Stop the clock of a stage that stands in the table; the receipt will say the rest."""
        row = self._stages.get(finished.stage)
        if row is not None:
            self._stages[finished.stage] = _Row(model=row.model, state=f"{row.state}, done after {seconds(finished.latency)}", style="green")

    def _begun(self, model: str, state: str) -> _Row:
        return _Row(model=model, state=state, since=self._clock())

    def _candidate_finished(self, finished: run_event_pb2.CandidateFinished) -> None:
        call = finished.call
        name = outcome_name(finished.candidate.outcome)
        said = outcome(call) if call.outcome else name
        if call.HasField("latency"):
            said += f" after {seconds(call.latency)}"
        self._rows[finished.candidate.candidate_id] = _Row(model=call.model, state=said, style="green" if name == _GOOD else "red")
        self._say(f"{finished.candidate.candidate_id}: {said}")

    def _speak(self, text: str, *, restart: bool) -> None:
        if not self._answer.isatty():
            return
        self._settle()
        if restart and self._spoken:
            write_answer("\n", self._answer)
            self._console.print("(the answer starts anew)", style="yellow")
        self._spoken = text or self._spoken
        write_answer(text, self._answer)

    def _finish(self, answer: str) -> None:
        self._settle()
        if not self._spoken:
            self._spoken = answer
            write_answer(answer, self._answer)
        if not self._spoken.endswith("\n"):
            write_answer("\n", self._answer)

    def _say(self, line: str) -> None:
        if self._live is None:
            self._console.print(plain(line))

    def _settle(self) -> None:
        """Take the live table down and leave its last state standing."""
        if self._live is not None:
            self._live.stop()
            self._live = None
            if self._rows or self._stages:
                self._console.print(self._table())

    def _table(self) -> Table:
        table = Table(box=None, show_header=False, pad_edge=False)
        now = self._clock()
        for name, row in (*self._rows.items(), *self._stages.items()):
            state = row.state if row.since is None else f"{row.state}, {now - row.since:.0f} s"
            table.add_row(plain(name), plain(row.model), Text(visible(state), style=row.style))
        return table
