"""The section `tenants`: on whose behalf models are called, who may speak for each of them, and what each of them may have."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError

from services.chassis.configuration.models import Count, Limit, Usd
from services.chassis.configuration.section import Listed, Name, Section, no_key
from services.chassis.configuration.surroundings import Surroundings, known_model, known_profile

DEFAULT_TENANT = "default"
"""Whose limits hold for calls that name no tenant, where such an entry exists."""

Path = tuple[str | int, ...]

_SHA256 = re.compile(r"[0-9a-f]{64}")
_HASH = "must be 64 of 0-9 and a-f, the SHA-256 of a key as `ensemble keys new` prints it; a key itself never stands in the configuration"
_SHAPE = "must be {sha256: HASH} or {sha256: HASH, id: NAME}; a key itself never stands in the configuration"


def _sha256(text: str) -> str:
    # What stands here may be a key, so that the words must not show it.
    if _SHA256.fullmatch(text) is None:
        raise PydanticCustomError("sha256", "{words}", {"words": _HASH})
    return text


class KeySection(Section):
    """An API key, of which only the hash is known here."""

    sha256: Annotated[str, AfterValidator(_sha256)]
    """SHA-256 of the key's whole text, in lower-case hexadecimal figures."""
    id: Name | None = None
    """What people call the key, for example who holds it; it means nothing."""

    @model_validator(mode="before")
    @classmethod
    def _no_plain_key(cls, value: object) -> object:
        if not isinstance(value, Mapping):
            raise PydanticCustomError("key_shape", "{words}", {"words": _SHAPE})
        return value


class BudgetSection(Section):
    """What a tenant's calls may cost, in USD; None is not limited."""

    per_day: Usd | None = None
    """From midnight to midnight, UTC."""
    per_month: Usd | None = None
    """A calendar month, UTC."""


class TenantSection(Section):
    """One tenant; what is None is not limited."""

    keys: Listed[KeySection] | None = None
    """Whoever shows one of these keys calls for the tenant. An empty list lets nobody in, where leaving it out says nothing."""
    sans: Listed[Annotated[str, Field(min_length=1, max_length=2048, pattern=r"^[!-~]+$"), AfterValidator(no_key)]] | None = None
    """Whoever comes with a client certificate for one of these names, and shows no key, calls for the tenant: DNS names, URIs (such as spiffe://…), e-mail and
    IP addresses, each exactly as it stands among the certificate's subject alternative names."""
    profiles: Listed[Annotated[str, AfterValidator(known_profile)]] | None = None
    """Profiles that it may use; None for all."""
    models: Listed[Annotated[str, AfterValidator(known_model)]] | None = None
    """Models that may be called for it, whoever names them: request, profile or strategy's parameters; None for all."""
    requests_per_minute: Limit | None = None
    tokens_per_minute: Limit | None = None
    """Of prompts and answers together, over all models."""
    concurrency: Count | None = None
    """Calls at once, over all models."""
    request_burst: Limit | None = None
    """Requests that may come at once after a quiet time; None is what ten seconds of the rate allow, at least 1."""
    budget: BudgetSection = Field(default_factory=BudgetSection)

    @model_validator(mode="after")
    def _usable_profiles(self, info: ValidationInfo) -> "TenantSection":
        called = info.context.profiles if isinstance(info.context, Surroundings) else None
        if called is None or self.profiles is None or self.models is None:
            return self
        problems = {}
        for place, profile in enumerate(self.profiles):
            missing = sorted(called.get(profile, frozenset()) - set(self.models))
            if missing:
                words = ", ".join(f'"{model}"' for model in missing)
                problems["profiles", place] = f"calls {words}, which this tenant's models leave out"
        if problems:
            raise PydanticCustomError("several", "several problems", {"problems": problems})
        return self


def unique_credentials(tenants: Mapping[str, TenantSection]) -> Mapping[str, TenantSection]:
    """Return the tenants. Raises `PydanticCustomError` with every key, and every name of a certificate, that stands more than once.

    It would mean two tenants, or go on working when one of its entries is taken out.
    """
    keys = ((name, ("keys", place, "sha256"), key.sha256) for name, tenant in tenants.items() for place, key in enumerate(tenant.keys or ()))
    sans = ((name, ("sans", place), san) for name, tenant in tenants.items() for place, san in enumerate(tenant.sans or ()))
    problems = {(name, *path): words for entries in (keys, sans) for name, path, words in repeated(entries)}
    if problems:
        raise PydanticCustomError("several", "several problems", {"problems": problems})
    return tenants


def repeated(entries: Iterable[tuple[str, Path, str]], elsewhere: Mapping[str, str] | None = None) -> Iterator[tuple[str, Path, str]]:
    """Yield tenant, path and words for each entry of tenant, path and credential whose credential stands before it, or with a tenant `elsewhere`."""
    seen: dict[str, str] = {}
    for tenant, path, credential in entries:
        if elsewhere is not None and credential in elsewhere:
            yield tenant, path, f'stands with the tenant "{elsewhere[credential]}" in the configuration already'
        elif credential in seen:
            yield tenant, path, "stands twice" if seen[credential] == tenant else f'stands with the tenant "{seen[credential]}" already'
        seen.setdefault(credential, tenant)


def have_credentials(tenants: Mapping[str, TenantSection]) -> bool:
    """Whether any tenant is known by keys or certificates, none of them left included: then whoever calls is asked who he is."""
    return any(tenant.keys is not None or tenant.sans is not None for tenant in tenants.values())
