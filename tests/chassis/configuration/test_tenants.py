"""The section `tenants`: who may speak for a tenant, and what it may use."""

import json

import pytest
import yaml

from services.chassis.api_keys import new_key, sha256_of
from services.chassis.configuration import configuration_hash, render
from tests.chassis.configuration.conftest import Load, Refused

KEY = new_key(bytes)
HASH = sha256_of(KEY)
OTHER = sha256_of("another")
HASH_RULE = "must be 64 of 0-9 and a-f, the SHA-256 of a key as `ensemble keys new` prints it; a key itself never stands in the configuration"
SHAPE_RULE = "must be {sha256: HASH} or {sha256: HASH, id: NAME}; a key itself never stands in the configuration"
NO_KEY = "must not be a key: a key itself never stands in the configuration"
NAME_RULE = 'must be a name: 1 to 60 of a-z, A-Z, 0-9, "-", "_" and ".", the first one a letter or figure'
VISIBLE = "must be visible ASCII characters without a space"
PROFILES = """
models: {big: {provider: local, name: big}, small: {provider: local, name: small}, judge: {provider: local, name: judge}}
profiles:
  two: {strategy: fusion, members: [{model: small}, {model: big}], refiner: {model: big}}
  one: {strategy: single, members: [{model: small}]}
  ranked: {strategy: rank, members: [{model: small}, {model: small}], parameters: {judges: [judge]}}
"""


def test_a_tenant_with_everything(load: Load) -> None:
    """As it was written."""
    sans = ["a.example", "spiffe://example/a", "a@example.org", "10.0.0.7", "2001:db8::7"]
    said = {"keys": [{"sha256": HASH, "id": "laptop"}, {"sha256": OTHER}], "sans": sans, "profiles": ["one"], "models": ["small"], "concurrency": 2}
    tenant = load(f"{PROFILES}\ntenants: {{a: {json.dumps(said)}}}").tenants["a"]
    assert [(key.sha256, key.id) for key in tenant.keys or ()] == [(HASH, "laptop"), (OTHER, None)]
    assert (tenant.sans, tenant.profiles, tenant.models, tenant.concurrency) == (tuple(sans), ("one",), ("small",), 2)


def test_what_is_left_out_is_not_the_same_as_nothing(load: Load) -> None:
    """An empty list lets nobody in, and allows nothing; null says nothing, as elsewhere."""
    tenants = load("tenants: {a: {keys: [], sans: [], profiles: [], models: []}, b: {}, c: {keys: null, sans: null, profiles: null, models: null}}").tenants
    assert (tenants["a"].keys, tenants["a"].sans, tenants["a"].profiles, tenants["a"].models) == ((), (), (), ())
    for name in "bc":
        assert (tenants[name].keys, tenants[name].sans, tenants[name].profiles, tenants[name].models) == (None, None, None, None)


def test_it_is_rendered_as_it_was_read(load: Load) -> None:
    """So that check-config prints what can be loaded again."""
    said = {"a": {"keys": [{"sha256": HASH, "id": "1"}], "sans": ["a.example"], "models": ["smollm2"]}, "b": {"keys": []}}
    configuration = load(f"gateway: {{keys_file: keys.yaml}}\ntenants: {json.dumps(said)}")
    again = load(render(configuration))
    assert again.tenants == configuration.tenants
    assert configuration_hash(again) == configuration_hash(configuration)


@pytest.mark.parametrize(
    ("tenant", "path", "message"),
    [
        ({"keys": [{"sha256": "xyz"}]}, ".keys[0].sha256", HASH_RULE),
        ({"keys": [{"sha256": HASH.upper()}]}, ".keys[0].sha256", HASH_RULE),
        ({"keys": [{"sha256": HASH[:-1]}]}, ".keys[0].sha256", HASH_RULE),
        ({"keys": [{"sha256": f"{HASH}\n"}]}, ".keys[0].sha256", HASH_RULE),
        ({"keys": [{"sha256": f"sha256:{HASH}"}]}, ".keys[0].sha256", HASH_RULE),
        ({"keys": [{"sha256": 5}]}, ".keys[0].sha256", "must be text"),
        ({"keys": [{"sha256": None}]}, ".keys[0].sha256", "must be text"),
        ({"keys": [{"id": "x"}]}, ".keys[0].sha256", "is required"),
        ({"keys": [{"sha256": HASH, "id": "a b"}]}, ".keys[0].id", NAME_RULE),
        ({"keys": [{"sha256": HASH, "name": "a"}]}, ".keys[0].name", "is not known; known are id, sha256"),
        ({"keys": [HASH]}, ".keys[0]", SHAPE_RULE),
        ({"keys": {"sha256": HASH}}, ".keys", "must be a list"),
        ({"key": []}, ".key", 'is not known; did you mean "keys"?'),
        ({"sans": ["a b"]}, ".sans[0]", VISIBLE),
        ({"sans": [""]}, ".sans[0]", "must not be empty"),
        ({"sans": ["ä.example"]}, ".sans[0]", VISIBLE),
        ({"sans": ["x" * 2049]}, ".sans[0]", "must have at most 2048 characters"),
        ({"sans": "a.example"}, ".sans", "must be a list"),
        ({"sans": ["x", "x"]}, ".sans[1]", "stands twice"),
        ({"keys": [{"sha256": HASH}, {"sha256": OTHER}, {"sha256": HASH, "id": "x"}]}, ".keys[2].sha256", "stands twice"),
        ({"profiles": ["on"]}, ".profiles[0]", 'names no profile; did you mean "one"?'),
        ({"profiles": ["zzz"]}, ".profiles[0]", "names no profile; known are default, local, one, ranked, single, two"),
        ({"models": ["small", "bigger"]}, ".models[1]", 'names no model; did you mean "big"?'),
        ({"profiles": ["one", "two"], "models": ["small"]}, ".profiles[1]", 'calls "big", which this tenant\'s models leave out'),
        ({"profiles": ["ranked"], "models": ["small", "big"]}, ".profiles[0]", 'calls "judge", which this tenant\'s models leave out'),
        ({"profiles": ["two"], "models": []}, ".profiles[0]", 'calls "big", "small", which this tenant\'s models leave out'),
    ],
)
def test_what_is_wrong_is_refused_with_its_path(refused: Refused, tenant: object, path: str, message: str) -> None:
    """Each mistake alone, in words that say what would be right."""
    text = f"{PROFILES}\ntenants: {json.dumps({'a': tenant})}"
    assert [(each.path, each.message) for each in refused(text)] == [(f"tenants.a{path}", message)]


def test_a_key_and_a_name_are_one_tenants(refused: Refused) -> None:
    """Those of every later one that claims them are told, with whom they stand already."""
    said = {
        "a": {"keys": [{"sha256": HASH}], "sans": ["x.example"]},
        "b": {"keys": [{"sha256": OTHER}, {"sha256": HASH}], "sans": ["y.example", "x.example"]},
        "c": {"sans": ["y.example"]},
    }
    assert [(each.path, each.message) for each in refused(f"tenants: {json.dumps(said)}")] == [
        ("tenants.b.keys[1].sha256", 'stands with the tenant "a" already'),
        ("tenants.b.sans[1]", 'stands with the tenant "a" already'),
        ("tenants.c.sans[0]", 'stands with the tenant "b" already'),
    ]


def test_one_listed_profile_may_call_what_the_other_list_has(load: Load) -> None:
    """All that is called, and no more, need be listed; where profiles are not listed, they need not be usable."""
    load(f"{PROFILES}\ntenants: {{a: {{profiles: [two, one], models: [small, big]}}, b: {{models: [judge]}}, c: {{profiles: [ranked]}}}}")


@pytest.mark.parametrize(
    "text",
    [
        f"tenants: {{a: {{keys: [{{sha256: {KEY}}}]}}}}",
        f"tenants: {{a: {{keys: [{KEY}]}}}}",
        f"tenants: {{a: {{keys: {KEY}}}}}",
        f"tenants: {{a: {{keys: {{{KEY}: x}}}}}}",
        f"tenants: {{a: {{keys: [{{{KEY}: x, sha256: {HASH}}}]}}}}",
        f"tenants: {{a: {{keys: [{{sha256: {HASH}, id: {KEY}}}]}}}}",
        f"tenants: {{a: {{keys: [{{sha256: 'Bearer {KEY}'}}]}}}}",
        f"tenants: {{a: {{keys: [{{sha256: {KEY}{KEY}}}]}}}}",
        f"tenants: {{a: {{sans: [{KEY}]}}}}",
        f"tenants: {{a: {{profiles: [{KEY}], models: [{KEY}]}}}}",
        f"tenants: {{a: {{{KEY}: x}}}}",
        f"tenants: {{a: {KEY}}}",
        f"tenants: {{{KEY}: x}}",
        f"tenants: {{{KEY}: 1, {KEY}: 2}}",
        f"{KEY}: x",
        f"tenants: {{a: {{keys: [{{sha256: {KEY}",
        f"tenants: {{a: {{keys: [{{sha256: '{KEY}",
    ],
)
def test_a_key_that_is_pasted_in_is_refused_and_not_repeated(refused: Refused, text: str) -> None:
    """Wherever it was put, not even a part of it."""
    told = "\n".join(map(str, refused(text)))
    assert told
    assert KEY[9:20] not in told


def test_a_key_in_a_variable_is_not_repeated_either(refused: Refused) -> None:
    """It may be set there as well."""
    problems = refused("", {"ENSEMBLE__TENANTS__A__KEYS": json.dumps([{"sha256": KEY}])})
    assert [(each.path, each.source) for each in problems] == [("tenants.a.keys[0].sha256", "ENSEMBLE__TENANTS__A__KEYS")]
    assert KEY[9:20] not in str(problems)


def test_where_the_keys_file_is(load: Load, refused: Refused) -> None:
    """In the working folder, or wherever else it is said to be; it is not read here, for every service loads the configuration."""
    configuration = load("gateway: {keys_file: no/such.yaml}")
    assert configuration.gateway.keys_path is not None
    assert configuration.gateway.keys_path.parts[-2:] == ("no", "such.yaml")
    assert configuration.gateway.keys_path.is_absolute()
    assert str(load("gateway: {keys_file: /etc/keys.yaml}").gateway.keys_path) == "/etc/keys.yaml"
    assert load("").gateway.keys_path is None
    copied = configuration.gateway.model_copy(update={"limiter": "127.0.0.1:1"})
    assert copied.keys_path == configuration.gateway.keys_path
    assert [(each.path, each.message) for each in refused("gateway: {keys_file: ''}")] == [("gateway.keys_file", "must not be empty")]
    assert yaml.safe_load(render(configuration))["gateway"]["keys_file"] == "no/such.yaml"
