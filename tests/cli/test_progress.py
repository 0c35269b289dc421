"""What is shown of a run while it happens."""

import io

import pytest
from google.protobuf.duration_pb2 import Duration
from rich.console import Console

from ensemble.v1 import candidate_pb2, gateway_service_pb2, outcome_pb2, permit_pb2, receipt_pb2, run_event_pb2
from services.cli.progress import Progress

Event = gateway_service_pb2.StreamGenerateResponse


class Screen(io.StringIO):
    """A text stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


def _started() -> Event:
    return Event(run_started=run_event_pb2.RunStarted(run_id="r", strategy="fusion", candidate_ids=["a", "b"], trace_id="t"))


def _asked(name: str, kind: permit_pb2.AttemptKind.ValueType = permit_pb2.ATTEMPT_KIND_FIRST) -> Event:
    return Event(candidate_started=run_event_pb2.CandidateStarted(candidate_id=name, model="m", attempt_kind=kind))


def _finished(name: str, outcome: outcome_pb2.Outcome.ValueType, reason: str = "", seconds: int | None = None) -> Event:
    latency = None if seconds is None else Duration(seconds=seconds)
    call = receipt_pb2.CallReceipt(candidate_id=name, model="m", outcome=outcome, reason=reason, latency=latency)
    return Event(candidate_finished=run_event_pb2.CandidateFinished(candidate=candidate_pb2.Candidate(candidate_id=name, outcome=outcome), call=call))


def _refining(stage: str = "", candidates: int = 1) -> Event:
    return Event(refinement_started=run_event_pb2.RefinementStarted(model="w", candidate_ids=["a"] * candidates, stage=stage))


def _staged(stage: str, seconds: int) -> Event:
    return Event(stage_finished=run_event_pb2.StageFinished(stage=receipt_pb2.StageReceipt(stage=stage, latency=Duration(seconds=seconds))))


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
        "refiner: w writes from 1 candidate",
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
    assert "writes from 1 candidate, 1 s" in last


def _table(progress: Progress) -> list[list[str]]:
    """Return the cells of the table as it stands."""
    table = io.StringIO()
    Console(file=table, width=80).print(progress._table())
    return [line.split() for line in table.getvalue().splitlines()]


def test_retries_and_hedges_are_told_apart() -> None:
    """A hedge keeps the time of the call that it stands beside; a retry begins anew."""
    now = 10.0
    told = io.StringIO()
    with Progress(Console(file=told, width=100), io.StringIO(), clock=lambda: now) as progress:
        for event in (_started(), _asked("a"), _asked("b")):
            progress.show(event)
        now = 12.0
        progress.show(_asked("a", permit_pb2.ATTEMPT_KIND_HEDGE))
        progress.show(_asked("b", permit_pb2.ATTEMPT_KIND_RETRY))
        now = 13.0
        assert _table(progress) == [["a", "m", "hedged,", "3", "s"], ["b", "m", "tried", "again,", "1", "s"]]
        progress.show(_asked("c", permit_pb2.ATTEMPT_KIND_HEDGE))
        now = 14.0
        assert _table(progress)[2] == ["c", "m", "hedged,", "1", "s"]
    assert told.getvalue().splitlines()[1:] == ["a: asked m", "b: asked m", "a: hedged", "b: tried again", "c: hedged"]


def test_stages_have_their_names() -> None:
    """Each with what its model does; one that only a later version knows is told too, and the end of a stage is not a line of its own."""
    told = io.StringIO()
    events = [
        *(_staged("panel", 1), _refining("analysis", 3), _staged("analysis", 1), _refining("judgement", 2), _refining("ranking", 2)),
        *(_refining("scoring"), _refining("refinement", 2), _refining("repair"), _refining("[b]polish", 2), _staged("panel/2", 1)),
    ]
    with Progress(Console(file=told, width=100), io.StringIO()) as progress:
        for event in events:
            progress.show(event)
    assert told.getvalue().splitlines() == [
        "analysis: w compares 3 candidates",
        "judgement: w judges 2 candidates",
        "ranking: w ranks 2 candidates",
        "scoring: w scores 1 candidate",
        "refinement: w writes from 2 candidates",
        "repair: w repairs 1 candidate",
        "[b]polish: w works on 2 candidates",
    ]


def test_a_stage_that_is_over_is_no_longer_counted() -> None:
    """Its row says how long it took; a stage that nobody was told of gets none, and a member of its name keeps its own."""
    now = 10.0
    with Progress(Console(file=io.StringIO(), width=100), io.StringIO(), clock=lambda: now) as progress:
        for event in (_asked("ranking"), _staged("panel", 2), _refining("ranking", 2)):
            progress.show(event)
        now = 12.0
        assert _table(progress) == [["ranking", "m", "asked,", "2", "s"], ["ranking", "w", "ranks", "2", "candidates,", "2", "s"]]
        progress.show(_staged("ranking", 2))
        now = 15.0
        assert _table(progress)[1] == ["ranking", "w", "ranks", "2", "candidates,", "done", "after", "2.000", "s"]


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
