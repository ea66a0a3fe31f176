"""A name with options, as one word or as a table: how configurations name rules, attacks and the like."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from horovod_byz.common.words import parse_word

__all__ = ["Named"]


class Named(BaseModel):
    """A name with options: `{name = "krum", f = 6}`, or in one word `"krum:f=6"`."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str

    @model_validator(mode="before")
    @classmethod
    def _from_word(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        name, options = parse_word(value)
        return {"name": name, **options}

    @property
    def options(self) -> dict[str, Any]:
        """Everything but the name."""
        return dict(self.model_extra or {})

    def __str__(self) -> str:
        return ":".join(
            filter(None, [self.name, ",".join(f"{key}={value}" for key, value in self.options.items())])
        )
