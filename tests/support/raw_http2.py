"""Calls written by hand in HTTP/2's frames, for what no gRPC client would send."""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING, GOAWAY = 0, 1, 4, 6, 7
END_STREAM, END_HEADERS = 1, 4
INITIAL_WINDOW_SIZE = 4
SECONDS = 10.0
"""Longest time for an answer."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return one frame (RFC 9113, section 4.1)."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def block(entries: list[tuple[bytes, bytes]]) -> bytes:
    """Return headers in HPACK's simplest form, literals that are not indexed (RFC 7541, section 6.2.2); none longer than 126 bytes."""
    return b"".join(b"\0" + bytes((len(name),)) + name + bytes((len(value),)) + value for name, value in entries)


async def ask_for(address: str, path: bytes, *more: tuple[bytes, bytes], message: bytes = b"", announced: int | None = None) -> bytes:
    """Call a method with one message and return the frames that come back until the server has nothing more to say, says goodbye, or closes.

    Where a size is announced that is larger than the message, the rest of it is never sent; with 0 and no message nothing is.
    """
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, END_HEADERS, 1, block([*_plain(path), *more])) + _data(message, announced))
        await writer.drain()
        return await _until_the_stream_ends(reader)
    finally:
        await _closed(writer)


@asynccontextmanager
async def unread(address: str, path: bytes, *more: tuple[bytes, bytes], message: bytes) -> AsyncIterator[None]:
    """Call a method, and take nothing of what it answers while the context is open: the window for it is closed (RFC 9113, section 6.9.2)."""
    host, _, port = address.rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    try:
        closed = frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW_SIZE, 0))
        call = frame(HEADERS, END_HEADERS, 1, block([*_plain(path), *more]))
        writer.write(PREFACE + closed + call + frame(DATA, END_STREAM, 1, struct.pack(">BI", 0, len(message)) + message))
        await writer.drain()
        yield
    finally:
        await _closed(writer)


async def say_goodbye(address: str, words: bytes) -> None:
    """Open a connection and give it up with these words (GOAWAY's debug data); return when the server has read them."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(PREFACE + frame(SETTINGS, 0, 0) + frame(GOAWAY, 0, 0, bytes(4) + struct.pack(">I", 2) + words) + frame(PING, 0, 0, b"all read"))
        await writer.drain()
        async with asyncio.timeout(SECONDS):
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                await reader.readuntil(b"all read")
    finally:
        await _closed(writer)


def _plain(path: bytes) -> list[tuple[bytes, bytes]]:
    """Return the headers that every call has."""
    return [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path),
        (b":authority", b"x"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    ]


def _data(message: bytes, announced: int | None) -> bytes:
    if announced is None:
        return frame(DATA, END_STREAM, 1, struct.pack(">BI", 0, len(message)) + message)
    if not announced:
        return frame(DATA, END_STREAM, 1)
    return frame(DATA, 0, 1, struct.pack(">BI", 0, announced) + message)


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def _until_the_stream_ends(reader: asyncio.StreamReader) -> bytes:
    received = b""
    async with asyncio.timeout(SECONDS):
        while True:
            try:
                head = await reader.readexactly(9)
                received += head + await reader.readexactly(int.from_bytes(head[:3]))
            except (asyncio.IncompleteReadError, ConnectionError):
                return received
            if head[3] == GOAWAY or (head[3] in {DATA, HEADERS} and head[4] & END_STREAM):
                return received
