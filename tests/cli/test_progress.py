"""What is shown of a run while it happens."""

import io

import pytest
from google.protobuf.duration_pb2 import Duration
from rich.console import Console

from ensemble.v1 import candidate_pb2, gateway_service_pb2, outcome_pb2, receipt_pb2, run_event_pb2
from services.cli.progress import Progress

Event = gateway_service_pb2.StreamGenerateResponse


class Screen(io.StringIO):
    """A text stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


def _started() -> Event:
    return Event(run_started=run_event_pb2.RunStarted(run_id="r", strategy="fusion", candidate_ids=["a", "b"], trace_id="t"))


def _asked(name: str) -> Event:
    return Event(candidate_started=run_event_pb2.CandidateStarted(candidate_id=name, model="m"))


def _finished(name: str, outcome: outcome_pb2.Outcome.ValueType, reason: str = "", seconds: int | None = None) -> Event:
    latency = None if seconds is None else Duration(seconds=seconds)
    call = receipt_pb2.CallReceipt(candidate_id=name, model="m", outcome=outcome, reason=reason, latency=latency)
    return Event(candidate_finished=run_event_pb2.CandidateFinished(candidate=candidate_pb2.Candidate(candidate_id=name, outcome=outcome), call=call))


def _refining() -> Event:
    return Event(refinement_started=run_event_pb2.RefinementStarted(model="w", candidate_ids=["a"]))


def _delta(text: str, *, restart: bool = False) -> Event:
    return Event(answer_delta=run_event_pb2.AnswerDelta(text=text, restart=restart))


def _done(answer: str) -> Event:
    return Event(run_finished=gateway_service_pb2.GenerateResponse(answer=answer))


def test_without_a_terminal_each_event_is_a_line() -> None:
    """The answer is written once, when it is whole; a candidate's growth says nothing."""
    told, answer = io.StringIO(), io.StringIO()
    events = [
        *(_started(), _asked("a"), _asked("b"), Event(candidate_delta=run_event_pb2.CandidateDelta(candidate_id="a", text="x"))),
        *(_finished("a", outcome_pb2.OUTCOME_OK, seconds=2), _finished("b", outcome_pb2.OUTCOME_PROVIDER_FAILED, "http_503")),
        *(_refining(), _delta("half"), _delta("whole", restart=True)),
    ]
    with Progress(Console(file=told, width=100), answer) as progress:
        for event in events:
            progress.show(event)
        assert answer.getvalue() == ""
        progress.show(_done("whole"))
    assert told.getvalue().splitlines() == [
        "run r, trace t: fusion of 2 calls",
        "a: asked m",
        "b: asked m",
        "a: OK after 2.000 s",
        "b: PROVIDER_FAILED (http_503)",
        "refiner: w writes from 1 candidates",
    ]
    assert answer.getvalue() == "whole\n"


def test_the_live_table_says_how_long_each_call_takes() -> None:
    """It counts until the call ends, and stands once more when the answer begins."""
    now = 10.0
    screen = Screen()
    console = Console(file=screen, force_terminal=True, width=80, color_system="standard")
    with Progress(console, Screen(), clock=lambda: now) as progress:
        progress.show(_started())
        progress.show(_asked("a"))
        now = 13.0
        table = io.StringIO()
        Console(file=table, width=80).print(progress._table())
        assert [line.split() for line in table.getvalue().splitlines()] == [["a", "m", "asked,", "3", "s"], ["b", "waiting"]]
        progress.show(_finished("a", outcome_pb2.OUTCOME_OK, seconds=2))
        progress.show(_finished("b", outcome_pb2.OUTCOME_NOT_STARTED))
        progress.show(_refining())
        now = 14.0
        progress.show(_delta("the answer"))
    last = screen.getvalue().rpartition("\x1b[2K")[2]
    assert "\x1b[32mOK after 2.000 s" in last
    assert "\x1b[31mNOT_STARTED" in last
    assert "writes from 1 candidates, 1 s" in last


def test_nothing_is_left_standing_of_a_run_that_never_began() -> None:
    """An error before the first event leaves no empty table, and the cursor is shown again."""
    screen = Screen()
    with pytest.raises(ValueError, match="refused"), Progress(Console(file=screen, force_terminal=True, width=80), Screen()):
        raise ValueError("refused")
    assert screen.getvalue() == "\x1b[?25l\n\x1b[?25h\r\x1b[1A\x1b[2K"


def test_on_a_terminal_the_answer_grows() -> None:
    """Piece by piece, with a line that says so where it starts anew; the end repeats nothing."""
    told, answer = io.StringIO(), Screen()
    with Progress(Console(file=told, width=100), answer) as progress:
        progress.show(_delta("first", restart=True))
        assert answer.getvalue() == "first"
        assert told.getvalue() == ""
        progress.show(_delta("whole", restart=True))
        progress.show(_delta(""))
        progress.show(_done("whole"))
    assert answer.getvalue() == "first\nwhole\n"
    assert told.getvalue() == "(the answer starts anew)\n"


def test_an_answer_without_growth_is_written_whole() -> None:
    """As a strategy may give it."""
    answer = Screen()
    with Progress(Console(file=io.StringIO()), answer) as progress:
        progress.show(_done("whole\n"))
    assert answer.getvalue() == "whole\n"


def test_outcomes_of_a_later_version_have_numbers() -> None:
    """A candidate whose call says nothing still has an outcome."""
    told = io.StringIO()
    with Progress(Console(file=told), io.StringIO()) as progress:
        finished = run_event_pb2.CandidateFinished()
        finished.candidate.MergeFromString(b"\x0a\x01z\x20\x63")
        progress.show(Event(candidate_finished=finished))
        progress.show(Event())
    assert told.getvalue() == "z: number 99\n"
