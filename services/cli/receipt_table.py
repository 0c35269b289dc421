"""The receipt as tables for a person."""

from typing import Any

from google.protobuf.duration_pb2 import Duration
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ensemble.v1 import degradation_pb2, gateway_service_pb2, model_state_pb2, outcome_pb2, permit_pb2, provenance_pb2, receipt_pb2
from services.cli.judgement import analysis_lines, verdict_lines
from services.cli.terminal_text import visible

_SOURCES = {
    receipt_pb2.COST_SOURCE_PROVIDER: "provider",
    receipt_pb2.COST_SOURCE_PRICE_TABLE: "price table",
    receipt_pb2.COST_SOURCE_ESTIMATE: "estimate",
}


def print_receipt(console: Console, response: gateway_service_pb2.GenerateResponse) -> None:
    """Print what each attempt did, what it cost, and how the answer came about."""
    if response.receipt.cached:
        console.print("Receipt", style="italic")
        console.print(f"cached: made {span(response.receipt.cached_age)} ago for an equal request; no model was called")
    else:
        console.print(_calls_table(response.receipt))
    _print_rest(console, response)


def _calls_table(receipt: receipt_pb2.Receipt) -> Table:
    table = Table(title="Receipt", title_justify="left")
    for heading in ("call", "model", "outcome", "first text", "latency", "tokens", "cost"):
        table.add_column(heading, justify="left" if heading in {"call", "model", "outcome"} else "right", overflow="fold")
    for call in receipt.calls:
        table.add_row(
            plain(_attempt(call)),
            plain(call.model),
            plain(outcome(call)),
            seconds(call.time_to_first_token) if call.HasField("time_to_first_token") else "",
            seconds(call.latency) if call.HasField("latency") else "",
            tokens(call.usage),
            dollars(call.cost),
        )
    return table


def _print_rest(console: Console, response: gateway_service_pb2.GenerateResponse) -> None:
    receipt = response.receipt
    times = [*(f"{stage.stage} {seconds(stage.latency)}" for stage in receipt.stages), f"the ensemble's own {seconds(receipt.overhead)}"]
    cost = money(receipt.cost) or ("nothing spent" if receipt.cached else "no cost known")
    console.print(plain(f"total {seconds(receipt.latency)} ({'; '.join(times)}), {cost}"))
    method = _name(provenance_pb2.Method, response.provenance.method)
    console.print(plain(f"answer {method} from {', '.join(response.provenance.candidate_ids)} by {response.provenance.answer_model}"))
    if receipt.HasField("agreement"):
        console.print(f"agreement of the candidates {receipt.agreement:.2f}")
    for line in verdict_lines(response.provenance.verdict):
        console.print(plain(line))
    for line in analysis_lines(response.analysis):
        console.print(plain(line))
    if response.degraded:
        reasons = ", ".join(_name(degradation_pb2.Degradation, reason) for reason in response.degradations)
        console.print(f"degraded: {reasons}", style="yellow")
    console.print(plain(f"run {response.run_id}, trace {response.trace_id or 'none'}"))


def _attempt(call: receipt_pb2.CallReceipt) -> str:
    """Return whose call it is and, unless it is the first attempt, which: "beta (retry 2)"."""
    name = call.candidate_id or call.member_id
    match call.attempt_kind:
        case permit_pb2.ATTEMPT_KIND_RETRY:
            return f"{name} (retry {call.attempt})"
        case permit_pb2.ATTEMPT_KIND_HEDGE:
            # Most often the second attempt, and then the number says nothing more.
            return f"{name} (hedge {call.attempt})" if call.attempt > 2 else f"{name} (hedge)"
        case _:
            return f"{name} (attempt {call.attempt})" if call.attempt > 1 else name


def outcome(call: receipt_pb2.CallReceipt) -> str:
    """Return an outcome with its reason."""
    name = outcome_name(call.outcome)
    return f"{name} ({call.reason})" if call.reason else name


def outcome_name(value: int) -> str:
    """Return an outcome's name; one of a later version by its number."""
    return _name(outcome_pb2.Outcome, value)


def breaker_name(value: int) -> str:
    """Return what a breaker's state is called; one of a later version by its number."""
    return _name(model_state_pb2.BreakerState, value)


def _name(kind: Any, value: int) -> str:
    """Return a value's name without its enum's."""
    entry = kind.DESCRIPTOR.values_by_number.get(value)
    prefix = kind.DESCRIPTOR.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return f"number {value}" if entry is None else str(entry.name.removeprefix(prefix))


def seconds(duration: Duration) -> str:
    """Return a duration to the millisecond."""
    return f"{duration.seconds + duration.nanos / 1e9:.3f} s"


def span(duration: Duration) -> str:
    """Return a duration as exactly as its length deserves: 4.2 s, 9m 59s, 3h 20m, 29d 4h."""
    if duration.seconds < 60:
        return f"{duration.seconds + duration.nanos / 1e9:.1f} s"
    minutes, rest = divmod(duration.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours}h"
    return f"{hours}h {minutes}m" if hours else f"{minutes}m {rest}s"


def tokens(usage: receipt_pb2.Usage) -> str:
    """Return tokens in and out, marked where one is an estimate; nothing where none were used."""
    if not (usage.input_tokens or usage.output_tokens):
        return ""
    return f"{'~' if usage.estimated else ''}{usage.input_tokens}+{usage.output_tokens}"


def dollars(cost: receipt_pb2.Cost) -> str:
    """Return an amount, marked where it rests on an estimate; nothing where none is known."""
    mark = "~" if cost.source == receipt_pb2.COST_SOURCE_ESTIMATE else ""
    return "" if cost.source not in _SOURCES else f"{mark}${cost.micro_usd / 1e6:.6f}"


def money(cost: receipt_pb2.Cost) -> str:
    """Return an amount with its source; nothing where none is known."""
    source = _SOURCES.get(cost.source)
    return "" if source is None else f"${cost.micro_usd / 1e6:.6f} ({source})"


def plain(text: str) -> Text:
    """Return text in which nothing is markup, an emoji's name or a control sequence."""
    return Text(visible(text))
