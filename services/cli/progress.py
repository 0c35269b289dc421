"""Shows a run while it happens: a line for each member on standard error, the answer on standard output."""

from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table

from ensemble.v1 import gateway_service_pb2
from services.cli.receipt_table import outcome, outcome_name, plain, seconds
from services.cli.terminal_text import write_answer


class Progress:
    """Follows the events of one run.

    On a terminal the members stand in a live table until the answer begins, which is then written as it grows. Elsewhere each event is a line, and the answer
    is written once, when it is whole: what a failed writer had begun to say must not end up in a file.
    """

    def __init__(self, console: Console, answer: TextIO) -> None:
        self._console = console
        self._answer = answer
        self._rows: dict[str, tuple[str, str]] = {}
        self._live = Live(console=console, refresh_per_second=8, transient=True, get_renderable=self._table) if console.is_terminal else None
        self._spoken = False

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
                self._rows = dict.fromkeys(event.run_started.candidate_ids, ("", "waiting"))
                self._say(f"run {event.run_started.run_id}: {event.run_started.strategy} of {len(self._rows)} calls")
            case "candidate_started":
                self._rows[event.candidate_started.candidate_id] = (event.candidate_started.model, "asked")
                self._say(f"{event.candidate_started.candidate_id}: asked {event.candidate_started.model}")
            case "candidate_finished":
                self._finished(event.candidate_finished.candidate.candidate_id, event)
            case "refinement_started":
                self._rows["refiner"] = (event.refinement_started.model, "writing")
                self._say(f"refiner: {event.refinement_started.model} works on {len(event.refinement_started.candidate_ids)} candidates")
            case "answer_delta":
                self._speak(event.answer_delta.text, restart=event.answer_delta.restart)
            case "run_finished":
                self._finish(event.run_finished.answer)

    def _finished(self, candidate_id: str, event: gateway_service_pb2.StreamGenerateResponse) -> None:
        call = event.candidate_finished.call
        said = outcome(call) if call.outcome else outcome_name(event.candidate_finished.candidate.outcome)
        if call.HasField("latency"):
            said += f" after {seconds(call.latency)}"
        self._rows[candidate_id] = (call.model, said)
        self._say(f"{candidate_id}: {said}")

    def _speak(self, text: str, *, restart: bool) -> None:
        if not self._answer.isatty():
            return
        self._settle()
        if restart and self._spoken:
            self._console.print("\n\\[the answer starts anew]", style="yellow")
        self._spoken = True
        write_answer(text, self._answer)

    def _finish(self, answer: str) -> None:
        self._settle()
        if self._spoken:
            write_answer("\n", self._answer)
        else:
            write_answer(answer + "\n", self._answer)

    def _say(self, line: str) -> None:
        if self._live is None:
            self._console.print(plain(line))

    def _settle(self) -> None:
        """Take the live table down and leave its last state standing."""
        if self._live is not None:
            self._live.stop()
            self._live = None
            self._console.print(self._table())

    def _table(self) -> Table:
        table = Table(box=None, show_header=False, pad_edge=False)
        for candidate_id, (model, state) in self._rows.items():
            table.add_row(plain(candidate_id), plain(model), plain(state))
        return table
