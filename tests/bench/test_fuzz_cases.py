"""The requests of the fuzzer: made of seed and number alone, of every kind, and hostile in every field of the contract."""

from collections import Counter
from collections.abc import Iterator
from functools import partial
from random import Random
from typing import Any

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, Message

from bench.fuzz import messages
from bench.fuzz.cases import _SHARES, GENERATE, LISTS, STREAM, Case, Cases
from bench.fuzz.setting import Doors
from ensemble.v1 import gateway_service_pb2

COUNT = 3000
KEYS = ("key-one", "key-two")


def _cases(**options: Any) -> list[Case]:
    cases = Cases(3, **options)
    return [cases.case(number) for number in range(COUNT)]


def _set_fields(message: Message) -> Iterator[str]:
    for field, value in message.ListFields():
        yield field.full_name
        if field.message_type is not None and not field.message_type.GetOptions().map_entry:
            for one in value if field.is_repeated else (value,):
                yield from _set_fields(one)


def _all_fields(descriptor: Descriptor, seen: set[str]) -> set[str]:
    for field in descriptor.fields:
        if field.full_name not in seen:
            seen.add(field.full_name)
            if field.message_type is not None and not field.message_type.GetOptions().map_entry:
                _all_fields(field.message_type, seen)
    return seen


def test_a_request_is_made_of_seed_and_number_alone() -> None:
    """Again it is the same, in any order; with another seed it is another one."""
    cases = Cases(3)
    assert [cases.case(number) for number in (9, 4, 9)] == [Cases(3).case(number) for number in (9, 4, 9)]
    assert cases.case(9) != Cases(4).case(9)


def test_every_kind_is_made_in_its_share() -> None:
    """None is left out, and a few of all go through all four services."""
    made = _cases()
    families = Counter(case.family for case in made)
    assert set(families) == set(_SHARES)
    assert sum(_SHARES.values()) == 100
    assert 0.03 < sum(case.full for case in made) / COUNT < 0.09
    assert {GENERATE, STREAM, *LISTS} <= {case.method for case in made}


def test_every_field_of_the_contract_goes_bad() -> None:
    """Spoiled requests, taken together, set every field that there is, also below the parameters."""
    reached: set[str] = set()
    for number in range(COUNT):
        request = gateway_service_pb2.GenerateRequest()
        messages.spoil(Random(number), partial(Cases(3).canaries.word, number), request, 3)
        reached |= set(_set_fields(request))
    assert _all_fields(gateway_service_pb2.GenerateRequest.DESCRIPTOR, set()) <= reached


def test_bytes_that_are_no_message_are_among_them() -> None:
    """So are messages that are right; of those that were changed, both."""
    readable: Counter[str] = Counter()
    for case in _cases():
        if case.family == "mutated" and case.method == GENERATE:
            try:
                gateway_service_pb2.GenerateRequest.FromString(case.messages[0])
            except DecodeError:
                readable["no"] += 1
            else:
                readable["yes"] += 1
    assert min(readable["no"], readable["yes"]) > 20


def test_some_repeat_the_id_of_another() -> None:
    """With the same content, and with another."""
    by_id: dict[str, set[bytes]] = {}
    for case in _cases(doors=Doors(repeats=0.5)):
        if case.owners and case.family == "grammar" and case.method == GENERATE:
            request = gateway_service_pb2.GenerateRequest.FromString(case.messages[0])
            by_id.setdefault(request.request_id, set()).add(case.messages[0])
    contents = Counter(len(found) for found in by_id.values())
    assert sum(count for different, count in contents.items() if different > 1) > 10


def test_where_keys_are_wanted_good_and_bad_and_none_are_sent() -> None:
    """Most requests of our own services bear a good key; good requests always do, and health and reflection never."""
    doors: Counter[str] = Counter()
    for case in _cases(doors=Doors(keys=KEYS)):
        sent = [value for name, value in case.metadata if name.lower() == "authorization"]
        doors[case.door] += 1
        if case.door == "good":
            assert sent in [[f"Bearer {key}"] for key in KEYS]
        elif case.door in {"", "missing"} and case.family != "metadata":
            assert not sent
        if case.answered:
            assert case.door == "good"
        assert case.ours or not case.door
    assert doors["good"] > 10 * doors["bad"] > 0
    assert doors["missing"] > 0
    assert doors["either"] > 0
