"""The two shapes of a prompt with material in it: for the one who replies to the conversation, and for the one who does a task about it."""

from collections.abc import Sequence

from services.models.conversation import Message, Role
from services.models.prompting.delimiters import escape, framed
from services.models.prompting.visible_text import sanitize


def reply_layout(instructions: str, conversation: Sequence[Message], *, material: str, promise: str) -> tuple[Message, ...]:
    """Our instructions, the caller's own, the material as data, then the conversation as it was, so that its last message is what is replied to.

    With the material at the end, small models go on writing drafts instead of a reply (seen with SmolLM2-135M).
    """
    leading = next((position for position, message in enumerate(conversation) if message.role is not Role.SYSTEM), len(conversation))
    return (
        Message(role=Role.SYSTEM, text=instructions),
        *conversation[:leading],
        Message(role=Role.USER, text=material),
        Message(role=Role.ASSISTANT, text=promise),
        *conversation[leading:],
    )


def task_layout(instructions: str, *, material: Sequence[str], request: str) -> tuple[Message, ...]:
    """Our instructions, then all else as data in one message that ends with what is to be done: whoever does a task must not reply to the conversation."""
    return (Message(role=Role.SYSTEM, text=instructions), Message(role=Role.USER, text="\n\n".join((*material, request))))


def conversation_block(conversation: Sequence[Message], nonce: str) -> str:
    """Return the conversation as data, each turn between delimiters of its own, so that no turn can pass for another speaker's."""
    turns = (framed(f"TURN {position} {turn.role.value}", escape(sanitize(turn.text)), nonce) for position, turn in enumerate(conversation, start=1))
    return "\n\n".join(turns)
