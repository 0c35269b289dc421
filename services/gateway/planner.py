"""From a question to the run that answers it: everything checked, nothing left to a profile.

    question -> violations of its fields and panel -> profile allowed? -> profile -> models allowed? -> models -> order
                                                      `- NotAllowed      `- NotFound  `- NotAllowed    `- NotFound

Violations come before what is not allowed or not found, and all of them at once. A name that the caller may not use is refused as such whether or not it
exists, and nothing of a profile that he may not use counts before, so that nobody finds out by asking.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from uuid import uuid4

from services.chassis.errors import FieldViolation, InvalidInput, NotAllowed, NotFound
from services.gateway.caller import ANYONE, Caller
from services.gateway.order import Order
from services.gateway.panel import calls_of, panel_violations, seated
from services.gateway.profiles import Profile, judges_of, named_models, options_over, sampling_over, usable
from services.gateway.question import NO_GENERATION, NO_OPTIONS, Question
from services.gateway.validation import violations_of
from services.models.conversation import Message, Role
from services.models.plan import OWN_SAMPLES, RunPlan

DEFAULT_PROFILE = "default"
MOST_VIOLATIONS = 32
"""Most violations told of one request, so that the error fits into the trailers of its call."""


def new_run_id() -> str:
    """Return 32 random hexadecimal digits."""
    return uuid4().hex


class Planner:
    """Makes plans of questions."""

    def __init__(self, profiles: Mapping[str, Profile], models: Collection[str], new_id: Callable[[], str] = new_run_id) -> None:
        self._profiles = dict(profiles)
        self._models = frozenset(models)
        self._new_id = new_id

    def order(self, question: Question, caller: Caller = ANYONE, *, content: bytes = b"", at: str = "") -> Order:
        """Return what answers a caller's question, found in its request under the path `at`, which is empty or ends with a dot.

        `content` is the question's digest, which the order carries. Raises `InvalidInput` with every violation, at most 32, `NotAllowed` for what the
        caller may not use, and `NotFound` for an unknown profile or model.
        """
        plan = self._plan(question, caller, at)
        profile = self._profiles[question.profile or DEFAULT_PROFILE]
        own = bool(question.members or question.strategy or question.options is not NO_OPTIONS or question.generation is not NO_GENERATION)
        return Order(
            plan=plan,
            request_id=question.request_id,
            content=content,
            profile="" if own else question.profile or DEFAULT_PROFILE,
            check_deadline=not question.skip_deadline_check,
            cache_seconds=profile.cache_seconds,
        )

    def _plan(self, question: Question, caller: Caller, at: str) -> RunPlan:
        violations = violations_of(question)
        name = question.profile or DEFAULT_PROFILE
        profile = self._profiles.get(name) if caller.may_use_profile(name) else None
        panel = seated(question.members) or (profile.members if profile else ())
        if question.members:
            violations += panel_violations(panel)
        strategy = question.strategy or (profile.strategy if profile else "")
        calls = 0 if strategy in OWN_SAMPLES else calls_of(panel)
        quorum = question.options.quorum
        if quorum is not None and 0 < calls < quorum:
            violations.append(FieldViolation(field="options.quorum", description=f"must be at most the number of calls in the panel, which is {calls}"))
        if violations:
            raise InvalidInput([FieldViolation(field=at + violation.field, description=violation.description) for violation in violations[:MOST_VIOLATIONS]])
        if not caller.may_use_profile(name):
            raise NotAllowed("this tenant may not use that profile", kind="profile")
        if profile is None:
            raise NotFound("profile", name, tuple(known for known, one in self._profiles.items() if usable(one, caller)))

        options = profile.options if question.options is NO_OPTIONS else options_over(profile.options, question.options)
        if quorum is None and options.quorum is not None and 0 < calls < options.quorum:
            # The profile's quorum was meant for the profile's own panel; a request that seats fewer did not ask for it.
            options = replace(options, quorum=calls)
        if strategy != profile.strategy:
            # The profile's parameters are options that its own strategy alone understands, and its quorum is meant for it; another strategy would refuse what
            # the request never said.
            options = replace(options, parameters=question.options.parameters or {}, quorum=quorum)
        named, judges = named_models(panel, options), tuple(judges_of(options))
        if not all(map(caller.may_call, (*named, *judges))):
            raise NotAllowed("this tenant may not use one of the models that would be called", kind="model")
        # Whether a strategy takes judges, and whether they exist, is the strategy's to say; but where one does not, the words would list every model there is.
        for model in named if caller.models is None else (*named, *judges):
            if model not in self._models:
                raise NotFound("model", model, tuple(filter(caller.may_call, self._models)))
        return RunPlan(
            run_id=question.request_id or self._new_id(),
            tenant=caller.tenant,
            messages=_conversation(question),
            strategy=strategy,
            members=panel,
            options=options,
            sampling=profile.sampling if question.generation is NO_GENERATION else sampling_over(profile.sampling, question.generation),
            include_candidates=question.include_candidates,
            max_cost_micro_usd=profile.max_cost_micro_usd if question.max_cost_micro_usd is None else question.max_cost_micro_usd,
            response_schema=question.response_schema,
        )


def _conversation(question: Question) -> tuple[Message, ...]:
    if question.messages:
        return tuple(Message(role=Role(message.role), text=message.text) for message in question.messages)
    asked = Message(role=Role.USER, text=question.prompt)
    return (Message(role=Role.SYSTEM, text=question.system), asked) if question.system else (asked,)
