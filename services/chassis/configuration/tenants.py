"""The section `tenants`: on whose behalf models are called, and what each of them may have."""

from pydantic import Field

from services.chassis.configuration.models import Count, Limit, Usd
from services.chassis.configuration.section import Section

DEFAULT_TENANT = "default"
"""Whose limits hold for calls that name no tenant, where such an entry exists."""


class BudgetSection(Section):
    """What a tenant's calls may cost, in USD; None is not limited."""

    per_day: Usd | None = None
    """From midnight to midnight, UTC."""
    per_month: Usd | None = None
    """A calendar month, UTC."""


class TenantSection(Section):
    """One tenant; what is None is not limited."""

    requests_per_minute: Limit | None = None
    tokens_per_minute: Limit | None = None
    """Of prompts and answers together, over all models."""
    concurrency: Count | None = None
    """Calls at once, over all models."""
    request_burst: Limit | None = None
    """Requests that may come at once after a quiet time; None is what ten seconds of the rate allow, at least 1."""
    budget: BudgetSection = Field(default_factory=BudgetSection)
