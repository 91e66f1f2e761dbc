"""Scalars and documents as `kubectl apply` reads them.

The expected values are those that sigs.k8s.io/yaml 1.4 (what kubectl links) sends as JSON.
"""

from __future__ import annotations

import json
import math
import string
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from engram.errors import ConfigurationError
from engram.spec.yaml_text import MOST_CHARACTERS, dump_yaml, load_documents, load_yaml, resolve_plain

KUBECTL: list[tuple[str, Any]] = [
    # booleans of YAML 1.1, in three spellings each and no other
    *[(word, True) for word in ("y", "Y", "yes", "Yes", "YES", "on", "On", "ON", "true", "True", "TRUE")],
    *[(word, False) for word in ("n", "N", "no", "No", "NO", "off", "Off", "OFF", "false", "False", "FALSE")],
    *[(word, word) for word in ("yEs", "oN", "tRUE", "nO", "t", "f", "none", "None")],
    *[(word, None) for word in ("~", "null", "Null", "NULL", "")],
    ("nULL", "nULL"),
    # integers
    ("0", 0),
    ("12", 12),
    ("+12", 12),
    ("-12", -12),
    ("012", 10),
    ("-012", -10),
    ("0o12", 10),
    ("0x1F", 31),
    ("0X1f", 31),
    ("-0x1F", -31),
    ("0b101", 5),
    ("-0b101", -5),
    ("1_000", 1000),
    ("1__0", 10),
    ("0_12", 10),
    ("_1", "_1"),
    ("08", 8),
    ("089", 89),
    ("00", 0),
    ("-0", 0),
    ("9223372036854775807", 9223372036854775807),
    ("0o8", "0o8"),
    ("0x", "0x"),
    ("0b2", "0b2"),
    # floats; one without a fraction is an integer after its way through JSON
    ("1e-3", 0.001),
    ("1E-3", 0.001),
    ("1e3", 1000),
    ("1e+3", 1000),
    ("1.0", 1),
    ("1.", 1),
    (".5", 0.5),
    ("+.5", 0.5),
    ("-.5", -0.5),
    ("0.05", 0.05),
    ("5.e-4", 0.0005),
    ("1_000.5", 1000.5),
    (".5_0", 0.5),
    (".5__0", ".5__0"),
    (".5_", ".5_"),
    (".5e1_0", 5_000_000_000),
    ("._5", "._5"),
    ("1e400", "1e400"),
    ("1e", "1e"),
    ("e3", "e3"),
    ("0x1p4", "0x1p4"),
    ("1.2.3", "1.2.3"),
    # neither base 60 nor dates
    ("1:30", "1:30"),
    ("190:20:30.15", "190:20:30.15"),
    ("2024-01-01", "2024-01-01"),
    ("80%", "80%"),
    ("500m", "500m"),
    ("1Gi", "1Gi"),
    ("-a", "-a"),
    (".", "."),
    ("+", "+"),
    ("inf", "inf"),
    ("nan", "nan"),
    ("my_package.module:Name", "my_package.module:Name"),
]


@pytest.mark.parametrize(("text", "expected"), KUBECTL, ids=[text or "empty" for text, _ in KUBECTL])
def test_plain_scalars_are_what_kubectl_sends(text: str, expected: Any) -> None:
    value = resolve_plain(text)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize("text", [".inf", "-.inf", "+.Inf", ".nan", ".NaN"])
def test_what_json_cannot_carry_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"job\.yaml: line 1, column 4: .* not a number that JSON"):
        load_yaml(f"a: {text}", "job.yaml")


def test_integers_beyond_64_bits_become_floats() -> None:
    assert load_yaml("a: 18446744073709551615") == {"a": 1.8446744073709552e19}


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_that_json_writes_is_read_back(number: float) -> None:
    assert resolve_plain(json.dumps(number)) == number


@given(st.text(string.printable, max_size=12))
def test_a_quoted_scalar_stays_text(text: str) -> None:
    assert load_yaml(f"a: {json.dumps(text)}") == {"a": text}


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**63 - 1)
        | st.floats(allow_nan=False, allow_infinity=False).filter(lambda x: math.isfinite(x))
        | st.text(string.ascii_letters + string.digits + " .-_:%~", max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(string.ascii_letters, max_size=4), inner)
        ),
        max_leaves=8,
    ).filter(lambda value: value is not None)
)
def test_json_is_yaml(value: Any) -> None:
    assert load_yaml(json.dumps(value)) == value


def test_quotes_and_blocks_make_text() -> None:
    text = "a: 'on'\nb: \"012\"\nc: |\n  1e-3\nd: >-\n  yes\n"
    assert load_yaml(text) == {"a": "on", "b": "012", "c": "1e-3\n", "d": "yes"}


def test_keys_become_json_text() -> None:
    assert load_yaml("on: 1\n012: 2\n1.5: 3\n0x10: 4\n") == {"true": 1, "10": 2, "1.5": 3, "16": 4}


def test_tags_of_scalars_must_fit() -> None:
    assert load_yaml("a: !!str 012\nb: !!int 12\nc: !!float 3\n") == {"a": "012", "b": 12, "c": 3}
    with pytest.raises(ConfigurationError, match="not of the type that its tag says"):
        load_yaml("a: !!int text")


@pytest.mark.parametrize(
    "text", ["a: !!python/object/apply:os.system [ls]", "a: !x 1", "a: !!binary aGk=", "a: !!set {b}"]
)
def test_other_tags_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"tag .* is not allowed: remove it"):
        load_yaml(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a: 1\n\tb: 2\n",
            "j: line 2, column 1: not YAML: a tab where YAML wants spaces: indent with spaces",
        ),
        ("a: [1, 2\n", "j: line 2, column 1: not YAML: expected ',' or ']'"),
        ("a: b: c\n", "j: line 1, column 5: not YAML: mapping values are not allowed here: indent"),
        ("a: 'x\n", "j: line 2, column 1: not YAML: found unexpected end of stream"),
        ("a: *x\n", "j: line 1, column 4: not YAML: found undefined alias 'x': define the anchor"),
        ("a: 1\na: 2\n", "j: line 2, column 1: the key 'a' is given twice: keep one of them"),
        ("x: {b: 1, b: 2}\n", "j: line 1, column 11: the key 'b' is given twice"),
        ("1: a\n'1': b\n", "j: line 2, column 1: the key '1' is given twice"),
        ("? [a]\n: b\n", "j: line 1, column 3: a key must be text: quote it"),
        ("~: b\n", "j: line 1, column 1: a key must be text: quote it"),
        (
            "a: \x07\n",
            "j: line 1: not YAML: the character U+0007 is not allowed: save the file as UTF-8 text",
        ),
        ("", "j: found no document where one is meant: write one"),
        ("# only a comment\n", "j: found no document where one is meant"),
        ("a: 1\n---\nb: 2\n", "j: found 2 documents where one is meant: keep one"),
        ("a: &x [*x]\n", "j: line 1, column 4: nested too deeply, or an alias contains itself"),
        ("[" * 150 + "]" * 150, "nested too deeply"),
        (
            "a: {b: 1, <<: {b: 2}}\n",
            "j: line 1, column 11: kubectl lets << override what stands before it: write",
        ),
        (
            "<<: {a: 1}\n<<: {a: 2}\n",
            "j: line 2, column 1: kubectl lets << override what stands before it: write",
        ),
        ("<<: 5\n", "j: line 1, column 5: << merges mappings only"),
    ],
)
def test_bad_text_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_yaml(text, "j")
    assert message in str(caught.value)
    assert caught.value.file == "j"


def test_very_deep_nesting_is_refused_without_a_traceback() -> None:
    with pytest.raises(ConfigurationError, match="nested too deeply"):
        load_yaml("[" * 5000 + "]" * 5000)


def test_aliases_cannot_explode() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    with pytest.raises(ConfigurationError, match=r"more than 200,000 values, aliases expanded"):
        load_yaml("\n".join(lines))


def test_a_text_that_is_too_long_is_refused_unread() -> None:
    with pytest.raises(ConfigurationError, match="more than a job can hold"):
        load_yaml("#" * (MOST_CHARACTERS + 1))


def test_anchors_and_merges() -> None:
    text = "base: &b {x: 1, u: 2}\na: *b\nm: {<<: *b, u: 3}\nl: {<<: [{z: 1}, *b]}\n"
    loaded = load_yaml(text)
    assert loaded["a"] == {"x": 1, "u": 2}
    assert loaded["m"] == {"x": 1, "u": 3}
    assert loaded["l"] == {"x": 1, "u": 2, "z": 1}


def test_documents_are_split_and_empty_ones_skipped() -> None:
    assert load_documents("---\na: 1\n---\n# nothing\n---\n---\nb: 2\n...\n") == [{"a": 1}, {"b": 2}]


def test_differs_from_pyyaml_where_kubectl_does() -> None:
    text = "a: 1e-3\nb: 1:30\nc: 2024-01-01\nd: 08\n"
    assert load_yaml(text) != yaml.safe_load(text)
    assert load_yaml(text) == {"a": 0.001, "b": "1:30", "c": "2024-01-01", "d": 8}


PLAIN_DATA = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
).filter(lambda value: "inf" not in repr(value))


@given(PLAIN_DATA)
def test_what_is_dumped_is_read_back(value: Any) -> None:
    assert load_yaml(dump_yaml([value])) == [value]


@given(st.sampled_from([spelling for spelling, _ in KUBECTL]))
def test_text_that_looks_like_something_else_stays_text(spelling: str) -> None:
    found = load_yaml(dump_yaml({"a": spelling, spelling: "a"}))
    assert found == {"a": spelling, spelling: "a"}
    assert all(isinstance(value, str) for value in found.values())


@pytest.mark.parametrize(
    "text", ["\x85", "a\u2028b", "\u2029", "a\n\x85", "\ufeff", "\x07", "a: b # c", "\t", " a "]
)
def test_characters_that_yaml_would_fold_are_kept(text: str) -> None:
    assert load_yaml(dump_yaml({text: [text]})) == {text: [text]}


def test_equal_parts_are_written_in_full() -> None:
    part = {"limits": {"memory": "2Gi"}}
    assert "&" not in dump_yaml({"a": part, "b": part})
