"""Filters, ``column=value`` or ``column=[value, ...]``, as conditions of a query."""

from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

from ncbook.store.names import plain

NULL_TYPE = '"NULL"'  # DuckDB's word for a column that has held nothing but nulls so far


def condition(
    filters: Mapping[str, Any], types: Mapping[str, str], also: Iterable[str] = ()
) -> tuple[str, list[Any]]:
    """An SQL condition on columns of these types, and its parameters.

    Raises:
        ValueError: a filter that names no column (those of ``also`` are named as valid, too), or
            whose value is not of the column's type.
    """
    conditions, values = ["true"], []
    for name, value in filters.items():
        if name not in types:
            raise unknown_column(name, [*also, *types])
        if value is None:
            continue
        wanted = _plain_list(value)
        _check_type(name, types[name], wanted)
        if wanted and types[name] != NULL_TYPE:
            conditions.append(f"{quoted(name)} IN (SELECT unnest(?))")
            values.append(wanted)
        else:
            conditions.append("false")
    return " AND ".join(conditions), values


def unknown_column(name: str, valid: Iterable[str]) -> ValueError:
    """The error for a filter that names no column."""
    listed = ", ".join(dict.fromkeys(valid))
    return ValueError(f"no column {name!r} in this store to filter by; its columns: {listed}")


def quoted(name: str) -> str:
    """A column's name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def _plain_list(value: Any) -> list[Any]:
    value = plain(value)
    many = isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)
    return [plain(item) for item in value] if many else [value]


def _check_type(name: str, type_: str, values: list[Any]) -> None:
    if type_ == NULL_TYPE:
        return
    wanted = {"VARCHAR": str, "BOOLEAN": bool}.get(type_, Real)
    for value in values:
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
            word = {str: "strings", bool: "true or false", Real: "numbers"}[wanted]
            raise ValueError(f"column {name!r} holds {word}, and cannot be {value!r}")
