"""The configuration as text: what check-config shows, and the hash that says whether two processes run with the same one."""

import hashlib
import re

import yaml

from services.chassis.api_keys import without_secrets
from services.chassis.configuration.document import plain_value
from services.chassis.configuration.schema import Configuration

MASK = "**********"
_SCHEME = re.compile(r"(bearer|basic|token|key)\b", re.IGNORECASE)


class _Dumper(yaml.SafeDumper):
    """Quotes every text that our own reader would take for something else."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain_value(text) is text else "'")


_Dumper.add_representer(str, _represent_text)


def render(configuration: Configuration) -> str:
    """Return the merged result as YAML that can be loaded again; secrets are references there, and named with a mask in the comment at its head.

    The value of a header that looks like a secret, which belongs elsewhere, is a mask.
    """
    secrets = [
        f"#   providers.{name}.api_key: {MASK if provider.api_key else 'not set'} ({provider.api_key_reference.source})\n"
        for name, provider in configuration.providers.items()
        if provider.api_key_reference is not None
    ]
    return "".join(["# Secrets:\n", *secrets] if secrets else []) + _body(configuration, masked=True)


def configuration_hash(configuration: Configuration) -> str:
    """Return 12 hexadecimal figures of SHA-256 over everything but the secrets themselves; equal exactly where the settings are."""
    return hashlib.sha256(_body(configuration).encode()).hexdigest()[:12]


def _suspect(value: str) -> bool:
    return _SCHEME.match(value) is not None or without_secrets(value) != value


def _body(configuration: Configuration, *, masked: bool = False) -> str:
    tree = configuration.model_dump(mode="json", by_alias=True)
    for provider in tree["providers"].values():
        if provider["api_key"]:
            provider["api_key"] = {source: place for source, place in provider["api_key"].items() if place is not None}
        if masked:
            provider["headers"] = {name: MASK if _suspect(value) else value for name, value in provider["headers"].items()}
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
