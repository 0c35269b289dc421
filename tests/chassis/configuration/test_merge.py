"""Layers put over each other."""

import copy

from hypothesis import given
from hypothesis import strategies as st

from services.chassis.configuration.merge import Layer, merge, merged_tree, source_of

keys = st.sampled_from(["a", "b", "c"])
leaves = st.none() | st.booleans() | st.integers(0, 9) | st.lists(st.integers(0, 9), max_size=2)
trees = st.dictionaries(keys, st.recursive(leaves, lambda inner: st.dictionaries(keys, inner, max_size=3), max_leaves=8), max_size=3)


def leaves_of(tree: object, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], object]:
    """Return every value that is not a mapping, and every empty mapping, by its path."""
    if not isinstance(tree, dict) or not tree:
        return {path: tree}
    return {at: leaf for key, value in tree.items() for at, leaf in leaves_of(value, (*path, key)).items()}


@given(trees, trees)
def test_the_upper_layer_wins_at_every_leaf_it_sets(lower: dict[str, object], upper: dict[str, object]) -> None:
    """What the upper layer says holds; an empty mapping says nothing but that there is one."""
    merged = leaves_of(merge(lower, upper))
    for path, leaf in leaves_of(upper).items():
        if leaf != {}:
            assert merged[path] == leaf


@given(trees, trees)
def test_what_the_upper_layer_does_not_touch_stays(lower: dict[str, object], upper: dict[str, object]) -> None:
    """A leaf stays unless the upper layer sets it, or something above or below it."""
    merged, set_above = leaves_of(merge(lower, upper)), leaves_of(upper)
    for path, leaf in leaves_of(lower).items():
        if not any(at[: len(path)] == path or path[: len(at)] == at for at in set_above):
            assert merged[path] == leaf


@given(trees, trees, trees)
def test_layers_may_be_merged_in_any_grouping(one: dict[str, object], two: dict[str, object], three: dict[str, object]) -> None:
    """Merging from the left equals merging from the right, where no layer replaces a mapping by something else."""
    plain = [{key: value for key, value in tree.items() if isinstance(value, dict)} for tree in (one, two, three)]
    flat = [{key: {inner: leaf for inner, leaf in value.items() if not isinstance(leaf, dict)} for key, value in tree.items()} for tree in plain]
    assert merge(merge(flat[0], flat[1]), flat[2]) == merge(flat[0], merge(flat[1], flat[2]))


@given(trees, trees)
def test_merging_changes_no_layer(lower: dict[str, object], upper: dict[str, object]) -> None:
    """The layers are as they were; merging a layer with itself or with nothing gives it back."""
    before = copy.deepcopy((lower, upper))
    merge(lower, upper)
    assert (lower, upper) == before
    assert merge(lower, {}) == merge({}, lower) == merge(lower, lower) == lower


def test_lists_are_replaced() -> None:
    """A list from above is not appended to the one below."""
    assert merge({"a": [1, 2, 3]}, {"a": [4]}) == {"a": [4]}


def test_a_reference_to_a_secret_is_replaced_as_a_whole() -> None:
    """A file from above takes the place of a variable from below."""
    assert merge({"x": {"api_key": {"env": "A"}}}, {"x": {"api_key": {"file": "b"}}}) == {"x": {"api_key": {"file": "b"}}}


def test_a_heading_with_nothing_below_it_says_nothing() -> None:
    """A section that is null keeps what lower layers say."""
    assert merged_tree([Layer(name="low", tree={"models": {"m": {}}}), Layer(name="up", tree={"models": None})]) == {"models": {"m": {}}}


def test_null_removes_a_named_entry() -> None:
    """A provider, model or profile that is null is gone; in other sections null is a value, which the schema judges."""
    layers = [
        Layer(name="low", tree={"models": {"m": {}, "n": {}}, "gateway": {"listen": "x"}}),
        Layer(name="up", tree={"models": {"m": None}, "gateway": {"listen": None}}),
    ]
    assert merged_tree(layers) == {"models": {"n": {}}, "gateway": {"listen": None}}


def test_a_profile_that_says_its_strategy_and_members_replaces_another() -> None:
    """Nothing of the lower profile is left in it, in whatever order its keys stand; one that says less is put over it key by key."""
    low = Layer(name="low", tree={"profiles": {"p": {"strategy": "fusion", "members": [1, 2], "quorum": 2}, "q": {"strategy": "single"}}})
    whole = Layer(name="up", tree={"profiles": {"p": {"members": [3], "strategy": "vote"}}})
    part = Layer(name="up", tree={"profiles": {"p": {"members": [3]}}})
    assert merged_tree([low, whole]) == {"profiles": {"p": {"members": [3], "strategy": "vote"}, "q": {"strategy": "single"}}}
    assert merged_tree([low, part])["profiles"] == {"p": {"strategy": "fusion", "members": [3], "quorum": 2}, "q": {"strategy": "single"}}
    assert source_of(("profiles", "p", "quorum"), [low, whole]) == "up"
    assert source_of(("profiles", "p", "quorum"), [low, part]) == "low"
    assert source_of(("profiles", "q", "strategy"), [low, whole]) == "low"


def test_a_value_s_source_is_the_highest_layer_that_sets_it() -> None:
    """The source of a value is its last layer with the place in it; what nobody set belongs to its section, and otherwise to nothing."""
    layers = [
        Layer(name="low.yaml", tree={"a": {"b": [1, {"c": 2}]}, "z": 1}, places={("a", "b", 1, "c"): "line 7, column 1", ("a",): "line 1, column 1"}),
        Layer(name="VARIABLE", tree={"a": {"d": 1}}),
    ]
    assert source_of(("a", "b", 1, "c"), layers) == "low.yaml, line 7, column 1"
    assert source_of(("a", "d"), layers) == "VARIABLE"
    assert source_of(("a", "b", 5), layers) == "low.yaml"
    assert source_of(("z", "missing"), layers) == "low.yaml"
    assert source_of(("missing",), layers) == ""
