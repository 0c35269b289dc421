"""`ensemble batch` as a process before a gateway that does as a test says: signals, resuming, retries, exit codes."""

import json
import signal
from collections import Counter
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2

from tests.support.batches import cut, kept_ids, kept_lines, names_in, numbered, write_prompts
from tests.support.command_line import NOWHERE, Terminal, begin, ended, ensemble
from tests.support.fake_batch_gateway import COST_MICRO_USD, FakeBatchGateway, fake_batch_gateway
from tests.support.fake_gateway import details

SOON = details(error_details_pb2.RetryInfo(retry_delay=Duration(nanos=200_000_000)), reason="NO_QUORUM")
BUSY = (grpc.StatusCode.UNAVAILABLE, "too few", SOON)
WRONG = (grpc.StatusCode.INVALID_ARGUMENT, "no", details(reason="INVALID_INPUT"))
LATE = (grpc.StatusCode.DEADLINE_EXCEEDED, "too late", details(reason="DEADLINE_SPENT"))
IDS = [f"a{number}" for number in range(8)]


@pytest.fixture
async def gateway() -> AsyncIterator[FakeBatchGateway]:
    """Run a gateway."""
    async with fake_batch_gateway() as running:
        yield running


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """Write eight prompts."""
    return write_prompts(tmp_path / "prompts.jsonl", numbered(8))


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    """Return where the answers go."""
    return tmp_path / "answers.jsonl"


def _words(prompts: Path, answers: Path, gateway: FakeBatchGateway, *more: str) -> list[str]:
    return ["batch", str(prompts), "--output", str(answers), "--gateway", gateway.address, *more]


async def _stopped(words: list[str], gateway: FakeBatchGateway, how: signal.Signals) -> tuple[int | None, bytes, str]:
    """Run two at a time until five are answered and two are under way, then end it."""
    gateway.held = {"p5", "p6"}
    process = await begin(*words, "--concurrency", "2")
    await gateway.holds(gateway.held)
    process.send_signal(how)
    done = await ended(process)
    await gateway.drops(gateway.held)
    gateway.held = set()
    return done.code, done.out, done.err


async def test_every_prompt_is_answered_once_and_in_order(gateway: FakeBatchGateway, prompts: Path, answers: Path) -> None:
    """Each line has the whole response; nothing else is left in the folder; the same command again asks nothing."""
    words = _words(prompts, answers, gateway, "--json")
    done = await ensemble(*words)
    told = json.loads(done.text)
    assert (done.code, done.err, told.pop("seconds") > 0) == (0, "", True)
    assert told == {"total": 8, "answered": 8, "failed": 0, "skipped": 0, "cost_micro_usd": 8 * COST_MICRO_USD}
    lines = kept_lines(answers)
    assert [(line["id"], line["ok"], line["answer"]) for line in lines] == [(f"a{number}", True, f"p{number}!") for number in range(8)]
    assert {line["response"]["run_id"] for line in lines} == {request.request_id for request in gateway.requests}
    assert len({request.request_id for request in gateway.requests}) == 8
    assert len(set(gateway.traceparents)) == 8
    assert names_in(answers.parent) == ["answers.jsonl", "prompts.jsonl"]
    again = await ensemble(*words)
    assert json.loads(again.text) | {"seconds": 0} == {"total": 8, "answered": 0, "failed": 0, "skipped": 8, "cost_micro_usd": 0, "seconds": 0}
    assert (again.code, len(gateway.requests)) == (0, 8)


async def test_lines_come_as_answers_do_and_stand_in_order_in_the_end(gateway: FakeBatchGateway, prompts: Path, answers: Path) -> None:
    """While one is waited for, later ones are kept already; the whole file has the order of the input."""
    gateway.held = {"p0", "p7"}
    process = await begin(*_words(prompts, answers, gateway, "-c", "2"))
    await gateway.holds(gateway.held)
    assert kept_ids(answers) == IDS[1:7]
    gateway.release()
    assert (await ended(process)).code == 0
    assert kept_ids(answers) == IDS


async def test_ctrl_c_cancels_what_is_under_way_and_keeps_what_is_answered(gateway: FakeBatchGateway, prompts: Path, answers: Path) -> None:
    """It ends with 130 and says how to go on; the next run asks the rest, under the same ids, and no answer twice."""
    words = _words(prompts, answers, gateway)
    code, out, err = await _stopped(words, gateway, signal.SIGINT)
    assert (code, out) == (130, b"")
    assert "interrupted; 5 of 8 answered" in err
    assert "Traceback" not in err
    assert sorted(kept_ids(answers)) == IDS[:5]
    assert (await ensemble(*words)).code == 0
    assert gateway.asked == Counter({f"p{number}": 2 if number in {5, 6} else 1 for number in range(8)})
    assert len({request.request_id for request in gateway.requests}) == 8
    assert kept_ids(answers) == IDS


async def test_a_key_that_is_not_valid_stops_the_batch_and_the_right_one_goes_on(gateway: FakeBatchGateway, prompts: Path, answers: Path) -> None:
    """Without a prompt being given up: the key says nothing of the prompts, and the others would fare no better."""
    unknown = (grpc.StatusCode.UNAUTHENTICATED, "the key is not valid", details(reason="UNAUTHENTICATED"))
    gateway.refusals = {f"p{number}": [unknown] for number in range(3, 8)}
    words = _words(prompts, answers, gateway, "-c", "1")
    done = await ensemble(*words)
    assert (done.code, kept_ids(answers)) == (2, IDS[:3])
    assert "the key is not valid" in done.err
    assert "3 of 8 answered" in done.err
    gateway.refusals = {}
    assert (await ensemble(*words)).code == 0
    assert kept_ids(answers) == IDS


async def test_ctrl_c_tells_a_script_how_far_it_came(gateway: FakeBatchGateway, prompts: Path, answers: Path) -> None:
    """In the one object, beside the error."""
    code, out, err = await _stopped(_words(prompts, answers, gateway, "--json"), gateway, signal.SIGINT)
    told = json.loads(out)
    assert (code, err, told["error"]["code"], told["answered"], told["total"]) == (130, "", "INTERRUPTED", 5, 8)


async def test_sigterm_ends_it_too(gateway: FakeBatchGateway, prompts: Path, answers: Path) -> None:
    """With its own code, and the lock is gone."""
    code, _, err = await _stopped(_words(prompts, answers, gateway), gateway, signal.SIGTERM)
    assert (code, "Traceback" in err) == (143, False)
    assert names_in(answers.parent) == ["answers.jsonl", "prompts.jsonl"]


async def test_what_was_killed_goes_on_behind_its_last_whole_line(gateway: FakeBatchGateway, prompts: Path, answers: Path) -> None:
    """SIGKILL leaves whole lines; a torn one, as a crash in the middle of a write leaves it, is cut off and its prompt asked again."""
    words = _words(prompts, answers, gateway, "--json")
    code, _, _ = await _stopped(words, gateway, signal.SIGKILL)
    assert code == -9
    left = kept_lines(answers)
    assert sorted(line["id"] for line in left) == IDS[:5]
    cut(answers, 20)
    done = await ensemble(*words)
    assert (done.code, json.loads(done.text)["skipped"]) == (0, 4)
    assert gateway.asked == Counter({f"p{number}": 2 if number in {5, 6} else 1 for number in range(8)} | {left[-1]["answer"][:-1]: 2})
    assert kept_ids(answers) == IDS


async def test_no_more_are_asked_at_once_than_told(gateway: FakeBatchGateway, prompts: Path, answers: Path) -> None:
    """The bound is reached, and never passed."""
    gateway.pause_seconds = 0.1
    assert (await ensemble(*_words(prompts, answers, gateway, "--concurrency", "3"))).code == 0
    assert gateway.busiest == 3


async def test_two_batches_do_not_write_to_one_file(gateway: FakeBatchGateway, prompts: Path, answers: Path, tmp_path: Path) -> None:
    """The second asks nothing and says why, by whatever name it knows the file."""
    other_name = tmp_path / "other.jsonl"
    other_name.symlink_to(answers)
    gateway.held = {"p0"}
    process = await begin(*_words(prompts, answers, gateway, "-c", "1"))
    await gateway.holds(gateway.held)
    for force in ((), ("--force",)):
        second = await ensemble(*_words(prompts, other_name, gateway, *force))
        assert second.code == 3
        assert "another batch is writing to it" in second.err
    gateway.release()
    assert (await ended(process)).code == 0
    assert gateway.asked == Counter({f"p{number}": 1 for number in range(8)})


async def test_what_is_told_to_wait_waits_and_is_asked_again(gateway: FakeBatchGateway, prompts: Path, answers: Path) -> None:
    """As long as it was told; what is answered then is no failure."""
    gateway.refusals = {"p1": [BUSY, BUSY]}
    assert (await ensemble(*_words(prompts, answers, gateway))).code == 0
    times = [when for prompt, when in gateway.arrivals if prompt == "p1"]
    assert len(times) == 3
    assert min(later - earlier for earlier, later in pairwise(times)) >= 0.2


async def test_failures_end_with_a_code_of_their_own_and_another_run_asks_what_may_help(gateway: FakeBatchGateway, prompts: Path, answers: Path) -> None:
    """3 where all that failed may yet be answered, whose line is replaced; then 1 where some failed for good, which are not asked again."""
    gateway.refusals = {"p1": [BUSY, BUSY], "p2": [LATE]}
    words = _words(prompts, answers, gateway, "--attempts", "2", "--json")
    done = await ensemble(*words)
    assert (done.code, json.loads(done.text)["failed"]) == (3, 2)
    failed = {line["id"]: line["error"] for line in kept_lines(answers) if not line["ok"]}
    assert {name: (error["code"], error["reason"], error["retry_after_seconds"]) for name, error in failed.items()} == {
        "a1": ("UNAVAILABLE", "NO_QUORUM", 0.2),
        "a2": ("DEADLINE_EXCEEDED", "DEADLINE_SPENT", None),
    }
    assert set(failed["a1"]) == {"code", "message", "reason", "metadata", "violations", "retry_after_seconds", "trace_id"}
    assert (gateway.asked["p1"], gateway.asked["p2"]) == (2, 1)

    gateway.refusals = {"p2": [WRONG]}
    done = await ensemble(*words)
    told = json.loads(done.text)
    assert (done.code, told["skipped"], told["answered"], told["failed"]) == (1, 6, 1, 1)
    assert [(line["id"], line["ok"]) for line in kept_lines(answers)] == [(name, name != "a2") for name in IDS]

    done = await ensemble(*words)
    assert (done.code, json.loads(done.text)["failed"], gateway.asked["p2"]) == (1, 1, 2)
    done = await ensemble(*_words(prompts, answers, gateway))
    assert done.code == 1
    assert f"1 failed for good; why stands in {answers}. The same command does not ask them again, --force starts over with all" in done.err


async def test_an_empty_answer_is_a_failure(gateway: FakeBatchGateway, prompts: Path, answers: Path) -> None:
    """As for `ask`."""
    gateway.answer = ""
    assert (await ensemble(*_words(prompts, answers, gateway))).code == 1
    assert {line["error"]["message"] for line in kept_lines(answers)} == {"the answer is empty"}


async def test_a_gateway_that_cannot_be_reached_ends_the_batch(prompts: Path, answers: Path) -> None:
    """Nothing is written of any prompt, for nothing was learnt of it; the next run asks them all."""
    done = await ensemble("batch", str(prompts), "-o", str(answers), "-g", NOWHERE, "--attempts", "1")
    assert done.code == 3
    assert f"{NOWHERE} cannot be reached" in done.err
    assert "0 of 8 answered" in done.err
    assert "the same command goes on from here" in done.err
    assert kept_ids(answers) == []
    done = await ensemble("batch", str(prompts), "-o", str(answers), "-g", NOWHERE, "--attempts", "1", "--json")
    told = json.loads(done.text)
    assert (done.code, told["error"]["code"], told["total"], told["answered"]) == (3, "UNAVAILABLE", 8, 0)


async def test_what_starts_over_asks_under_other_ids(gateway: FakeBatchGateway, prompts: Path, answers: Path) -> None:
    """A gateway that keeps answers for repeats would give the old ones; a run that goes on asks under the ids of the one before."""
    gateway.refusals = {"p3": [WRONG]}
    for force in ((), ("--force",), ("--force",)):
        await ensemble(*_words(prompts, answers, gateway, *force))
    ids = [request.request_id for request in gateway.requests]
    assert len(set(ids)) == len(ids) == 24


@pytest.mark.parametrize("change", ["line", "option", "less"])
async def test_another_batch_is_not_mixed_into_it(gateway: FakeBatchGateway, prompts: Path, answers: Path, change: str) -> None:
    """A prompt that was asked otherwise is named and nothing is asked or lost; forced, everything is asked anew."""
    assert (await ensemble(*_words(prompts, answers, gateway))).code == 0
    before = kept_lines(answers)
    options = ("--profile", "other") if change == "option" else ()
    if change == "line":
        write_prompts(prompts, [*numbered(3), {"id": "a3", "prompt": "another"}, *numbered(8)[4:]])
    elif change == "less":
        write_prompts(prompts, numbered(3))
    words = _words(prompts, answers, gateway, *options)
    refused = await ensemble(*words)
    assert (refused.code, len(gateway.requests), kept_lines(answers)) == (2, 8, before)
    assert ("a0 was asked" if change == "option" else "a3 ") in refused.err
    assert "--force" in refused.err
    assert (await ensemble(*words, "--force")).code == 0
    assert len(gateway.requests) == 8 + (3 if change == "less" else 8)
    assert kept_ids(answers) == IDS[: 3 if change == "less" else 8]


async def test_an_input_may_grow(gateway: FakeBatchGateway, prompts: Path, answers: Path) -> None:
    """Only the new prompts are asked, and stand where they are in the input."""
    assert (await ensemble(*_words(prompts, answers, gateway))).code == 0
    write_prompts(prompts, [{"id": "new", "prompt": "new"}, *numbered(8)])
    assert (await ensemble(*_words(prompts, answers, gateway))).code == 0
    assert (kept_ids(answers), len(gateway.requests)) == (["new", *IDS], 9)


async def test_bad_lines_are_all_told_before_anything_is_asked(gateway: FakeBatchGateway, prompts: Path, answers: Path) -> None:
    """With their numbers, for a person and for a script; no output appears."""
    write_prompts(prompts, [{"prompt": "fine"}, {"promt": "x"}, {"prompt": "p", "quorum": "2"}])
    done = await ensemble(*_words(prompts, answers, gateway))
    assert (done.code, done.out, gateway.requests, names_in(answers.parent)) == (2, b"", [], ["prompts.jsonl"])
    assert "line 2: prompt: is missing; promt: is not known" in done.err
    assert "line 3: quorum: Input should be a valid integer" in done.err
    done = await ensemble(*_words(prompts, answers, gateway, "--json"))
    assert (done.code, set(json.loads(done.text)["error"]["violations"])) == (2, {"line 2", "line 3"})


async def test_options_hold_for_all_lines_and_a_line_stands_above_them(gateway: FakeBatchGateway, prompts: Path, answers: Path, tmp_path: Path) -> None:
    """Everything arrives at the gateway."""
    schema = tmp_path / "schema.json"
    schema.write_text("{}", encoding="utf-8")
    write_prompts(
        prompts,
        [{"prompt": "p0"}, {"prompt": "p1", "profile": "own", "parameters": {"n": 2}, "system": "", "members": ["z"], "labels": {"k": "v"}, "temperature": 1}],
    )
    options = ["--profile", "all", "--strategy", "vote", "--parameter", "a=1", "--parameter", "n=1", "--member", "x", "--member", "y", "--quorum", "2"]
    options += ["--system", "be brief", "--temperature", "0.5", "--max-output-tokens", "9", "--schema", str(schema), "--max-cost", "0.5"]
    assert (await ensemble(*_words(prompts, answers, gateway, "-c", "1", *options))).code == 0
    first, second = gateway.requests
    assert [(one.profile, dict(one.options.parameters), one.system, [m.model for m in one.members], one.generation.temperature) for one in (first, second)] == [
        ("all", {"a": 1.0, "n": 1.0}, "be brief", ["x", "y"], 0.5),
        ("own", {"n": 2.0}, "", ["z"], 1.0),
    ]
    for one in (first, second):
        assert (one.strategy, one.options.quorum, one.generation.max_output_tokens, one.response_schema, one.max_cost_micro_usd) == (
            "vote",
            2,
            9,
            "{}",
            500_000,
        )
    assert (dict(first.labels), dict(second.labels)) == ({}, {"k": "v"})
    assert kept_ids(answers) == ["1", "2"]


async def test_a_terminal_shows_a_bar(gateway: FakeBatchGateway, prompts: Path, answers: Path) -> None:
    """It grows while answers come, and Ctrl-C leaves the cursor as it was."""
    gateway.held = {"p7"}
    terminal = Terminal()
    process = await begin(*_words(prompts, answers, gateway), stderr=terminal.theirs, environ={"TERM": "xterm"})
    terminal.begun()
    await terminal.shows("7/8")
    process.send_signal(signal.SIGINT)
    shown = await terminal.shown()
    assert (await ended(process)).code == 130
    assert "7 of 8 answered" in shown
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1
