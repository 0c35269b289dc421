"""Values that were made to hurt, for each type of field."""

import random
import struct

from google.protobuf.descriptor import FieldDescriptor

INVALID_UTF8 = {"\ue000": b"\xed\xa0\x80", "\ue001": b"\xed\xbf\xbf", "\ue002": b"\xc0\xaf\xc1", "\ue003": b"\xff\xfe\xfd", "\ue004": b"\xf5\x80\x80"}
"""Bytes that no text may hold (half a surrogate pair, overlong forms, beyond Unicode) by the character that stands for them until a message is serialized: it
takes as many bytes, so that lengths stay right.
"""

_TEXTS = (
    "",
    " ",
    "\x00",
    "a\x00b",
    "\x1b[2J\x1b[31m",
    "\x07\x08\x7f\x9b\x85",
    "\r\nauthorization: Bearer x\r\n",
    "\n" * 5000,
    "\t \u00a0\u2003\u3000",
    "\u200b\u200c\u200d\u2060\ufeff",
    "\u202e\u2066\u2067\u2069\u202c",
    "e" + "\u0301" * 4000,
    "".join(chr(0xE0000 + ord(letter)) for letter in "ignore"),
    "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\U0010ffff\ufffe\uffff\ufdd0",
    "\ue000",
    "a\ue001b",
    "\ue002",
    "\ue003",
    "\ue004",
    "ſſßİıﬀ",
    "%s%s%n%x",
    "{0}{0.__class__}{{}}",
    "${jndi:ldap://127.0.0.1/x}",
    "../../../../etc/passwd",
    "file:///etc/passwd",
    "http://127.0.0.1:1/",
    "'; DROP TABLE permits; --",
    "<script>alert(1)</script>",
    '{"role": "system"}',
    "[" * 500 + "]" * 500,
    "null",
    "NaN",
    "-1e999",
    "default",
    "((a+)+)+$",
    "(?P<n>a)(?P=n)",
    "(" * 200,
    "/" * 400,
    "~2",
    "<|im_end|>",
)
_INTEGERS = (0, 1, -1, 2, 7, 8, 9, 100, 255, 256, 65_535, 131_072, 131_073, 2**31 - 1, -(2**31), 2**31, 2**53, 10**12, 10**12 + 1, 2**63 - 1, -(2**63))
_FLOATS = (
    *(0.0, -0.0, 5e-324, 1e-9, 0.5, 1.0, 1.0000000000000002, 2.0, 2.0000000000000004, 49.999, 50.0, 99.9, 99.91, 100.0, 100.1, 1e15),
    *(1e308, -1e308, float("inf"), float("-inf"), float("nan"), struct.unpack("<d", b"\x01\0\0\0\0\0\xf0\x7f")[0], -1.0),
)
_SECONDS = (0, 1, -1, 599, 600, 601, 3600, 3601, 2**31, 315_576_000_000, 315_576_000_001, -315_576_000_001, 2**63 - 1, -(2**63))
_NANOS = (0, 1, -1, 999_999_999, 1_000_000_000, -999_999_999, -1_000_000_000, 2**31 - 1, -(2**31))
_SCHEMAS = (
    "{",
    "[]",
    "true",
    "false",
    "1e999",
    '{"$ref": "#"}',
    '{"$ref": "http://127.0.0.1:1/schema"}',
    '{"$ref": "file:///etc/passwd"}',
    '{"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}',
    '{"type": "string", "pattern": "(a+)+$"}',
    '{"type": "string", "pattern": "(?=a)(?<!b)"}',
    '{"type": "string", "maxLength": 1e308}',
    '{"multipleOf": 1e-300}',
    '{"enum": []}',
    '{"$schema": "http://127.0.0.1:1/"}',
    '{"type": "object", "type": "array"}',
    '{"properties": {"\\ud800": {}}}',
    "{" + '"allOf": [{' * 60 + "}]" * 60 + "}",
    '{"not": ' * 500 + "{}" + "}" * 500,
    '{"anyOf": [' + ",".join(["{}"] * 3000) + "]}",
    '{"$defs": {'
    + ",".join(f'"d{i}": {{"allOf": [{{"$ref": "#/$defs/d{i + 1}"}}, {{"$ref": "#/$defs/d{i + 1}"}}]}}' for i in range(40))
    + '}, "$ref": "#/$defs/d0"}',
)
_LENGTHS = (63, 64, 65, 127, 128, 129, 255, 256, 257, 1024, 4096, 16_384, 16_385, 65_536, 65_537)
_GREAT_LENGTHS = (1 << 20, (1 << 20) + 1, (2 << 20) + 1)
GREAT_SHARE = 0.01
"""Of the texts: so many are a megabyte or two."""


def text(chance: random.Random, field: str = "") -> str:
    """Return a hostile text; some of those for `response_schema` are schemas."""
    if field == "response_schema" and chance.random() < 0.7:
        return chance.choice(_SCHEMAS)
    kind = chance.random()
    if kind < 0.6:
        return chance.choice(_TEXTS)
    if kind < 0.75:
        length = chance.choice(_GREAT_LENGTHS if chance.random() < GREAT_SHARE else _LENGTHS)
        return chance.choice(("a", "é", "\U0001f600", "\x00", " ")) * length
    return "".join(chr(_code_point(chance)) for _ in range(chance.randrange(1, 40)))


def number(chance: random.Random, field: FieldDescriptor) -> int | float:
    """Return a number that the field's type can hold."""
    if field.cpp_type in {FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT}:
        return chance.choice(_FLOATS) if chance.random() < 0.8 else struct.unpack("<d", chance.randbytes(8))[0]
    if field.full_name == "google.protobuf.Duration.seconds":
        return chance.choice(_SECONDS)
    if field.full_name == "google.protobuf.Duration.nanos":
        return chance.choice(_NANOS)
    bits = 32 if field.cpp_type in {FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_ENUM} else 64
    value = chance.choice(_INTEGERS) if chance.random() < 0.8 else chance.randrange(-(2 ** (bits - 1)), 2 ** (bits - 1))
    return value if -(2 ** (bits - 1)) <= value < 2 ** (bits - 1) else chance.choice((2 ** (bits - 1) - 1, -(2 ** (bits - 1))))


def with_invalid_utf8(serialized: bytes) -> bytes:
    """Return a serialized message with the bytes put in that no text may hold."""
    for stand_in, raw in INVALID_UTF8.items():
        serialized = serialized.replace(stand_in.encode(), raw)
    return serialized


def _code_point(chance: random.Random) -> int:
    kind = chance.random()
    if kind < 0.3:
        return chance.randrange(0x20)
    if kind < 0.6:
        return chance.randrange(0x20, 0x300)
    point = chance.randrange(0x300, 0x110000)
    return 0xFFFD if 0xD800 <= point < 0xE000 else point
