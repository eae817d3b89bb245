"""Features that are fields of structs: what lists of structs and structs of lists have in common."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Self

import pyarrow as pa

from scanrnn_dist.source.layouts.layout import Asked, NamedFeatures
from scanrnn_dist.source.layouts.paths import Path, columns_asked_for, field_at, path_of


@dataclass(frozen=True)
class StructFields(NamedFeatures):
    """One column, or a field within structs, of whose structs some fields are read."""

    column: str
    features: tuple[str, ...]

    @staticmethod
    @abstractmethod
    def struct_of(type: pa.DataType) -> pa.StructType | None:
        """The structs whose fields are features, of a column of that type; None if it has none."""

    @classmethod
    def candidates(cls, schema: pa.Schema, asked: Asked) -> list[Self]:
        found = columns_asked_for(schema, asked.column, lambda type, _: cls.struct_of(type) is not None)
        chosen = ((name, cls.fitting(cls.struct_of(type), asked.features)) for name, type in found)
        return [cls(name, features) for name, features in chosen if features]

    def leaves(self, schema: pa.Schema) -> tuple[Path, ...]:
        above, struct = self._type(schema)
        return tuple((*above, *path_of(struct, name)) for name in self.features)

    @property
    def described(self) -> str:
        return f"column {self.column!r}, fields {self.features_told}"

    def fields(self, schema: pa.Schema) -> pa.StructType:
        return self._type(schema)[1]

    def _type(self, schema: pa.Schema) -> tuple[Path, pa.StructType]:
        path = path_of(schema, self.column)
        return path, self.struct_of(field_at(schema, path).type)
