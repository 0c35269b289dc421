"""What a caller is told of a profile or model that it may not use: the kind of thing, and nothing that it could find out by asking."""

import pytest

from services.chassis.errors import NotAllowed
from services.gateway.caller import Caller
from services.gateway.planner import Planner
from services.gateway.profiles import Profile
from services.gateway.question import AskedMember, Question
from services.models.plan import Member

PLANNER = Planner({"default": Profile(name="default", strategy="single", members=(Member(member_id="quick", model="quick"),))}, ["quick"], lambda: "made-id")


@pytest.mark.parametrize(
    ("caller", "questions", "kind"),
    [
        (Caller(profiles=frozenset()), [Question(prompt="a"), Question(prompt="a", profile="gone")], "profile"),
        (
            Caller(models=frozenset({"other"})),
            [Question(prompt="a"), Question(prompt="a", members=(AskedMember(model="quick"),)), Question(prompt="a", members=(AskedMember(model="gone"),))],
            "model",
        ),
    ],
    ids=["profile", "model"],
)
def test_the_kind_is_told_and_not_whether_there_is_one(caller: Caller, questions: list[Question], kind: str) -> None:
    """What exists and what does not are refused in the same words, with the same metadata."""
    told = []
    for question in questions:
        with pytest.raises(NotAllowed) as refusal:
            PLANNER.order(question, caller)
        told.append((str(refusal.value), refusal.value.kind))
    assert len(set(told)) == 1
    assert told[0][1] == kind
    assert "gone" not in told[0][0]
