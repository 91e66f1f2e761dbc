"""YAML text to plain data as `kubectl apply` reads it, so that a job file means the same with and without it.

kubectl parses with sigs.k8s.io/yaml (go-yaml v2) and sends JSON. Its scalars are those of YAML 1.1 without
base 60: `on` is true, `012` is 10, `1_000` is 1000, `1e-3` is a number (which PyYAML makes a string), `08` is
8, `1:30` and `2024-01-01` are strings. Through JSON a float with no fraction becomes an integer. On top of
that we refuse what kubectl lets pass in silence or what cannot be sent: a key given twice, NaN and infinity,
tags, and aliases that expand without bound. `dump_yaml` is the way back: it quotes what would be read as
something else.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Iterator
from typing import Any

import yaml

from engram.errors import ConfigurationError
from engram.spec.nesting import DEEPEST

MOST_CHARACTERS = 3 * 1024 * 1024
"""Longest text that is parsed: twice what an API server stores."""
MOST_VALUES = 200_000
"""Most values of one document, aliases expanded."""
WIDTH = 110
"""Columns after which long text that is written is folded."""
BREAKS = frozenset("\x85\u2028\u2029")
"""Line breaks of YAML 1.1 that only double quotes keep as they are."""

_TAG = "tag:yaml.org,2002:"
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
}
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_INTEGER = re.compile(r"[-+]?(0[xX][0-9a-fA-F]+|0[oO]?[0-7]+|0[bB][01]+|0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_POINT_FIRST = re.compile(r"\.[0-9]+(_[0-9]+)*([eE][-+]?[0-9]+(_[0-9]+)*)?")
"""A float that begins with its point: go-yaml hands it to Go's ParseFloat, which takes `_` between digits."""
_LARGEST, _SMALLEST = 2**63 - 1, -(2**63)


class _Loader(yaml.SafeLoader):
    """PyYAML's reader, scanner and composer; plain scalars keep the tag `plain` and are resolved by us."""

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        """Return the tag of a node without an explicit one."""
        if kind is yaml.ScalarNode:
            return "plain" if implicit[0] else _TAG + "str"
        return _TAG + ("seq" if kind is yaml.SequenceNode else "map")


class _Dumper(yaml.SafeDumper):
    """PyYAML's writer; text that would not come back as itself is quoted, and nothing is an alias."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write equal parts in full each time."""
        return True

    def text(self, text: str) -> yaml.Node:
        """Return the node of a string."""
        try:
            same = resolve_plain(text) == text and BREAKS.isdisjoint(text)
        except ValueError:
            same = False
        return self.represent_scalar(_TAG + "str", text, None if same else '"')


_Dumper.add_representer(str, _Dumper.text)


def resolve_plain(text: str) -> str | int | float | bool | None:
    """Return the value of the plain scalar `text`, as go-yaml v2 resolves it and JSON carries it.

    Raises ValueError for NaN and infinity, which no JSON can carry.
    """
    if text in _WORDS:
        return _WORDS[text]
    if _NOT_FINITE.fullmatch(text):
        raise ValueError(text)
    if text[0] not in "+-.0123456789":
        return text
    plain = text.replace("_", "")
    if text[0] != "." and _INTEGER.fullmatch(plain):
        return _json_number(_integer(plain))
    if (_POINT_FIRST.fullmatch(text) if text[0] == "." else _FLOAT.fullmatch(plain)) is not None:
        number = float(plain)
        return _json_number(number) if math.isfinite(number) else text
    return text


def _integer(text: str) -> int:
    """Return the integer that Go's strconv.ParseInt(text, 0, 64) reads, `0` alone meaning octal."""
    sign, digits = (-1, text[1:]) if text[0] == "-" else (1, text.removeprefix("+"))
    if len(digits) > 1 and digits[0] == "0" and digits[1].isdigit():
        return sign * int(digits, 8)
    return sign * int(digits, 0)


def _json_number(number: int | float) -> int | float:
    """Return the number after its way through JSON: an integer where it is one of 64 bits, else a float."""
    if isinstance(number, float) and not number.is_integer():
        return number
    if _SMALLEST <= number <= _LARGEST:
        return int(number)
    return float(number)


def load_yaml(text: str, file: str = "") -> Any:
    """Return the value of the only document in `text`; `file` is what errors name.

    Raises ConfigurationError (with line and column) for text that is no YAML, no document at all or
    several of them.
    """
    documents = load_documents(text, file)
    if len(documents) != 1:
        found = f"{len(documents)} documents" if documents else "no document"
        remedy = "keep one" if documents else "write one"
        raise ConfigurationError(f"found {found} where one is meant", file=file, remedy=remedy)
    return documents[0]


def dump_yaml(value: Any) -> str:
    """Return plain data as YAML text from which `load_yaml` (and kubectl) read the same data again.

    PyYAML's own dumper leaves the text `1e-3` without quotes, which both would read as a number.
    """
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=WIDTH)


def load_documents(text: str, file: str = "") -> list[Any]:
    """Return the values of all documents in `text` (separated by `---`), without the empty ones.

    Raises ConfigurationError with line and column for text that is no YAML or that we refuse.
    """
    if len(text) > MOST_CHARACTERS:
        raise ConfigurationError(
            f"{len(text):,} characters are more than a job can hold",
            file=file,
            remedy=f"keep it under {MOST_CHARACTERS:,}; data belong into volumes",
        )
    try:
        return [value for value in _values(text, file) if value is not None]
    except yaml.MarkedYAMLError as error:
        raise _not_yaml(error, file) from None
    except yaml.reader.ReaderError as error:
        position = text.count("\n", 0, error.position) + 1
        raise ConfigurationError(
            f"line {position}: not YAML: the character U+{int(error.character):04X} is not allowed",
            file=file,
            remedy="save the file as UTF-8 text",
        ) from None
    except RecursionError:
        raise ConfigurationError(
            "nested too deeply", file=file, remedy=f"nest at most {DEEPEST} levels"
        ) from None


def _values(text: str, file: str) -> Iterator[Any]:
    """Yield the value of each document in turn."""
    loader = _Loader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            if node is not None:
                yield _Construction(file).value(node, 0)
    finally:
        loader.dispose()


class _Construction:
    """Turns the nodes of one document into values, counting them so that aliases cannot explode."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.count = 0

    def refuse(self, node: yaml.Node, problem: str, remedy: str) -> ConfigurationError:
        mark = node.start_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}"
        return ConfigurationError(f"{where}: {problem}", file=self.file, remedy=remedy)

    def value(self, node: yaml.Node, depth: int) -> Any:
        self.count += 1
        if self.count > MOST_VALUES:
            raise self.refuse(
                node, f"more than {MOST_VALUES:,} values, aliases expanded", "use fewer aliases"
            )
        if depth > DEEPEST:
            raise self.refuse(
                node, "nested too deeply, or an alias contains itself", f"nest at most {DEEPEST} levels"
            )
        if isinstance(node, yaml.MappingNode):
            self.check_tag(node, "map")
            return self.mapping(node, depth)
        if isinstance(node, yaml.SequenceNode):
            self.check_tag(node, "seq")
            return [self.value(item, depth + 1) for item in node.value]
        return self.scalar(node)

    def check_tag(self, node: yaml.Node, expected: str) -> None:
        if node.tag != _TAG + expected:
            tag = node.tag.replace(_TAG, "!!")
            raise self.refuse(node, f"the tag {tag} is not allowed", "remove it")

    def scalar(self, node: yaml.Node) -> Any:
        if node.tag == _TAG + "str":
            return node.value
        if node.tag not in ("plain", *(_TAG + kind for kind in ("int", "float", "bool", "null"))):
            self.check_tag(node, "str")
        try:
            value = resolve_plain(node.value)
        except ValueError:
            raise self.refuse(
                node, f"{node.value} is not a number that JSON can carry", "write a number"
            ) from None
        if node.tag == "plain" or node.tag == _TAG + _kind(value):
            return value
        if node.tag == _TAG + "float" and type(value) is int:
            return value
        raise self.refuse(node, f"{node.value!r} is not of the type that its tag says", "remove the tag")

    def mapping(self, node: yaml.MappingNode, depth: int) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == "plain" and key_node.value == "<<":
                if own or merged:
                    problem = "kubectl lets << override what stands before it"
                    raise self.refuse(key_node, problem, "write << once, as the first key")
                merged = self.merges(value_node, depth)
                continue
            key = self.key(key_node)
            if key in own:
                raise self.refuse(key_node, f"the key {key!r} is given twice", "keep one of them")
            own[key] = self.value(value_node, depth + 1)
        return {**merged, **own}

    def merges(self, node: yaml.Node, depth: int) -> dict[str, Any]:
        """Return what `<<: *alias` (or a list of aliases, the first wins) brings."""
        value = self.value(node, depth + 1)
        found: dict[str, Any] = {}
        for part in value if isinstance(value, list) else [value]:
            if not isinstance(part, dict):
                raise self.refuse(node, "<< merges mappings only", "name a mapping by its alias")
            for key, item in part.items():
                found.setdefault(key, item)
        return found

    def key(self, node: yaml.Node) -> str:
        """Return a key as JSON has it: numbers and booleans become their JSON text."""
        value: Hashable = self.scalar(node) if isinstance(node, yaml.ScalarNode) else None
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, str | int | float):
            return str(value)
        raise self.refuse(node, "a key must be text", "quote it")


def _kind(value: object) -> str:
    """Return the YAML tag's name of a resolved value."""
    return {bool: "bool", int: "int", float: "float", type(None): "null"}.get(type(value), "str")


def _not_yaml(error: yaml.MarkedYAMLError, file: str) -> ConfigurationError:
    """Return PyYAML's error in our words: the place first, then what the scanner saw, then what to write."""
    mark = error.problem_mark or error.context_mark
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    problem = error.problem or "cannot be read"
    remedy = "check the indentation and the punctuation there"
    if "'\\t'" in problem:
        problem, remedy = "a tab where YAML wants spaces", "indent with spaces"
    elif "undefined alias" in problem:
        remedy = "define the anchor (&name) before its alias (*name), or quote the text"
    elif "mapping values are not allowed" in problem:
        remedy = "indent it as its siblings, or quote text that contains ': '"
    return ConfigurationError(f"{where}not YAML: {problem}", file=file, remedy=remedy)
