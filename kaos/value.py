"""The base of every value of kaos: frozen, strict about unknown fields, validated once where it enters."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from kaos.errors import InvalidInputError


class Value(BaseModel):
    """A frozen value that is checked when it is made and refuses fields that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    @classmethod
    def parse(cls, document: bytes | str) -> Self:
        """Return the value that a JSON document holds.

        :raises InvalidInputError: the document does not describe one
        """
        try:
            return cls.model_validate_json(document)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "document"
            raise InvalidInputError(f"{cls.__name__}: {where}: {first['msg']}.") from error

    def encode(self) -> bytes:
        """Return the value as JSON, UTF-8 encoded, fields in their declared order."""
        return self.model_dump_json().encode()
