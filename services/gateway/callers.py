"""Who calls: from what a call brings with it to the tenant that it is made for.

    one authorization, "Bearer KEY"  --the key is known--> its tenant
                                     `-- it is not, or there are several, or it is something else --> Unauthenticated, whatever certificate there is
    no authorization, a certificate  --its names are one tenant's--> that tenant
                                     `-- they are nobody's, or two tenants' --> Unauthenticated
    neither                          --> Unauthenticated

What is said to a caller does not depend on which tenants there are.
"""

import hmac
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from services.chassis.api_keys import LENGTH, is_key
from services.chassis.errors import Unauthenticated
from services.gateway.caller import Caller

SCHEME = "bearer"
MOST_NAMES = 256
"""Most names of one certificate that are looked at; one with more is refused."""

_HOW = 'send the metadata "authorization: Bearer KEY" with a key of this gateway\'s, or a client certificate that it knows'
_MISSING = f"the call says nothing of who makes it; {_HOW}"
_SEVERAL = 'the call has more than one authorization; send exactly one, "Bearer KEY"'
_MALFORMED = 'the authorization is not "Bearer KEY"; a key is what `ensemble keys new` printed, whole and alone'
_UNKNOWN_KEY = "the key is not valid"
_UNKNOWN_NAMES = f"the client certificate is none that stands for one caller; {_HOW}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """One tenant, and by what it is known."""

    caller: Caller
    digests: tuple[bytes, ...] = ()
    """SHA-256 of each of its keys."""
    names: tuple[str, ...] = ()
    """Of client certificates, each exactly as it stands there."""


class Directory:
    """Everybody who may call; unchangeable."""

    def __init__(self, tenants: Iterable[Credentials], *, secret: bytes) -> None:
        """Take the tenants, later ones before earlier ones where both claim a key; `secret` is 32 random bytes that nobody else knows."""
        self._secret = secret
        self._by_mark: dict[bytes, tuple[bytes, Caller | None]] = {}
        self._by_name: dict[str, set[Caller]] = {}
        for tenant in tenants:
            for digest in tenant.digests:
                self._by_mark[self._mark(digest)] = (digest, tenant.caller)
            for name in tenant.names:
                self._by_name.setdefault(name, set()).add(tenant.caller)
        # Stands in for an unknown key's entry, so that the work is the same.
        self._nobody = (self._mark(b"nobody"), None)

    def caller(self, authorizations: Sequence[str | bytes], names: Callable[[], Sequence[str]]) -> Caller:
        """Return who calls; `names` are those of the client's certificate, where it was verified. Raises `Unauthenticated`."""
        if authorizations:
            return self._of_key(authorizations)
        return self._of_names(names())

    def _of_key(self, authorizations: Sequence[str | bytes]) -> Caller:
        if len(authorizations) > 1:
            raise Unauthenticated(_SEVERAL)
        (value,) = authorizations
        if not isinstance(value, str) or len(value) != len(SCHEME) + 1 + LENGTH:
            raise Unauthenticated(_MALFORMED)
        scheme, _, key = value.partition(" ")
        if scheme.lower() != SCHEME or not is_key(key):
            raise Unauthenticated(_MALFORMED)
        # How long the look-up takes tells nothing of the digests: what is compared on the way is their marks, which nobody outside can make or foresee.
        digest = sha256(key.encode()).digest()
        known, caller = self._by_mark.get(self._mark(digest), self._nobody)
        if not hmac.compare_digest(known, digest) or caller is None:
            raise Unauthenticated(_UNKNOWN_KEY)
        return caller

    def _of_names(self, names: Sequence[str]) -> Caller:
        if not names:
            raise Unauthenticated(_MISSING)
        if len(names) > MOST_NAMES:
            raise Unauthenticated(_UNKNOWN_NAMES)
        found = {caller for name in names for caller in self._by_name.get(name, ())}
        if len(found) != 1:
            raise Unauthenticated(_UNKNOWN_NAMES)
        return found.pop()

    def _mark(self, digest: bytes) -> bytes:
        return hmac.digest(self._secret, digest, "sha256")
