"""Requests made by the contract's grammar: right ones with canaries in every text, and the same with a few fields gone bad."""

import random
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from typing import Any

from google.protobuf import struct_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from bench.fuzz import hostile
from bench.fuzz.setting import MODELS, PROFILES, WRITER
from ensemble.v1 import gateway_service_pb2, generation_parameters_pb2, member_pb2, message_pb2, strategy_options_pb2

Word = Callable[[str], str]
"""Makes a canary for a place of the request by its code."""

STRATEGIES = ("best_of_n", "cascade", "first", "fusion", "moa", "rank", "rank_then_fuse", "self_moa", "single", "vote")
PARAMETERS: Sequence[tuple[str, Sequence[Any]]] = (
    ("passes", (1, 2)),
    ("score", ("judge", "agreement")),
    ("threshold", (0.1, 1)),
    ("analysis", (True,)),
    ("judges", ([MODELS[0]], list(MODELS))),
    ("layers", (1, 2)),
    ("top", (1, 3)),
    ("samples", (2, 4)),
    ("extract", ("regex", "json_pointer", "last_number", "whole_text")),
    ("pattern", ("Paris", "([a-z]+)$", "(a+)+$")),
    ("pointer", ("/a/0", "")),
    ("normalise", (["case"], ["number", "space"])),
    ("universal", (True,)),
)
PLACES = {
    "p": "prompt",
    "s": "system",
    "t": "messages.text",
    "q": "request_id",
    "o": "profile",
    "l": "labels value",
    "k": "labels name",
    "i": "members.id",
    "m": "model",
    "e": "persona",
    "g": "generation.stop",
    "y": "strategy",
    "r": "response_schema",
    "a": "options.parameters value",
    "b": "options.parameters name",
    "u": "an unknown field",
    "h": "metadata",
    "j": "tracestate",
    "v": "health or reflection",
    "w": "the wire",
    "c": "a credential",
    "d": "any text field",
}
"""Codes of the places that canaries stand in."""


def right(chance: random.Random, word: Word, *, small: bool = False) -> gateway_service_pb2.GenerateRequest:
    """Return a request that is right, as far as its fields go; a small one asks little more than its prompt."""
    request = gateway_service_pb2.GenerateRequest(prompt=f"What is {word('p')}?")
    if small:
        return request
    if chance.random() < 0.2:
        request.ClearField("prompt")
        roles = (message_pb2.ROLE_SYSTEM, message_pb2.ROLE_USER, message_pb2.ROLE_ASSISTANT, message_pb2.ROLE_USER)
        request.messages.extend(message_pb2.Message(role=role, text=f"Say {word('t')}.") for role in roles[chance.randrange(4) :])
    elif chance.random() < 0.4:
        request.system = f"You are {word('s')}."
    if chance.random() < 0.2:
        request.request_id = word("q")
    if chance.random() < 0.6:
        request.profile = chance.choice(PROFILES)
    if chance.random() < 0.4:
        request.labels.update({word("k"): word("l"), "team": "a"})
    if chance.random() < 0.3:
        request.members.extend(_members(chance, word))
    if chance.random() < 0.3:
        request.generation.CopyFrom(_generation(chance, word))
    if chance.random() < 0.3:
        _strategy(chance, word, request)
    if chance.random() < 0.1:
        request.response_schema = f'{{"type": "object", "description": "{word("r")}"}}'
    if chance.random() < 0.1:
        request.max_cost_micro_usd = chance.randrange(1, 10**6)
    request.include_candidates = chance.random() < 0.5
    request.skip_deadline_check = chance.random() < 0.5
    return request


def unknown(chance: random.Random, word: Word, request: gateway_service_pb2.GenerateRequest) -> None:
    """Name a profile or a model that there is none of, which is told back."""
    if chance.random() < 0.5:
        request.profile = word("o")
    else:
        request.ClearField("members")
        request.members.add(model=word("m"))


def spoil(chance: random.Random, word: Word, message: Message, count: int) -> None:
    """Put hostile values into so many fields, anywhere in the message."""
    for _ in range(count):
        _spoil_one(chance, word, message)


def _members(chance: random.Random, word: Word) -> Iterator[member_pb2.Member]:
    for number in range(chance.randrange(1, 4)):
        member = member_pb2.Member(model=chance.choice(MODELS))
        if chance.random() < 0.5:
            member.id = f"{word('i')}{number}"
        if chance.random() < 0.3:
            member.persona = f"Be {word('e')}."
        if chance.random() < 0.3:
            member.temperature = chance.random()
        if chance.random() < 0.2:
            member.samples = chance.randrange(1, 3)
        if chance.random() < 0.2:
            member.timeout.seconds = chance.randrange(1, 60)
        yield member


def _generation(chance: random.Random, word: Word) -> generation_parameters_pb2.GenerationParameters:
    return generation_parameters_pb2.GenerationParameters(
        temperature=chance.random(), max_output_tokens=chance.randrange(1, 1000), stop=[word("g")] if chance.random() < 0.5 else [], seed=chance.randrange(100)
    )


def _strategy(chance: random.Random, word: Word, request: gateway_service_pb2.GenerateRequest) -> None:
    request.strategy = word("y") if chance.random() < 0.05 else chance.choice(STRATEGIES)
    options = request.options
    if chance.random() < 0.7:
        options.refiner.CopyFrom(strategy_options_pb2.RefinerMember(model=WRITER))
    if chance.random() < 0.3:
        options.quorum = chance.randrange(1, 4)
    if chance.random() < 0.2:
        options.hedge.CopyFrom(strategy_options_pb2.HedgePolicy(max=1))
        options.hedge.delay.nanos = 50_000_000
    if chance.random() < 0.2:
        options.retry.max_attempts = chance.randrange(1, 4)
    if chance.random() < 0.5:
        name, values = chance.choice(PARAMETERS)
        options.parameters.update({name: chance.choice(values)})
    if chance.random() < 0.1:
        options.parameters.update({word("b"): word("a")})


def _spoil_one(chance: random.Random, word: Word, message: Message) -> None:
    while True:
        field: Any = chance.choice(list(message.DESCRIPTOR.fields))
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            _spoil_map(chance, word, message, field)
        elif field.message_type is None:
            _spoil_scalar(chance, word, message, field)
        elif field.message_type.full_name in {"google.protobuf.Struct", "google.protobuf.Value", "google.protobuf.ListValue"}:
            _spoil_struct(chance, word, message, field)
        else:
            below = _below(chance, message, field)
            # Otherwise what is below is left as it is: set, and maybe much of it.
            if chance.random() < 0.7:
                message = below
                continue
        return


def _below(chance: random.Random, message: Message, field: FieldDescriptor) -> Message:
    value: Any = getattr(message, field.name)
    if not field.is_repeated:
        value.SetInParent()
        return value  # type: ignore[no-any-return] # what it is, only the descriptor knows
    if not value or chance.random() < 0.3:
        for _ in range(chance.choice((1, 1, 1, 2, 9, 300))):
            value.add()
    return chance.choice(list(value))  # type: ignore[no-any-return] # as above


def _spoil_scalar(chance: random.Random, word: Word, message: Message, field: FieldDescriptor) -> None:
    if field.is_repeated:
        getattr(message, field.name).extend(_scalar(chance, word, field) for _ in range(chance.choice((1, 2, 5, 200))))
    else:
        setattr(message, field.name, _scalar(chance, word, field))


def _scalar(chance: random.Random, word: Word, field: FieldDescriptor) -> Any:
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        if field.type == FieldDescriptor.TYPE_BYTES:
            return chance.randbytes(chance.randrange(64))
        return _text(chance, word, field.name)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return chance.random() < 0.5
    return hostile.number(chance, field)


def _text(chance: random.Random, word: Word, field: str) -> str:
    bad = hostile.text(chance, field)
    return chance.choice((bad, word("d") + bad, bad + word("d")))


def _spoil_map(chance: random.Random, word: Word, message: Message, field: FieldDescriptor) -> None:
    entries = getattr(message, field.name)
    if not isinstance(entries, MutableMapping) or field.full_name.startswith("google.protobuf."):
        return
    for number in range(chance.choice((1, 1, 2, 40))):
        entries[_text(chance, word, "")[:300] + str(number)] = _text(chance, word, "")


def _spoil_struct(chance: random.Random, word: Word, message: Message, field: FieldDescriptor) -> None:
    struct = getattr(message, field.name)
    if not isinstance(struct, struct_pb2.Struct):
        return
    name = chance.choice(PARAMETERS)[0] if chance.random() < 0.7 else _text(chance, word, "")
    value: struct_pb2.Value = struct.fields[name]
    for _ in range(chance.choice((0, 0, 1, 2, 12, 25))):
        value = value.list_value.values.add() if chance.random() < 0.5 else value.struct_value.fields[word("b")]
    kind = chance.randrange(5)
    if kind == 0:
        value.string_value = _text(chance, word, "")
    elif kind == 1:
        value.number_value = float(hostile.number(chance, struct_pb2.Value.DESCRIPTOR.fields_by_name["number_value"]))
    elif kind == 2:
        value.bool_value = True
    elif kind == 3:
        value.null_value = struct_pb2.NULL_VALUE
    else:
        value.list_value.values.extend(struct_pb2.Value(string_value=word("a")) for _ in range(chance.choice((0, 1, 9, 2000))))
