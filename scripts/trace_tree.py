"""Print a trace as a tree of spans, read from a Jaeger; without a trace id, the latest calls of the gateway.

    .venv/bin/python scripts/trace_tree.py
    .venv/bin/python scripts/trace_tree.py 0af7651916cd43dd8448eb211c80319c

Each line has when a span began and how long it took, in milliseconds from the trace's start, then its service, name and attributes.
"""

import argparse
import http.client
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

FRONT = "ensemble-gateway"
SECONDS_TO_ANSWER = 10.0
SHOWN = (
    "ensemble.member",
    "ensemble.attempt",
    "ensemble.hedge",
    "ensemble.outcome",
    "ensemble.panel.size",
    "ensemble.panel.quorum",
    "ensemble.panel.succeeded",
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.output_tokens",
    "rpc.response.status_code",
    "error.type",
)
"""The attributes that tell how a span ended; the rest is in Jaeger."""


class JaegerError(Exception):
    """Jaeger cannot be asked, or does not know the trace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEvent:
    """An event of a span."""

    name: str
    attributes: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSpan:
    """A span as Jaeger has it."""

    trace_id: str
    span_id: str
    parent_id: str
    """Empty where it has none."""
    service: str
    name: str
    kind: str
    """server, client or internal."""
    error: bool
    attributes: Mapping[str, Any]
    events: Sequence[StoredEvent]
    began_us: int
    """Microseconds of the epoch."""
    took_us: int


def ask(address: str, path: str) -> Any:
    """Return what Jaeger at HOST:PORT answers, the part under "data"; None where it knows nothing of the kind. Raises JaegerError."""
    connection = http.client.HTTPConnection(address, timeout=SECONDS_TO_ANSWER)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise JaegerError(f"no Jaeger answers at {address}: {error}") from error
    finally:
        connection.close()
    if response.status == 404:
        return None
    if response.status != 200:
        raise JaegerError(f"Jaeger at {address} answers {response.status}: {body[:200].decode(errors='replace')}")
    return json.loads(body)["data"]


def spans_of(address: str, trace_id: str) -> list[StoredSpan]:
    """Return a trace's spans in the order in which they began; none where Jaeger does not know it. Raises JaegerError."""
    return [span for trace in ask(address, f"/api/traces/{quote(trace_id)}") or () for span in _spans(trace)]


def latest(address: str, service: str, limit: int) -> list[list[StoredSpan]]:
    """Return the spans of the latest traces in which a service has a part, the newest first. Raises JaegerError."""
    traces = [_spans(trace) for trace in ask(address, f"/api/traces?service={quote(service)}&limit={limit}") or ()]
    return sorted(traces, key=lambda spans: spans[0].began_us, reverse=True)


def tree(spans: Sequence[StoredSpan]) -> Iterator[str]:
    """Yield the lines of a trace's tree; a span whose parent is not there, such as the caller's, stands at the top."""
    there = {span.span_id for span in spans}
    below: Mapping[str, list[StoredSpan]] = defaultdict(list)
    for span in spans:
        below[span.parent_id if span.parent_id in there else ""].append(span)
    start = min((span.began_us for span in spans), default=0)

    def lines(parent: str, indent: str) -> Iterator[str]:
        for number, span in enumerate(below[parent], start=1):
            last = number == len(below[parent])
            branch, under = ("", "") if parent == "" else ("└ ", "  ") if last else ("├ ", "│ ")
            told = " ".join(f"{key.removeprefix('ensemble.')}={span.attributes[key]}" for key in SHOWN if key in span.attributes)
            times = f"{(span.began_us - start) / 1000:9.1f} {span.took_us / 1000:9.1f}"
            mark = "!" if span.error else " "
            yield f"{times} {mark} {indent}{branch}{span.name} ({span.service.removeprefix('ensemble-')}, {span.kind}) {told}".rstrip()
            yield from lines(span.span_id, indent + under)

    yield f"{'began ms':>9} {'took ms':>9}"
    yield from lines("", "")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a trace, or the latest ones."""
    parser = argparse.ArgumentParser(description="Print a trace as a tree of spans, read from a Jaeger.")
    parser.add_argument("trace_id", nargs="?", help="32 hexadecimal digits, as a response and the log have it; without one, the latest traces are listed")
    parser.add_argument("--jaeger", default="http://127.0.0.1:16686", metavar="URL", help="Jaeger's query API; default %(default)s")
    parser.add_argument("--limit", type=int, default=20, help="how many of the latest traces; default %(default)s")
    given = parser.parse_args(arguments)
    address = urlsplit(given.jaeger).netloc
    try:
        if given.trace_id is None:
            for spans in latest(address, FRONT, given.limit):
                _print_summary(spans)
            return 0
        spans = spans_of(address, given.trace_id)
    except JaegerError as error:
        print(error, file=sys.stderr)
        return 1
    if not spans:
        print(f"Jaeger has no trace {given.trace_id}; spans come about a second after they ended", file=sys.stderr)
        return 1
    print("\n".join(tree(spans)))
    return 0


def _print_summary(spans: Sequence[StoredSpan]) -> None:
    took = max(span.began_us + span.took_us for span in spans) - spans[0].began_us
    front = next((span for span in spans if span.service == FRONT and span.kind == "server"), spans[0])
    print(f"{spans[0].trace_id} {took / 1000:9.1f} ms {front.name} {front.attributes.get('rpc.response.status_code', '')} spans={len(spans)}")


def _spans(trace: Mapping[str, Any]) -> list[StoredSpan]:
    spans = (_span(span, trace["processes"][span["processID"]]["serviceName"]) for span in trace["spans"])
    return sorted(spans, key=lambda span: (span.began_us, -span.took_us))


def _span(span: Mapping[str, Any], service: str) -> StoredSpan:
    attributes = _attributes(span["tags"])
    parents = [reference["spanID"] for reference in span["references"] if reference["refType"] == "CHILD_OF"]
    events = [_attributes(log["fields"]) for log in span["logs"]]
    return StoredSpan(
        trace_id=span["traceID"],
        span_id=span["spanID"],
        parent_id=parents[0] if parents else "",
        service=service,
        name=span["operationName"],
        kind=attributes.get("span.kind", "internal"),
        error=attributes.get("error") is True,
        attributes=attributes,
        events=[StoredEvent(name=event.get("event", ""), attributes=event) for event in events],
        began_us=span["startTime"],
        took_us=span["duration"],
    )


def _attributes(tags: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {tag["key"]: tag["value"] for tag in tags}


if __name__ == "__main__":
    sys.exit(main())
