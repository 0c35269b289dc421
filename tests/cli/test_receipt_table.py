"""The receipt in a person's words."""

import io
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from rich.console import Console

from ensemble.v1 import analysis_pb2, degradation_pb2, gateway_service_pb2, outcome_pb2, permit_pb2, provenance_pb2, receipt_pb2
from services.cli.receipt_table import breaker_name, dollars, money, plain, print_receipt, seconds, span, tokens


def _printed(response: gateway_service_pb2.GenerateResponse) -> str:
    told = io.StringIO()
    print_receipt(Console(file=told, width=140), response)
    return told.getvalue()


def test_a_whole_receipt() -> None:
    """Every call with its figures, the stages, the cost with its source, where the answer came from, and what is missing."""
    failed = receipt_pb2.CallReceipt(candidate_id="b", model="m2", outcome=outcome_pb2.OUTCOME_RATE_LIMITED, reason="http_429")
    writer = receipt_pb2.CallReceipt(
        member_id="refiner",
        model="w",
        outcome=outcome_pb2.OUTCOME_OK,
        latency=Duration(seconds=1, nanos=500_000_000),
        time_to_first_token=Duration(nanos=250_000_000),
        usage=receipt_pb2.Usage(input_tokens=12, output_tokens=34, estimated=True),
        cost=receipt_pb2.Cost(micro_usd=1_500_000, source=receipt_pb2.COST_SOURCE_ESTIMATE),
    )
    receipt = receipt_pb2.Receipt(
        calls=[failed, writer],
        stages=[receipt_pb2.StageReceipt(stage="panel", latency=Duration(seconds=3))],
        latency=Duration(seconds=4),
        overhead=Duration(nanos=2_000_000),
        cost=receipt_pb2.Cost(micro_usd=1_500_000, source=receipt_pb2.COST_SOURCE_PROVIDER),
    )
    lines = _printed(
        gateway_service_pb2.GenerateResponse(
            run_id="r",
            receipt=receipt,
            provenance=provenance_pb2.Provenance(method=provenance_pb2.METHOD_SOLE_SURVIVOR, candidate_ids=["a"], answer_model="m1"),
            degraded=True,
            degradations=[degradation_pb2.DEGRADATION_SOLE_SURVIVOR, degradation_pb2.DEGRADATION_TRUNCATED],
        )
    ).splitlines()
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if "│" in line]
    assert cells == [
        ["b", "m2", "RATE_LIMITED (http_429)", "", "", "", ""],
        ["refiner", "w", "OK", "0.250 s", "1.500 s", "~12+34", "~$1.500000"],
    ]
    assert lines[-4:] == [
        "total 4.000 s (panel 3.000 s; the ensemble's own 0.002 s), $1.500000 (provider)",
        "answer SOLE_SURVIVOR from a by m1",
        "degraded: SOLE_SURVIVOR, TRUNCATED",
        "run r, trace none",
    ]


def test_a_cached_answer_is_called_so() -> None:
    """How old it is and that no model was called, instead of a table without rows; its cost is nothing, not unknown."""
    receipt = receipt_pb2.Receipt(cached=True, cached_age=Duration(seconds=192), latency=Duration(nanos=2_000_000), overhead=Duration(nanos=2_000_000))
    provenance = provenance_pb2.Provenance(method=provenance_pb2.METHOD_SINGLE, candidate_ids=["a"], answer_model="m")
    assert _printed(gateway_service_pb2.GenerateResponse(run_id="r", receipt=receipt, provenance=provenance)).splitlines() == [
        "Receipt",
        "cached: made 3m 12s ago for an equal request; no model was called",
        "total 0.002 s (the ensemble's own 0.002 s), nothing spent",
        "answer SINGLE from a by m",
        "run r, trace none",
    ]
    assert "cached" not in _printed(gateway_service_pb2.GenerateResponse())


@pytest.mark.parametrize(
    ("attempt", "kind", "shown"),
    [
        (0, permit_pb2.ATTEMPT_KIND_UNSPECIFIED, "beta"),
        (1, permit_pb2.ATTEMPT_KIND_FIRST, "beta"),
        (2, permit_pb2.ATTEMPT_KIND_RETRY, "beta (retry 2)"),
        (3, permit_pb2.ATTEMPT_KIND_RETRY, "beta (retry 3)"),
        (2, permit_pb2.ATTEMPT_KIND_HEDGE, "beta (hedge)"),
        (3, permit_pb2.ATTEMPT_KIND_HEDGE, "beta (hedge 3)"),
        (2, permit_pb2.ATTEMPT_KIND_UNSPECIFIED, "beta (attempt 2)"),
    ],
)
def test_each_attempt_says_which_it_is(attempt: int, kind: permit_pb2.AttemptKind.ValueType, shown: str) -> None:
    """A first attempt has its name alone, a retry its number, and a hedge is called one."""
    call = receipt_pb2.CallReceipt(candidate_id="beta", model="m", attempt=attempt, attempt_kind=kind)
    first = receipt_pb2.CallReceipt(candidate_id="alpha", model="m")
    printed = _printed(gateway_service_pb2.GenerateResponse(receipt=receipt_pb2.Receipt(calls=[first, call])))
    assert [line.split("│")[1].strip() for line in printed.splitlines() if "│" in line] == ["alpha", shown]


def _judged(verdict: provenance_pb2.Verdict, **fields: Any) -> list[str]:
    """Return the lines between the answer's and the run's."""
    response = gateway_service_pb2.GenerateResponse(provenance=provenance_pb2.Provenance(verdict=verdict), **fields)
    lines = _printed(response).splitlines()
    return lines[next(index for index, line in enumerate(lines) if line.startswith("answer ")) + 1 : -1]


def test_what_judges_said_is_told() -> None:
    """The agreement, then the ranking with its scores, the judges, whether they were of one mind, and whether one of them is a party to it."""
    verdict = provenance_pb2.Verdict(
        judges=["j1", "j2"], ranking=["beta", "alpha"], scores=[1.0, 0.251], agreed=False, judge_also_proposed=True, chosen_positions=[1, 2]
    )
    assert _judged(verdict, receipt=receipt_pb2.Receipt(agreement=0.5)) == [
        "agreement of the candidates 0.50",
        "ranking by j1, j2, not of one mind: 1. beta (1.00), 2. alpha (0.25)",
        "a judge's model also wrote candidates, and may prefer its own",
    ]


def test_a_pick_has_no_scores() -> None:
    """Where a judge only picked, the ranking stands alone; so it does where the scores are not one for each."""
    assert _judged(provenance_pb2.Verdict(judges=["j"], ranking=["b", "a"], agreed=True)) == ["ranking by j: 1. b, 2. a"]
    assert _judged(provenance_pb2.Verdict(ranking=["b", "a"], scores=[1.0], agreed=True)) == ["ranking: 1. b, 2. a"]


def test_votes_are_told_with_their_voters() -> None:
    """Each answer as one line's text, whatever it holds, with the weight of its voters; an agreement of nothing is told too."""
    votes = [
        provenance_pb2.VoteCount(value="forty\n two\x1b[2J", weight=2.0, candidate_ids=["a", "b"]),
        provenance_pb2.VoteCount(value="[b]41", weight=0.5, candidate_ids=["c"]),
    ]
    assert _judged(provenance_pb2.Verdict(votes=votes, agreed=True), receipt=receipt_pb2.Receipt(agreement=0.0)) == [
        "agreement of the candidates 0.00",
        "votes: forty two\ufffd[2J has 2 (a, b); [b]41 has 0.5 (c)",
    ]


def test_an_analysis_is_told_point_by_point() -> None:
    """Kinds without points are left out; each point is one line, without markup or escapes of a model's."""
    analysis = analysis_pb2.Analysis(consensus=["It is 42.", "[b]Sure\nof it"], partial_coverage=["Only one says\x07 why."], blind_spots=["The question."])
    assert _judged(provenance_pb2.Verdict(), analysis=analysis) == [
        "consensus:",
        "  - It is 42.",
        "  - [b]Sure of it",
        "partial coverage:",
        "  - Only one says\ufffd why.",
        "blind spots:",
        "  - The question.",
    ]
    all_kinds = analysis_pb2.Analysis(consensus=["a"], contradictions=["b"], partial_coverage=["c"], unique_insights=["d"], blind_spots=["e"])
    assert len(_judged(provenance_pb2.Verdict(), analysis=all_kinds)) == 2 * len(analysis_pb2.Analysis.DESCRIPTOR.fields)


def test_nothing_is_said_of_judges_where_there_were_none() -> None:
    """A plain run has a plain receipt."""
    assert _judged(provenance_pb2.Verdict()) == []


def test_what_is_not_known_is_not_made_up() -> None:
    """No tokens, no price: nothing, rather than zeros."""
    assert tokens(receipt_pb2.Usage()) == ""
    assert dollars(receipt_pb2.Cost(micro_usd=5)) == ""
    assert money(receipt_pb2.Cost(micro_usd=5)) == ""
    assert dollars(receipt_pb2.Cost(micro_usd=5, source=receipt_pb2.COST_SOURCE_PRICE_TABLE)) == "$0.000005"
    assert "no cost known" in _printed(gateway_service_pb2.GenerateResponse())
    assert "degraded" not in _printed(gateway_service_pb2.GenerateResponse())


def test_names_of_a_later_version_are_numbers() -> None:
    """Nothing breaks where a newer gateway says what this version does not know."""
    response = gateway_service_pb2.GenerateResponse()
    response.provenance.MergeFromString(b"\x08\x4d")
    assert "answer number 77" in _printed(response)
    assert (breaker_name(1), breaker_name(77)) == ("CLOSED", "number 77")


def test_long_names_are_folded_not_cut() -> None:
    """In a narrow terminal too."""
    told = io.StringIO()
    call = receipt_pb2.CallReceipt(candidate_id="a" * 30, model="b" * 30, outcome=outcome_pb2.OUTCOME_OK)
    print_receipt(Console(file=told, width=60), gateway_service_pb2.GenerateResponse(receipt=receipt_pb2.Receipt(calls=[call])))
    assert (told.getvalue().count("a" * 5) > 0, "…" in told.getvalue()) == (True, False)


def test_text_of_others_is_neither_markup_nor_emoji() -> None:
    """It appears as it was written."""
    told = io.StringIO()
    Console(file=told).print(plain("[red]x[/red] :smile: \x1b[1m"))
    assert told.getvalue() == "[red]x[/red] :smile: \ufffd[1m\n"


def test_durations_are_in_seconds() -> None:
    """To the millisecond."""
    assert seconds(Duration(seconds=61, nanos=1_500_000)) == "61.002 s"


@pytest.mark.parametrize(("length", "words"), [(0, "0.0 s"), (59, "59.0 s"), (60, "1m 0s"), (3_600, "1h 0m"), (2_520_000, "29d 4h")])
def test_times_are_as_exact_as_they_are_long(length: int, words: str) -> None:
    """Tenths of seconds, seconds, minutes, hours."""
    assert span(Duration(seconds=length)) == words
