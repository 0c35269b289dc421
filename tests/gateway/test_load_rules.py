"""What the configuration's bounds come to."""

import pytest

from services.gateway.load_rules import LoadRules
from tests.support.gateways import configured


def test_the_section_is_taken() -> None:
    """Every key of it."""
    load = {"concurrency": 20, "queue": 8, "longest_wait": "2s", "tenant_share": 0.25, "deadline_check": False, "most_calls": 30}
    assert LoadRules.from_configuration(configured("127.0.0.1:9", load=load)) == LoadRules(
        concurrency=20, queue=8, longest_wait_seconds=2.0, tenant_share=0.25, deadline_check=False, most_calls=30
    )


def test_the_cap_on_calls_follows_the_places() -> None:
    """Where it is not set, it leaves as much room beside the places as they are."""
    assert LoadRules.from_configuration(configured("127.0.0.1:9")).most_calls == 1024
    assert LoadRules.from_configuration(configured("127.0.0.1:9", load={"concurrency": 2000, "queue": 0})).most_calls == 4000


@pytest.mark.parametrize(("share", "places", "queue"), [(1.0, 10, 5), (0.5, 5, 2), (0.01, 1, 1)])
def test_a_share_is_rounded_down_but_never_to_nothing(share: float, places: int, queue: int) -> None:
    """A tenant may always have one run and one that waits."""
    rules = LoadRules(concurrency=10, queue=5, longest_wait_seconds=1.0, tenant_share=share)
    assert (rules.tenant_places, rules.tenant_queue) == (places, queue)


@pytest.mark.parametrize(
    ("share", "most", "calls"),
    [(0.5, 100, 50), (0.5, 20, 12), (0.01, 100, 11), (1.0, 100, 100), (1.0, 15, 15)],
    ids=["its share", "its runs are more", "one that waits", "all", "all there are"],
)
def test_a_tenant_may_have_its_share_of_calls_but_all_its_runs(share: float, most: int, calls: int) -> None:
    """What admission lets it have is never refused by the bound on calls."""
    assert LoadRules(concurrency=10, queue=5, longest_wait_seconds=1.0, tenant_share=share, most_calls=most).tenant_calls == calls
