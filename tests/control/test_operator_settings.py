from __future__ import annotations

from dataclasses import fields

import pytest

from engram.errors import ConfigurationError
from engram_operator.settings import Settings, read_settings, variable


def test_nothing_said_is_the_defaults() -> None:
    assert read_settings([], {"PATH": "/bin"}) == Settings()


def test_the_environment_says_what_the_chart_sets() -> None:
    environ = {
        "ENGRAM_OPERATOR_IMAGE": "engram-runtime:1",
        "ENGRAM_OPERATOR_NAMESPACES": "lab, other,lab",
        "ENGRAM_OPERATOR_ALLOW_SERVICE_ACCOUNTS": "True",
        "ENGRAM_OPERATOR_CONCURRENCY": "3",
        "ENGRAM_OPERATOR_POLL_SECONDS": "0.5",
    }
    found = read_settings([], environ)
    assert found.image == "engram-runtime:1"
    assert found.namespaces == ("lab", "other")
    assert found.allow_service_accounts is True
    assert found.concurrency == 3
    assert found.poll_seconds == 0.5


def test_the_command_line_wins() -> None:
    environ = {"ENGRAM_OPERATOR_IMAGE": "a", "ENGRAM_OPERATOR_HEALTH_PORT": "1"}
    found = read_settings(["--image", "b", "-n", "lab", "--health-port=0"], environ)
    assert (found.image, found.namespaces, found.health_port) == ("b", ("lab",), 0)


def test_every_field_but_the_one_worked_out_is_an_option() -> None:
    with pytest.raises(SystemExit) as found:
        read_settings(["--help"], {})
    assert found.value.code == 0
    for item in fields(Settings):
        if item.name != "in_cluster":
            assert "option" in item.metadata, item.name


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("concurrency", "many", "'many' is not a whole number: write a whole number from 1 to 256"),
        ("concurrency", "0", "0 is out of range: write a whole number from 1 to 256"),
        ("concurrency", "1.5", "'1.5' is not a whole number: write a whole number from 1 to 256"),
        ("poll_seconds", "fast", "'fast' is not a number: write a number from 0.1"),
        ("poll_seconds", "nan", "nan is out of range: write a number from 0.1"),
        ("health_port", "70000", "70000 is out of range: write a whole number from 0 to 65535"),
        ("allow_service_accounts", "si", "'si' is neither true nor false: write one"),
        (
            "image_pull_policy",
            "Sometimes",
            "'Sometimes' is not known: write one of IfNotPresent, Always, Never",
        ),
        ("log_level", "loud", "'loud' is not known: write one of debug, info, warning, error"),
    ],
)
def test_a_wrong_value_is_one_sentence(name: str, value: str, sentence: str) -> None:
    with pytest.raises(ConfigurationError) as found:
        read_settings([], {variable(name): value})
    assert str(found.value) == f"{variable(name)}: {sentence}"
    option = f"--{name.replace('_', '-')}"
    with pytest.raises(ConfigurationError) as found:
        read_settings([option, value], {})
    assert str(found.value) == f"{option}: {sentence}"


def test_a_misspelt_variable_is_not_ignored() -> None:
    with pytest.raises(ConfigurationError, match="ENGRAM_OPERATOR_IMGE: no such setting"):
        read_settings([], {"ENGRAM_OPERATOR_IMGE": "x"})
