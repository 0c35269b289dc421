"""The receipt as tables for a person."""

from google.protobuf.duration_pb2 import Duration
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ensemble.v1 import degradation_pb2, gateway_service_pb2, outcome_pb2, provenance_pb2, receipt_pb2
from services.cli.terminal_text import visible

_SOURCES = {
    receipt_pb2.COST_SOURCE_PROVIDER: "provider",
    receipt_pb2.COST_SOURCE_PRICE_TABLE: "price table",
    receipt_pb2.COST_SOURCE_ESTIMATE: "estimate",
}


def print_receipt(console: Console, response: gateway_service_pb2.GenerateResponse) -> None:
    """Print what each call did, what it cost, and how the answer came about."""
    table = Table(title="Receipt", title_justify="left")
    for heading in ("call", "model", "outcome", "first text", "latency", "tokens", "cost"):
        table.add_column(heading, justify="left" if heading in {"call", "model", "outcome"} else "right")
    for call in response.receipt.calls:
        table.add_row(
            plain(call.candidate_id or call.member_id),
            plain(call.model),
            plain(outcome(call)),
            seconds(call.time_to_first_token) if call.HasField("time_to_first_token") else "",
            seconds(call.latency) if call.HasField("latency") else "",
            tokens(call.usage),
            dollars(call.cost),
        )
    console.print(table)
    receipt = response.receipt
    stages = ", ".join(f"{stage.stage} {seconds(stage.latency)}" for stage in receipt.stages)
    console.print(f"total {seconds(receipt.latency)} ({stages}; the ensemble's own {seconds(receipt.overhead)}), {money(receipt.cost) or 'no cost known'}")
    method = provenance_pb2.Method.Name(response.provenance.method).removeprefix("METHOD_")
    console.print(plain(f"answer {method} from {', '.join(response.provenance.candidate_ids)} by {response.provenance.answer_model}"))
    if response.degraded:
        reasons = ", ".join(degradation_pb2.Degradation.Name(reason).removeprefix("DEGRADATION_") for reason in response.degradations)
        console.print(f"degraded: {reasons}", style="yellow")
    console.print(f"run {plain(response.run_id)}, trace {plain(response.trace_id) or 'none'}")


def outcome(call: receipt_pb2.CallReceipt) -> str:
    """Return an outcome with its reason."""
    name = outcome_name(call.outcome)
    return f"{name} ({call.reason})" if call.reason else name


def outcome_name(value: int) -> str:
    """Return an outcome's name; one of a later version by its number."""
    known = outcome_pb2.Outcome.values()
    return outcome_pb2.Outcome.Name(outcome_pb2.Outcome.ValueType(value)).removeprefix("OUTCOME_") if value in known else f"outcome {value}"


def seconds(duration: Duration) -> str:
    """Return a duration to the millisecond."""
    return f"{duration.seconds + duration.nanos / 1e9:.3f} s"


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


def plain(text: str) -> str:
    """Return text that is neither markup nor a control sequence."""
    return escape(visible(text))
