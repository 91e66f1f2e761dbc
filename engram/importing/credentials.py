"""Tells what looks like a credential: an import never copies one, nor shows its value.

References stay (a Secret's name is no secret). What is left out is named, with what to write instead.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import Any

REMEDY = "looks like a credential and is never copied: keep it in a Secret and name that in podTemplate"

_WORDS = frozenset(
    {"secret", "password", "passwd", "pwd", "passphrase", "token", "credential", "credentials", "apikey"}
)
_PAIRS = frozenset({("access", "key"), ("api", "key"), ("private", "key"), ("secret", "key")})
_REFERENCE = re.compile(r"(ref|name|path|file|url)$", re.IGNORECASE)
_IN_URL = re.compile(r"://[^/\s@:]{0,256}:[^/\s@]{1,256}@")
_ACCESS_KEY = re.compile(r"\b(AKIA|ASIA)[0-9A-Z]{16}\b")
_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")


def names_credential(name: str) -> bool:
    """Tell whether a variable, key or option of this name holds a credential: `ACCESS_KEY`, `apiKey`."""
    words = [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]
    return bool(_WORDS & set(words)) or any(pair in _PAIRS for pair in itertools.pairwise(words))


def is_credential(text: str) -> bool:
    """Tell whether `text` is or holds a credential, whatever it is called."""
    return any(pattern.search(text) for pattern in (_IN_URL, _ACCESS_KEY, _PRIVATE_KEY))


def holds_credential(value: Any) -> bool:
    """Tell whether there is a credential anywhere in `value`: by its key, its variable's name, or its look.

    Words of a command line count too: `--secret-key=...`, or the word after `--secret-key`.
    """
    if isinstance(value, str):
        option, equals, setting = value.partition("=")
        return is_credential(value) or bool(equals and setting and names_credential(option))
    if isinstance(value, list):
        options = [
            isinstance(item, str) and item.startswith("-") and names_credential(item) for item in value
        ]
        return any(options) or any(map(holds_credential, value))
    if not isinstance(value, Mapping):
        return False
    name, literal = value.get("name"), value.get("value")
    if isinstance(name, str) and names_credential(name) and literal not in (None, ""):
        return True
    return any(
        holds_credential(below)
        or (isinstance(below, str) and bool(below) and names_credential(key) and not _REFERENCE.search(key))
        for key, below in value.items()
    )
