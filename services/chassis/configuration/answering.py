"""What of a configuration decides which answer a request gets."""

import hashlib
import json

from services.chassis.configuration.schema import Configuration


def answering_digest(configuration: Configuration) -> bytes:
    """Return SHA-256 over providers, models and profiles but their secrets: another one wherever an answer of before may no longer be right."""
    tree = configuration.model_dump(mode="json", by_alias=True, include={"providers", "models", "profiles"})
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).digest()
