"""A configuration with secrets where they belong, and the places that people paste them into instead."""

import json
from pathlib import Path
from typing import Any

from tests.support.certificates import CertificateFolder
from tests.support.planted_secrets import MARKER


def right_tree(folder: Path) -> dict[str, Any]:
    """Return a configuration that is right, with a secret wherever one may be named."""
    own = CertificateFolder(folder=folder / "own").section
    return {
        "providers": {
            "fake": {"kind": "openai", "base_url": "http://127.0.0.1:9", "api_key": {"env": "FAKE_API_KEY"}},
            "filed": {"kind": "openai", "base_url": "http://127.0.0.1:9", "api_key": {"file": str(folder / "filed")}},
        },
        "models": {MARKER: {"provider": "fake", "name": "a"}, "other": {"provider": "filed", "name": "b"}},
        "profiles": {"default": {"strategy": "single", "members": [{"model": MARKER}, {"model": "other"}]}},
        "limiter": {"store": {"kind": "redis", "password": {"env": "REDIS_PASSWORD"}}},
        "tls": own,
        "gateway": {"tls": {name: own[name] for name in ("certificate", "key")}, "keys_file": "keys.yaml"},
        "tenants": {"team": {"keys": []}},
    }


def misplaced(secret: str) -> dict[str, Any]:
    """Return what people paste a secret into, by name: what is put above the configuration."""
    provider = {"kind": "openai", "base_url": "http://127.0.0.1:9"}
    return {
        "plain api_key": {"providers": {"fake": {**provider, "api_key": secret}}},
        "api_key in a list": {"providers": {"fake": {**provider, "api_key": [secret]}}},
        "variable's name": {"providers": {"fake": {**provider, "api_key": {"env": secret}}}},
        "file's name": {"providers": {"fake": {**provider, "api_key": {"file": secret}}}},
        "key of a reference": {"providers": {"fake": {**provider, "api_key": {secret: "x", "value": secret}}}},
        "user of a URL": {"providers": {"fake": {**provider, "base_url": f"http://{secret}@127.0.0.1:9"}}},
        "password of a URL": {"providers": {"fake": {**provider, "base_url": f"http://u:{secret}@127.0.0.1:9"}}},
        "query of a URL": {"providers": {"fake": {**provider, "base_url": f"http://127.0.0.1:9?key={secret}"}}},
        "URL": {"providers": {"fake": {**provider, "base_url": secret}}},
        "secret header": {"providers": {"fake": {**provider, "headers": {"authorization": f"Bearer {secret}"}}}},
        "header": {"providers": {"fake": {**provider, "headers": {"x-custom": f"Bearer {secret}"}}}},
        "bare header": {"providers": {"fake": {**provider, "headers": {"x-custom": secret}}}},
        "kind": {"providers": {"fake": {**provider, "kind": secret}}},
        "unknown setting": {"providers": {"fake": {**provider, "token": secret}}},
        "plain password": {"limiter": {"store": {"password": secret}}},
        "password of redis's URL": {"limiter": {"store": {"url": f"redis://:{secret}@127.0.0.1"}}},
        "redis's URL": {"limiter": {"store": {"url": secret}}},
        "duration": {"limiter": {"store": {"timeout": secret}}},
        "telemetry": {"telemetry": {"endpoint": f"https://{secret}@collector"}},
        "switch": {"telemetry": {"capture_content": secret}},
        "listen": {"gateway": {"listen": secret}},
        "tls.key": {"tls": {"key": f"-----BEGIN PRIVATE KEY-----{secret}"}},
        "tls": {"tls": secret},
        "tenant's key": {"tenants": {"team": {"keys": [{"sha256": secret}]}}},
        "tenant's bare key": {"tenants": {"team": {"keys": [secret]}}},
        "tenant's key by its name": {"tenants": {"team": {"keys": [{secret: "x"}]}}},
        "profile of a tenant": {"tenants": {"team": {"profiles": [secret]}}},
        "model": {"profiles": {"default": {"members": [{"model": secret}]}}},
        "strategy": {"profiles": {"default": {"strategy": f"x {secret}"}}},
        "provider of a model": {"models": {MARKER: {"provider": secret}}},
        "section": secret,
        "name of a setting": {"limiter": {secret: 1}},
        "name of a section": {secret: {"listen": 1}},
        "name of a provider": {"providers": {secret: {"kind": "x"}}},
    }


def merged(base: dict[str, Any], over: object) -> dict[str, Any]:
    """Return a tree with another one above it; what is no tree stands in place of a section."""
    if not isinstance(over, dict):
        return {**base, "gateway": over}
    return base | {key: merged(base[key], value) if isinstance(value, dict) and isinstance(base.get(key), dict) else value for key, value in over.items()}


def as_variables(tree: object, path: str = "ENSEMBLE") -> dict[str, str]:
    """Return variables that say what a tree does, as far as they can."""
    if isinstance(tree, dict):
        return {name: text for key, value in tree.items() for name, text in as_variables(value, f"{path}__{key.upper()}").items()}
    return {path: tree if isinstance(tree, str) else json.dumps(tree)} if "__" in path else {}
