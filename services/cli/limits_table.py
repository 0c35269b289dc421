"""The limiter's state in words: tables for a person, lines for a log."""

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Column, Table

from ensemble.v1 import limiter_service_pb2, model_state_pb2
from services.cli.receipt_table import breaker_name, plain, span


def state_view(state: limiter_service_pb2.GetStateResponse, address: str, *, said: str = "") -> Group:
    """Return everything that the limiter told; `said` is a word about the connection."""
    headline = plain("; ".join([f"limiter {address}", *limiter_words(state)]))
    if state.degraded or state.HasField("learning_for"):
        headline.stylize("yellow")
    parts: list[RenderableType] = [headline]
    if said:
        word = plain(said)
        word.stylize("yellow")
        parts.append(word)
    if state.models:
        parts.append(models_table(state.models))
    if state.tenants:
        parts.append(_tenants_table(state.tenants))
    return Group(*parts)


def models_table(models: Iterable[model_state_pb2.ModelState]) -> Table:
    """Return a row for each model."""
    table = _table("model", "in flight", "left of its limits", "breaker", "also")
    for model in models:
        cells = (limit_words(model.limits), breaker_words(model.breaker), further_words(model))
        table.add_row(plain(model.model), str(model.in_flight), *(plain("\n".join(cell)) for cell in cells))
    return table


def model_line(model: model_state_pb2.ModelState) -> str:
    """Return the same in one line."""
    return "; ".join([f"model {model.model}: {model.in_flight} in flight", *limit_words(model.limits), *breaker_words(model.breaker), *further_words(model)])


def tenant_line(tenant: model_state_pb2.TenantState) -> str:
    """Return a tenant's levels and budgets in one line."""
    return "; ".join([f"tenant {tenant.tenant}: {tenant.in_flight} in flight", *limit_words(tenant.limits), *map(budget_words, tenant.budgets)])


def limiter_words(state: limiter_service_pb2.GetStateResponse) -> list[str]:
    """Return what holds for the limiter as a whole."""
    said = [f"configuration version {state.config_version}"]
    if state.degraded:
        said.append("degraded: its store is down, this is its local share")
    if state.HasField("learning_for"):
        said.append(f"learning: its store lost its data, for {span(state.learning_for)} more it allows half of each concurrency")
    return said


def limit_words(limits: Iterable[model_state_pb2.LimitLevel]) -> list[str]:
    """Return what is left of each limit, and what holds of it now where that is less than the limit."""
    return [f"{level.name} {level.remaining}/{level.limit}" + (f", effective {level.effective}" if level.effective < level.limit else "") for level in limits]


def breaker_words(breaker: model_state_pb2.BreakerSnapshot) -> list[str]:
    """Return what a breaker lets through, until when it does not, and why."""
    said = breaker_name(breaker.state)
    if breaker.HasField("open_for"):
        said += f", next probe in {span(breaker.open_for)}" if breaker.open_for.ToTimedelta() else ", the next probe may be tried"
    if breaker.probes:
        said += f", {breaker.probes} {'probe' if breaker.probes == 1 else 'probes'} under way"
    window = f"window {breaker.window_calls} calls, {breaker.window_failures} failed, {breaker.window_slow} slow"
    return [said, window, *([f"opened {breaker.open_count} x of late"] if breaker.open_count else [])]


def further_words(model: model_state_pb2.ModelState) -> list[str]:
    """Return what else stands above a model's limits."""
    said = []
    if model.HasField("provider_backoff"):
        said.append(f"provider asks to wait {span(model.provider_backoff)}")
    if model.override:
        said.append(f"override {_name(model_state_pb2.OverrideMode, model.override)} for {span(model.override_for)} more")
    if model.metrics_only:
        said.append("measured only, nothing is denied")
    if model.would_have_denied:
        said.append("would have denied " + ", ".join(f"{reason} {count}" for reason, count in sorted(model.would_have_denied.items())))
    return said


def budget_words(budget: model_state_pb2.BudgetLevel) -> str:
    """Return what was spent of a budget, and when the next period begins."""
    said = f"{budget.period} {usd(budget.spent_micro_usd)} of {usd(budget.limit_micro_usd)} spent, {usd(budget.reserved_micro_usd)} reserved"
    if budget.unreconciled_micro_usd:
        said += f", {usd(budget.unreconciled_micro_usd)} unreconciled"
    return f"{said}, resets in {span(budget.resets_in)}"


def usd(micro_usd: int) -> str:
    """Return an amount in USD with as many decimals as it needs, at least two."""
    whole, fraction = divmod(abs(micro_usd), 1_000_000)
    return f"{'-' if micro_usd < 0 else ''}${whole}.{f'{fraction:06d}'.rstrip('0').ljust(2, '0')}"


def _tenants_table(tenants: Sequence[model_state_pb2.TenantState]) -> Table:
    table = _table("tenant", "in flight", "left of its limits", "budgets")
    for tenant in tenants:
        cells = (limit_words(tenant.limits), map(budget_words, tenant.budgets))
        table.add_row(plain(tenant.tenant), str(tenant.in_flight), *(plain("\n".join(cell)) for cell in cells))
    return table


def _table(*headings: str) -> Table:
    """Return a table that breaks lines where it is too narrow, and never leaves out a part of a name."""
    return Table(*(Column(heading, overflow="fold") for heading in headings), show_lines=True)


def _name(kind: Any, value: int) -> str:
    """Return a value's name without its enum's; one of a later version by its number."""
    entry = kind.DESCRIPTOR.values_by_number.get(value)
    prefix = kind.DESCRIPTOR.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return f"number {value}" if entry is None else str(entry.name.removeprefix(prefix))
