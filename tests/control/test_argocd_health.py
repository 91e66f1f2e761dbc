"""The health check in docs/argocd is what Argo CD runs: Lua, with the object as `obj`."""

from pathlib import Path
from typing import Any

import pytest
from lupa import LuaRuntime

SCRIPT = (Path(__file__).parents[2] / "docs/argocd/health.lua").read_text(encoding="utf-8")


def table(lua: LuaRuntime, value: Any) -> Any:
    if isinstance(value, dict):
        return lua.table_from({key: table(lua, item) for key, item in value.items()})
    if isinstance(value, list):
        return lua.table_from([table(lua, item) for item in value])
    return value


def health(status: dict[str, Any] | None, generation: int = 1) -> tuple[str, str]:
    lua = LuaRuntime(unpack_returned_tuples=True)
    job: dict[str, Any] = {"metadata": {"generation": generation}}
    if status is not None:
        job["status"] = status
    lua.globals().obj = table(lua, job)
    found = lua.execute(SCRIPT)
    return found.status, found.message


def status_of(*true: str, **more: Any) -> dict[str, Any]:
    names = ("Accepted", "Complete", "Failed", "Suspended", "Stalled", "Reconciling")
    conditions = [
        {"type": name, "status": "True" if name in true else "False", "message": f"about {name}"}
        for name in names
    ]
    return {"conditions": conditions, "observedGeneration": 1, "message": "task 2 of 5", **more}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (None, ("Progressing", "waiting for the operator")),
        ({}, ("Progressing", "waiting for the operator")),
        (status_of("Accepted", "Reconciling"), ("Progressing", "task 2 of 5")),
        (status_of("Accepted", "Complete"), ("Healthy", "about Complete")),
        (status_of("Failed", "Stalled"), ("Degraded", "about Failed")),
        (status_of("Stalled"), ("Degraded", "about Stalled")),
        (status_of("Suspended"), ("Suspended", "about Suspended")),
    ],
)
def test_health_follows_the_conditions(status: dict[str, Any] | None, expected: tuple[str, str]) -> None:
    assert health(status) == expected


def test_an_edit_that_the_operator_has_not_seen_is_progress() -> None:
    assert health(status_of("Complete"), generation=2)[0] == "Progressing"
