"""What every type of the job file has in common: frozen, camelCase in YAML, unknown fields refused, every
field described.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

MUTABLE: dict[str, Any] = {"x-engram-mutable": True}
"""`json_schema_extra` of a field that may change after the run has started; every other typed field is
immutable."""

OPAQUE: dict[str, Any] = {"x-kubernetes-preserve-unknown-fields": True}
"""`json_schema_extra` of an object that Kubernetes types elsewhere and that the operator validates."""


class Spec(BaseModel):
    """Base of the job's types. Attributes are snake_case, YAML keys camelCase, values immutable."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        use_attribute_docstrings=False,
    )

    def dump(self) -> dict[str, Any]:
        """Return the value as plain YAML-able data with the file's own keys."""
        return self.model_dump(mode="json", by_alias=True)


Opaque = Annotated[dict[str, Any], Field(json_schema_extra=OPAQUE)]
"""An object of Kubernetes' own (volume source, pod template, resources) that the schema does not inline."""

DOTTED_PATH = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"
"""`package.module:Name`, the way a job names code of the user's own."""
