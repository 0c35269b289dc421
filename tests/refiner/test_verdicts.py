"""Verdicts are read strictly, and reading never fails but in one way."""

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.models.refinement import Analysis
from services.refiner.verdicts import (
    ANALYSIS_KEYS,
    MOST_BYTES,
    BadVerdict,
    analysis_schema,
    best_schema,
    ranking_schema,
    read_analysis,
    read_best,
    read_ranking,
    read_score,
    score_schema,
)

READERS: tuple[Callable[[str], object], ...] = (lambda text: read_best(text, 3), lambda text: read_ranking(text, 3), read_score, read_analysis)
NOTHING: dict[str, list[str]] = {key: [] for key in ANALYSIS_KEYS}
VALID = ('{"best": 2}', '{"ranking": [3, 1, 2]}', '{"score": 10}', json.dumps({**NOTHING, "consensus": ["Paris"]}))
letters = st.characters(exclude_categories=())
"""Lone surrogates included."""
planted_texts = st.one_of(
    st.sampled_from(["0", "4", "25", "-", ".0", "e1", "true", "null", "[", "}", '"', ",", " ", "```", "\ud800"]), st.text(letters, max_size=5)
)
anything = st.one_of(
    st.text(letters, max_size=200),
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(letters, max_size=20), st.just("HUGE")),
        lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(["best", "ranking", "score", *ANALYSIS_KEYS]), inner, max_size=6)),
        max_leaves=12,
    ).map(lambda value: json.dumps(value).replace('"HUGE"', "9" * 5000)),
)


def _analysis(**changed: object) -> str:
    return json.dumps({**NOTHING, **changed})


def _read(reader: Callable[[str], object], text: str) -> object:
    """Return what is read, or the refusal; let anything else fail the test."""
    try:
        return reader(text)
    except BadVerdict as refused:
        return refused


@pytest.mark.parametrize(
    ("text", "best"),
    [
        ('{"best": 1}', 1),
        (' \r\n\t{ "best" : 3 }\n', 3),
        ('```json\n{"best": 2}\n```', 2),
        ('```\n{"best": 2}```', 2),
        ('\n```JSON \r\n{"best": 2}\r\n```\n', 2),
    ],
)
def test_a_choice_is_read(text: str, best: int) -> None:
    """One object with one key, blanks around it or a single fence around the whole."""
    assert read_best(text, 3) == best


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2",
        "null",
        "[2]",
        '"best"',
        'I choose {"best": 2}',
        '{"best": 2} because it is right',
        '{"best": 2}{"best": 3}',
        '{"best": 2, "best": 2}',
        '{"best": 2, "why": "right"}',
        '{"Best": 2}',
        "{}",
        "{'best': 2}",
        "{best: 2}",
        '{"best": 2,}',
        '{"best": "2"}',
        '{"best": 2.0}',
        '{"best": 2e0}',
        '{"best": true}',
        '{"best": null}',
        '{"best": [2]}',
        '{"best": {"best": 2}}',
        '{"best": NaN}',
        '{"best": -Infinity}',
        '{"best": 0}',
        '{"best": 4}',
        '{"best": -1}',
        '{"best": ' + "9" * 5000 + "}",
        '{"best": 1e999}',
        '```\n```json\n{"best": 2}\n```\n```',
        '```json\n{"best": 2}',
        '{"best": 2}\n```',
        '```json {"best": 2} ```',
        '```python\n{"best": 2}\n```',
        'Here:\n```json\n{"best": 2}\n```',
        '```json\n{"best": 2}\n```\nDone.',
        "```",
        '\ufeff{"best": 2}',
        '\u00a0{"best": 2}',
        '{"best": 2}' + " " * MOST_BYTES,
        '{"best": 2}\x00',
    ],
)
def test_what_is_nearly_a_choice_is_none(text: str) -> None:
    """Prose around it, a second object, other keys, numbers that are no whole numbers in range, other Markdown: each is refused."""
    with pytest.raises(BadVerdict):
        read_best(text, 3)


@pytest.mark.parametrize(
    "text",
    [
        '{"ranking": [1, 2]}',
        '{"ranking": [1, 2, 3, 3]}',
        '{"ranking": [1, 2, 2]}',
        '{"ranking": [0, 1, 2]}',
        '{"ranking": [1, 2, 4]}',
        '{"ranking": [1, 2, "3"]}',
        '{"ranking": [1, 2, 3.0]}',
        '{"ranking": [true, 2, 3]}',
        '{"ranking": [[1, 2, 3]]}',
        '{"ranking": {"1": 1}}',
        '{"ranking": "1 2 3"}',
        '{"ranking": null}',
        '{"best": 1}',
    ],
)
def test_a_ranking_names_each_draft_once(text: str) -> None:
    """Anything but an exact permutation is refused."""
    assert read_ranking('{"ranking": [3, 1, 2]}', 3) == (3, 1, 2)
    with pytest.raises(BadVerdict):
        read_ranking(text, 3)


@pytest.mark.parametrize("text", ['{"score": -1}', '{"score": 11}', '{"score": 5.0}', '{"score": "5"}', '{"score": false}', '{"best": 5}', '{"score": [5]}'])
def test_a_score_is_a_whole_number_from_0_to_10(text: str) -> None:
    """Both ends are scores; anything beyond, or of another type, is refused."""
    assert [read_score(f'{{"score": {score}}}') for score in (0, 7, 10)] == [0, 7, 10]
    with pytest.raises(BadVerdict):
        read_score(text)


def test_an_analysis_is_read() -> None:
    """Five lists of texts, in any order, up to 16 texts of up to 1000 characters; a fence inside a text is text."""
    text = _analysis(consensus=["x" * 1000] * 16, blind_spots=["```", "\ud83d\ude00"])
    assert read_analysis(text) == Analysis(consensus=("x" * 1000,) * 16, blind_spots=("```", "\U0001f600"))
    assert read_analysis(json.dumps(dict(reversed(NOTHING.items())))) == Analysis()


@pytest.mark.parametrize(
    "text",
    [
        _analysis(consensus=["x"] * 17),
        _analysis(consensus=[""]),
        _analysis(consensus=["x" * 1001]),
        _analysis(consensus=[1]),
        _analysis(consensus=[["x"]]),
        _analysis(consensus="x"),
        _analysis(consensus=None),
        _analysis(consensus={}),
        _analysis(consensus=["\ud800"]),
        _analysis(more=[]),
        json.dumps({key: [] for key in ANALYSIS_KEYS[1:]}),
        '{"consensus": [], ' + json.dumps(NOTHING)[1:],
        _analysis(**{key: ["\u00e9" * 1000] * 16 for key in ANALYSIS_KEYS}),
    ],
)
def test_an_analysis_of_another_form_is_refused(text: str) -> None:
    """Too many or too long texts, other types, half characters, other keys or a key twice."""
    with pytest.raises(BadVerdict):
        read_analysis(text)


def test_length_counts_bytes() -> None:
    """A verdict of fewer characters than the limit and more bytes is too long, a text of surrogates alike."""
    for letter in ("\u00e9", "\ud800"):
        with pytest.raises(BadVerdict, match="longer than"):
            read_score(letter * (MOST_BYTES // 2 + 1))


@given(st.sampled_from(READERS), anything)
def test_whatever_the_text_it_is_read_or_refused(reader: Callable[[str], object], text: str) -> None:
    """No text, JSON or not, makes reading fail in another way."""
    _read(reader, text)


@pytest.mark.parametrize("valid", VALID)
@given(at=st.integers(0, 14), cut=st.integers(0, 3), planted=planted_texts)
def test_damaged_verdicts_are_read_or_refused(valid: str, at: int, cut: int, planted: str) -> None:
    """A verdict with a piece taken out or put in is read by the same rules: what is read is in range."""
    text = valid[:at] + planted + valid[at + cut :]
    best, ranking, score, analysis = (_read(reader, text) for reader in READERS)
    assert isinstance(best, BadVerdict) or best in {1, 2, 3}
    assert isinstance(ranking, BadVerdict) or (isinstance(ranking, tuple) and sorted(ranking) == [1, 2, 3])
    assert isinstance(score, BadVerdict) or score in range(11)
    assert isinstance(analysis, BadVerdict | Analysis)


@pytest.mark.parametrize("depth", [500, 2_000, 20_000, MOST_BYTES])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"best":', "}"), ('{"ranking":[', "]}")])
def test_deep_nesting_is_refused(opening: str, closing: str, depth: int) -> None:
    """Nesting that no parser follows is no verdict, closed or not."""
    for text in ((opening * depth)[:MOST_BYTES], opening * (depth // 10) + closing * (depth // 10)):
        for reader in READERS:
            assert isinstance(_read(reader, text), BadVerdict)


@given(st.sampled_from(READERS), st.text("qxzQXZ\u00df", min_size=6, max_size=30))
def test_a_refusal_holds_nothing_of_the_text(reader: Callable[[str], object], secret: str) -> None:
    """Neither its words nor an error chained to it tell what stood in the verdict."""
    for text in (
        secret,
        f'{{"{secret}": 1}}',
        f'{{"best": "{secret}"}}',
        f'{{"{secret}": 1, "{secret}": 2}}',
        f"```{secret}\n{{}}```",
        f'{{"score": {secret}}}',
    ):
        with pytest.raises(BadVerdict) as refused:
            reader(text)
        assert secret not in refused.value.problem
        assert refused.value.__context__ is None
        assert str(refused.value) == refused.value.problem


def test_schemas_say_the_same() -> None:
    """Each schema wants exactly the keys that are read, and allows exactly the numbers."""
    assert json.loads(best_schema(3)) == {
        "type": "object",
        "properties": {"best": {"type": "integer", "enum": [1, 2, 3]}},
        "required": ["best"],
        "additionalProperties": False,
    }
    ranking = json.loads(ranking_schema(2))["properties"]["ranking"]
    assert (ranking["items"]["enum"], ranking["minItems"], ranking["maxItems"]) == ([1, 2], 2, 2)
    assert json.loads(score_schema())["properties"]["score"]["enum"] == list(range(11))
    analysis = json.loads(analysis_schema())
    assert tuple(analysis["required"]) == ANALYSIS_KEYS == tuple(analysis["properties"])
    assert all(listed["maxItems"] == 16 for listed in analysis["properties"].values())
