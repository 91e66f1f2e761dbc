"""Helpers of the spec's tests: a job from the text below `spec:`, and the message of a refused one."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import TypeAlias

import pytest

from engram.errors import ConfigurationError
from engram.spec import FederatedIncrementalJob, load_yaml, parse_job

HEAD = "apiVersion: engram.dev/v1alpha1\nkind: FederatedIncrementalJob\nmetadata: {name: digits}\n"

Parse: TypeAlias = Callable[[str], FederatedIncrementalJob]
Refuse: TypeAlias = Callable[[str], str]


def parse_spec(spec: str) -> FederatedIncrementalJob:
    """Return the job whose spec is the YAML text `spec`."""
    indented = textwrap.indent(textwrap.dedent(spec).strip(), "  ")
    text = f"{HEAD}spec:\n{indented}\n" if indented else HEAD
    return parse_job(load_yaml(text, "job.yaml"), "job.yaml")


@pytest.fixture
def parse() -> Parse:
    """Parse a spec."""
    return parse_spec


@pytest.fixture
def refuse() -> Refuse:
    """Return the message with which a spec is refused."""

    def message(spec: str) -> str:
        with pytest.raises(ConfigurationError) as caught:
            parse_spec(spec)
        assert caught.value.exit_code == 42
        return str(caught.value)

    return message
