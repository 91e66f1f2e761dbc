"""Quantities as Kubernetes writes them."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.spec.quantities import parse_quantity


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", "0"),
        ("1", "1"),
        ("+1", "1"),
        ("-1", "-1"),
        ("1.", "1"),
        (".5", "0.5"),
        ("0.1", "0.1"),
        ("500m", "0.5"),
        ("100n", "1E-7"),
        ("100u", "1E-4"),
        ("1k", "1000"),
        ("1M", "1000000"),
        ("1.5G", "1500000000"),
        ("1T", "1E+12"),
        ("1P", "1E+15"),
        ("1E", "1E+18"),
        ("1Ki", "1024"),
        ("1Mi", "1048576"),
        ("1.5Gi", "1610612736"),
        ("1Ti", "1099511627776"),
        ("1Pi", "1125899906842624"),
        ("1Ei", "1152921504606846976"),
        ("1e3", "1000"),
        ("1E3", "1000"),
        ("1.5e-3", "0.0015"),
        ("1E+2", "100"),
    ],
)
def test_what_kubernetes_takes(text: str, expected: str) -> None:
    assert parse_quantity(text) == Decimal(expected)


@pytest.mark.parametrize(("number", "expected"), [(2, "2"), (0.5, "0.5"), (1e-3, "0.001"), (1e22, "1E+22")])
def test_numbers_of_yaml_are_quantities(number: float, expected: str) -> None:
    assert parse_quantity(number) == Decimal(expected)


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("", "write a quantity such as 500m, 2, 512Mi or 1Gi"),
        ("Gi", "write a quantity such as"),
        ("1 Gi", "write 1Gi without a space"),
        ("1GB", "Kubernetes writes G or Gi for GB"),
        ("512mb", "Kubernetes writes M or Mi for mb"),
        ("1K", "Kubernetes writes k or Ki for K"),
        ("1kB", "Kubernetes writes k or Ki for kB"),
        ("2TiB", "Kubernetes writes Ti for TiB"),
        ("1e", "write a quantity such as"),
        ("1.5.2", "write a quantity such as"),
        ("--1", "write a quantity such as"),
        ("1mi", "write a quantity such as"),
        ("1\n", "write a quantity such as"),
        ("\u0661", "write a quantity such as"),
    ],
)
def test_what_kubernetes_refuses(text: str, advice: str) -> None:
    with pytest.raises(ValueError, match=advice):
        parse_quantity(text)


@pytest.mark.parametrize("value", [True, None, [1], {}])
def test_other_types_are_no_quantities(value: object) -> None:
    with pytest.raises(ValueError, match="write a quantity"):
        parse_quantity(value)  # type: ignore[arg-type]


@given(st.decimals(-(10**6), 10**6, places=3), st.sampled_from(["", "m", "k", "Mi", "Gi"]))
def test_suffixes_are_factors(number: Decimal, suffix: str) -> None:
    factor = Decimal({"": "1", "m": "0.001", "k": "1000", "Mi": "1048576", "Gi": "1073741824"}[suffix])
    assert parse_quantity(f"{number}{suffix}") == number * factor
