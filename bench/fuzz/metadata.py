"""Metadata made to hurt, as far as a gRPC client sends them; what it would not send goes over a socket (`bench.fuzz.wire`)."""

import random
from collections.abc import Callable, Iterator

Word = Callable[[str], str]
Metadatum = tuple[str, str | bytes]

_TRACE = "0af7651916cd43dd8448eb211c80319c"
_SPAN = "b7ad6b7169203331"
_PARENTS = (
    f"00-{_TRACE}-{_SPAN}-01",
    f"00-{_TRACE}-{_SPAN}-00",
    f"ff-{_TRACE}-{_SPAN}-01",
    f"cc-{_TRACE}-{_SPAN}-01-more",
    f"00-{'0' * 32}-{_SPAN}-01",
    f"00-{_TRACE}-{'0' * 16}-01",
    f"00-{_TRACE.upper()}-{_SPAN}-01",
    f"00-{_TRACE}{_TRACE}-{_SPAN}-01",
    f"00-{_TRACE}-{_SPAN}",
    "00---",
    "-",
    "",
    "0" * 5000,
)
_SIZES = (1, 100, 1000, 6000)
_HUGE = (9_000, 20_000, 70_000)
HUGE_SHARE = 0.02
"""Of the values: so many are beyond what a gRPC server takes of metadata."""


def hostile(chance: random.Random, word: Word) -> tuple[Metadatum, ...]:
    """Return a few entries, most of which carry a canary."""
    entries: list[Metadatum] = []
    for _ in range(chance.choice((1, 1, 2, 4))):
        entries += chance.choice(_KINDS)(chance, word)
    return tuple(entries)


def _long(chance: random.Random) -> str:
    return "v" * (chance.choice(_HUGE) if chance.random() < HUGE_SHARE else chance.choice(_SIZES))


def _traceparent(chance: random.Random, word: Word) -> Iterator[Metadatum]:
    yield "traceparent", chance.choice((*_PARENTS, word("h"), f"00-{word('h')}-{_SPAN}-01"))
    if chance.random() < 0.1:
        yield "traceparent", chance.choice(_PARENTS)


def _tracestate(chance: random.Random, word: Word) -> Iterator[Metadatum]:
    yield "traceparent", f"00-{_TRACE}-{_SPAN}-01"
    yield (
        "tracestate",
        chance.choice((f"a={word('j')}", ",".join(f"k{number}={word('j')}" for number in range(40)), "=,=,,", "a" * 600 + "=1", f"{word('j')}=1")),
    )


def _traceparent_binary(chance: random.Random, word: Word) -> Iterator[Metadatum]:
    yield "grpc-trace-bin", chance.choice((b"", b"\0", chance.randbytes(29), word("h").encode()))


def _authorization(chance: random.Random, word: Word) -> Iterator[Metadatum]:
    yield (
        "authorization",
        chance.choice((f"Bearer {word('h')}", f"bearer  {word('h')}", word("h"), "Bearer", "", f"Basic {word('h')}", "Bearer " + _long(chance))),
    )


def _cookies(_: random.Random, word: Word) -> Iterator[Metadatum]:
    yield "cookie", f"session={word('h')}"
    yield "x-api-key", word("h")


def _binary(chance: random.Random, word: Word) -> Iterator[Metadatum]:
    yield (
        chance.choice(("x-bin", "grpc-tags-bin", f"{word('h')}-bin")),
        chance.choice((b"", word("h").encode(), chance.randbytes(100), b"\xff" * chance.choice(_SIZES))),
    )


def _details(chance: random.Random, word: Word) -> Iterator[Metadatum]:
    yield "grpc-status-details-bin", chance.choice((b"\xff", word("h").encode(), chance.randbytes(50)))


def _user_agent(chance: random.Random, word: Word) -> Iterator[Metadatum]:
    yield (
        chance.choice(("user-agent", "te", "grpc-accept-encoding", "grpc-previous-rpc-attempts", "content-language")),
        chance.choice((word("h"), "", "9" * 30, _long(chance))),
    )


def _many(chance: random.Random, word: Word) -> Iterator[Metadatum]:
    same = chance.random() < 0.5
    for number in range(chance.choice((10, 40, 90))):
        yield "x-same" if same else f"x-{number}", word("h")


def _odd(chance: random.Random, word: Word) -> Iterator[Metadatum]:
    yield (
        chance.choice(("a", "x_y.z-0", "x" * 200, word("h"), "grpc-timeout-x", "content-type-x")),
        chance.choice((" ", " x ", "~!@#$%^&*()", _long(chance), word("h"))),
    )


_KINDS = (_traceparent, _tracestate, _traceparent_binary, _authorization, _cookies, _binary, _details, _user_agent, _many, _odd)
