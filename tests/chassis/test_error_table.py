"""What the table says of each error is what arrives over a real RPC."""

import re
from collections.abc import AsyncIterator, Awaitable

import grpc
import pytest

from services.chassis.error_table import EACH, TABLE, Row, row_of
from services.chassis.errors import EnsembleError, NotFound
from services.chassis.status import DETAILS_KEY, DOMAIN, to_status
from tests.support.error_examples import EXAMPLES, parsed
from tests.support.scripted_rpcs import Context, calling, serving, stream, unary

ROWS = [pytest.param(row, id=f"{row.reason} {row.code.name}") for row in TABLE]


def examples_of(row: Row) -> list[EnsembleError]:
    """Return the examples that belong to a row."""
    return [example[0] for example in EXAMPLES if row_of(example[0]) is row]


async def arrived(errors: list[EnsembleError]) -> list[grpc.aio.AioRpcError]:
    """Raise each error in a handler of a real server, unary and streaming, and return what a client sees of it."""
    pending: list[EnsembleError] = []

    async def answer(_: bytes, __: Context) -> bytes:
        raise pending[-1]

    async def answers(_: bytes, __: Context) -> AsyncIterator[bytes]:
        yield b"first"
        raise pending[-1]

    async def failed(call: Awaitable[object]) -> grpc.aio.AioRpcError:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call
        return raised.value

    async def read(call: "grpc.aio.UnaryStreamCall[bytes, bytes]") -> list[bytes]:
        return [response async for response in call]

    seen = []
    async with serving(Answer=unary(answer), Answers=stream(answers)) as server, calling(server.address) as caller:
        for error in errors:
            pending.append(error)
            seen += [await failed(caller.unary("Answer")), await failed(read(caller.stream("Answers")))]
    return seen


def fits(name: str, key: str) -> bool:
    """Return whether a key of metadata is the one that the table names, or one of those."""
    return key == name or (name.endswith(f".{EACH}") and key.startswith(name.removesuffix(EACH)))


@pytest.mark.parametrize("row", ROWS)
async def test_what_a_row_says_is_what_arrives(row: Row) -> None:
    """Code and reason word; the details that it names and no others; the keys of metadata that it names and no others, those that are always there in each."""
    errors = examples_of(row)
    for seen in await arrived(errors):
        assert seen.code() is row.code
        found = parsed(dict(seen.trailing_metadata() or ())[DETAILS_KEY])
        info = found.pop("ErrorInfo")
        assert info.domain == DOMAIN
        assert re.fullmatch(re.sub(r"\{.*?\}", "[A-Z]+", row.reason), info.reason)
        assert {detail.name for detail in row.details if detail.always} <= set(found) <= {detail.name for detail in row.details}
        assert all(any(fits(name, key) for name in row.metadata) for key in info.metadata)
        assert all(any(fits(name, key) for key in info.metadata) for name, key_ in row.metadata.items() if key_.always)


@pytest.mark.parametrize("row", ROWS)
def test_the_examples_show_all_of_a_row(row: Row) -> None:
    """Each key and each detail is there in one of them, and what is not always there is missing in another."""
    told = [parsed(to_status(error).details) for error in examples_of(row)]
    assert told
    for detail in row.details:
        assert {detail.name in found for found in told} == ({True} if detail.always else {True, False}), detail.name
    for name, key in row.metadata.items():
        assert {any(fits(name, one) for one in found["ErrorInfo"].metadata) for found in told} == ({True} if key.always else {True, False}), name


@pytest.mark.parametrize("row", ROWS)
def test_a_row_says_what_happened_and_what_to_do(row: Row) -> None:
    """In whole sentences, for a page that others read."""
    for words in (row.situation, row.advice):
        assert re.fullmatch(r"[A-Z].*[.)]", words), words
    for words in (*(key.meaning for key in row.metadata.values()), *(detail.holds for detail in row.details)):
        assert re.fullmatch(r"[a-z].*[^.]", words), words


def test_no_two_rows_look_alike() -> None:
    """Code and reason word together tell a caller which one it is."""
    assert len({(row.code, row.reason) for row in TABLE}) == len(TABLE)


def test_a_kind_of_its_own_has_the_row_of_its_parent() -> None:
    """So that a service may refine an error."""

    class NoSuchProfile(NotFound):
        """More exactly known."""

    assert row_of(NoSuchProfile("profile", "x")).kind is NotFound
