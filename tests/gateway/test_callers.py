"""From what a call brings with it to whoever makes it."""

import base64
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.chassis.api_keys import LENGTH, PREFIX, sha256_of
from services.chassis.errors import Unauthenticated
from services.gateway.caller import Caller
from services.gateway.callers import MOST_NAMES, Credentials, Directory
from tests.support.tenants import key_of

SECRET = bytes(range(32))
A, B = Caller(tenant="team-a", models=frozenset({"quick"})), Caller(tenant="team-b")
KEY = key_of("alice")
KNOWN = {"alice": A, "anna": A, "bob": B}
DIRECTORY = Directory(
    [
        Credentials(
            caller=A, digests=(bytes.fromhex(sha256_of(key_of("alice"))), bytes.fromhex(sha256_of(key_of("anna")))), names=("a.example", "spiffe://x/a")
        ),
        Credentials(caller=B, digests=(bytes.fromhex(sha256_of(key_of("bob"))),), names=("b.example",)),
    ],
    secret=SECRET,
)
ALPHABET = string.ascii_letters + string.digits + "-_"


def refused(*authorizations: str | bytes, names: tuple[str, ...] = ()) -> str:
    """Return what a refused caller is told."""
    with pytest.raises(Unauthenticated) as refusal:
        DIRECTORY.caller(authorizations, lambda: names)
    return str(refusal.value)


def looked_at() -> tuple[str, ...]:
    """Stand for names that nobody may look at."""
    raise AssertionError("a key decides, whatever certificate there is")


@pytest.mark.parametrize(("holder", "caller"), KNOWN.items())
@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
def test_a_key_is_its_tenants(holder: str, caller: Caller, scheme: str) -> None:
    """Whatever the case of the scheme; a tenant may have several, and no certificate counts beside it."""
    assert DIRECTORY.caller([f"{scheme} {key_of(holder)}"], looked_at) == caller


@pytest.mark.parametrize(
    "authorizations",
    [
        (f"Bearer {key_of('nobody')}",),
        (KEY,),
        (f"Basic {KEY}",),
        (f"Digest {KEY}",),
        (f"Basic {base64.b64encode(f'alice:{KEY}'.encode()).decode()}",),
        (f"Bearer  {KEY}",),
        (f" Bearer {KEY}",),
        (f"Bearer {KEY} ",),
        (f"Bearer\t{KEY}",),
        (f"Bearer {KEY}, Bearer {KEY}",),
        (f"Bearer {KEY}=",),
        (f"Bearer {KEY.removeprefix(PREFIX)}",),
        (f"Bearer {KEY.lower()}",),
        (f"Bearer {sha256_of(KEY)}",),
        (f"Bearer {KEY}".encode(),),
        ("Bearer ",),
        ("Bearer",),
        ("",),
        (f"Bearer {KEY}", f"Bearer {KEY}"),
        (f"Bearer {KEY}", f"Bearer {key_of('nobody')}"),
        (f"Bearer {key_of('nobody')}", f"Bearer {KEY}"),
        ("", f"Bearer {KEY}"),
    ],
)
def test_anything_else_is_refused_even_with_a_good_certificate(authorizations: tuple[str | bytes, ...]) -> None:
    """And nothing of what was sent is said again."""
    words = refused(*authorizations, names=("a.example",))
    assert PREFIX not in words
    assert not any(str(each) in words for each in authorizations if len(each) > len("Bearer "))


@given(
    st.one_of(
        st.text(max_size=LENGTH + 16),
        st.text(ALPHABET, min_size=43, max_size=43).map(lambda tail: f"Bearer {PREFIX}{tail}"),
        st.tuples(st.integers(0, LENGTH - 1), st.characters(exclude_categories=["Cs"])).map(lambda cut: f"Bearer {KEY[: cut[0]]}{cut[1]}{KEY[cut[0] + 1 :]}"),
        st.integers(0, LENGTH - 1).map(lambda cut: f"Bearer {KEY[:cut]}"),
        st.tuples(st.text(max_size=3), st.text(max_size=3)).map(lambda around: f"Bearer {around[0]}{KEY}{around[1]}"),
        st.permutations(KEY).map(lambda letters: f"Bearer {''.join(letters)}"),
        st.integers(0, 2**52 - 1).map(lambda bits: "Bearer " + "".join(c.swapcase() if bits >> i & 1 else c for i, c in enumerate(KEY))),
    )
)
@example(f"Bearer {KEY}")
def test_nothing_but_the_key_is_ever_accepted(presented: str) -> None:
    """Whatever is sent in place of a key that is known is refused."""
    scheme, _, key = presented.partition(" ")
    good = scheme.lower() == "bearer" and key in {key_of(holder) for holder in KNOWN}
    try:
        caller = DIRECTORY.caller([presented], looked_at)
    except Unauthenticated:
        assert not good
    else:
        assert good
        assert caller == KNOWN[next(holder for holder in KNOWN if key_of(holder) == key)]


@pytest.mark.parametrize(
    ("names", "tenant"),
    [(("a.example",), "team-a"), (("a.example", "spiffe://x/a", "other"), "team-a"), (("b.example",), "team-b")],
)
def test_a_certificate_is_its_names_tenants(names: tuple[str, ...], tenant: str) -> None:
    """Where it shows no key; names that nobody has do not count."""
    assert DIRECTORY.caller([], lambda: names).tenant == tenant


@pytest.mark.parametrize(
    "names",
    [
        (),
        ("c.example",),
        ("A.EXAMPLE",),
        ("a.example.",),
        ("*.example",),
        ("spiffe://x/a/b",),
        ("a.example", "b.example"),
        ("b.example", "other", "a.example"),
        ("a.example", *map(str, range(MOST_NAMES))),
    ],
)
def test_a_certificate_of_nobody_or_of_two_is_refused(names: tuple[str, ...]) -> None:
    """And so is a call with neither key nor certificate; both are told what to send."""
    assert "authorization: Bearer KEY" in refused(names=names)


def test_the_words_do_not_depend_on_who_there_is() -> None:
    """A key that is not known reads the same before a gateway that knows nobody."""
    nobody = Directory([], secret=SECRET)
    for authorizations, names in [((f"Bearer {key_of('nobody')}",), ()), ((), ("c.example",)), ((), ()), (("x",), ())]:
        with pytest.raises(Unauthenticated) as refusal:
            nobody.caller(authorizations, lambda these=names: these)  # type: ignore[misc]  # Bound for this turn of the loop.
        assert str(refusal.value) == refused(*authorizations, names=names)


def test_the_later_of_two_that_claim_a_key_has_it() -> None:
    """Which is never so within one reading of the configuration."""
    digest = bytes.fromhex(sha256_of(KEY))
    both = Directory([Credentials(caller=A, digests=(digest,)), Credentials(caller=B, digests=(digest,))], secret=SECRET)
    assert both.caller([f"Bearer {KEY}"], looked_at) == B


def test_an_entry_that_is_not_the_keys_own_is_not_taken() -> None:
    """Where the index leads to another key, as it never should, the comparison of the whole still refuses."""
    other = Directory([Credentials(caller=A, digests=(bytes.fromhex(sha256_of(key_of("anna"))),))], secret=SECRET)
    (entry,) = other._by_mark.values()
    other._by_mark[other._mark(bytes.fromhex(sha256_of(KEY)))] = entry
    with pytest.raises(Unauthenticated):
        other.caller([f"Bearer {KEY}"], looked_at)
