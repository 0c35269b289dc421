"""What the refiner takes of the configuration."""

from services.chassis.configuration import Configuration
from services.models.local_permits import LimiterDown
from services.refiner.settings import RefinerSettings


def test_without_a_word_nothing_stands_in_for_the_limiter() -> None:
    """Limits that cannot be kept are no limits, so whoever wants to go on without them must say so."""
    assert RefinerSettings.from_configuration(Configuration(), None).limiter_down == LimiterDown(policy="deny", share=0.25)


def test_its_own_section_says_what_stands_in() -> None:
    """Another service's section has no part in it."""
    sections = {"orchestrator": {"limiter_down": "allow", "limiter_down_share": 1.0}, "refiner": {"limiter_down": "allow", "limiter_down_share": 1.0}}
    sections["refiner"] = {"limiter_down": "local_share", "limiter_down_share": 0.5}
    settings = RefinerSettings.from_configuration(Configuration.model_validate(sections), None)
    assert settings.limiter_down == LimiterDown(policy="local_share", share=0.5)
