"""`--parameter NAME=VALUE`."""

import pytest

from services.cli.exit_codes import CommandError, ExitCode
from services.cli.strategy_parameters import parameters_from


@pytest.mark.parametrize(
    ("word", "name", "value"),
    [
        ("layers=2", "layers", 2),
        ("threshold=0.5", "threshold", 0.5),
        ("analysis=true", "analysis", True),
        ('judges=["a", {"b": null}]', "judges", ["a", {"b": None}]),
        ("model=gpt-4.1", "model", "gpt-4.1"),
        ('text="2"', "text", "2"),
        ("pattern=a=b", "pattern", "a=b"),
        ("empty=", "empty", ""),
        ("broken={oops", "broken", "{oops"),
        ("nan=NaN", "nan", "NaN"),
        ("infinity=[-Infinity]", "infinity", "[-Infinity]"),
        ("a.b=1", "a.b", 1),
        ("whole=9007199254740992", "whole", 2**53),
    ],
)
def test_a_value_is_json_or_else_text(word: str, name: str, value: object) -> None:
    """What JSON can say is taken so; everything else is text as it stands."""
    assert parameters_from([word]) == {name: value}
    assert type(parameters_from([word])[name]) is type(value)


def test_several_are_kept_together() -> None:
    """Each under its own name; none are an empty mapping."""
    assert parameters_from(["a=1", "b=x"]) == {"a": 1, "b": "x"}
    assert parameters_from([]) == {}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["layers"], "--parameter must be NAME=VALUE"),
        (["=2"], "--parameter must be NAME=VALUE"),
        (["a=1", "a=2"], "--parameter a is given twice"),
        (["a=1e999"], "--parameter a must hold finite numbers only"),
        (["a=9007199254740993"], "--parameter a must hold whole numbers of at most 9007199254740992"),
        (["a=" + "9" * 5000], "--parameter a is more than can be read"),
        (["a=" + "[" * 16 + "]" * 16], "--parameter a must be nested at most 16 deep"),
        (["a=" + "[" * 100_000], "--parameter a is more than can be read"),
        (["a=\udcff"], "--parameter a must hold valid Unicode only"),
        (['a="\\ud800"'], "--parameter a must hold valid Unicode only"),
        (["a=" + "x" * 65536], "--parameter a must be at most 65536 bytes as JSON"),
        (["a=" + "x" * 40000, "b=" + "x" * 40000], "--parameter values together must be at most 65536 bytes as JSON"),
    ],
    ids=range(12),
)
def test_what_cannot_be_sent_is_refused_by_its_name(words: list[str], told: str) -> None:
    """The option and the parameter are named, and no value is repeated."""
    with pytest.raises(CommandError) as refusal:
        parameters_from(words)
    assert (str(refusal.value), refusal.value.code) == (told, ExitCode.WRONG)
