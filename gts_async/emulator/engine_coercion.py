"""How pydantic 1 reads untyped JSON, as small shapes to be combined: what it coerces, and what it says of the rest.

The engine reads request bodies and ie rows with pydantic 1.10; its 422 bodies and data messages show these words.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs

Shape = Callable[[object], Any]
"""Gives the coerced value, or raises Refused."""


@attrs.frozen
class Fault:
    """One thing that does not fit: where, pydantic's words for it, its type, and the numbers it names."""

    message: str
    type: str
    where: tuple[str | int, ...] = ()
    context: Mapping[str, object] | None = None

    def under(self, key: str | int) -> "Fault":
        """Give the same fault as seen from one level further out."""
        return attrs.evolve(self, where=(key, *self.where))


class Refused(Exception):
    """A value does not fit its shape; `faults` are in pydantic's order."""

    def __init__(self, *faults: Fault) -> None:
        super().__init__(faults)
        self.faults = faults


REQUIRED = object()
"""The default of a field that has none."""

MISSING = Fault("field required", "value_error.missing")
NULL = Fault("none is not an allowed value", "type_error.none.not_allowed")
NOT_DICT = Fault("value is not a valid dict", "type_error.dict")
NOT_TEXT = Fault("str type expected", "type_error.str")
NOT_INTEGER = Fault("value is not a valid integer", "type_error.integer")
NOT_LIST = Fault("value is not a valid list", "type_error.list")
NOT_KEYWORDS = Fault("keywords must be strings", "type_error")
NOT_TUPLE = Fault("value is not a valid tuple", "type_error.tuple")


@attrs.frozen
class Field:
    """A field of a record and what it is when absent."""

    shape: Shape
    default: object = REQUIRED


def text(min_length: int = 0, pattern: str | None = None) -> Shape:
    """Numbers become their str(), true becomes "True"; `pattern` has to match at the start only."""

    def read(value: object) -> str:
        _refuse_null(value)
        if not isinstance(value, str | int | float):
            raise Refused(NOT_TEXT)
        found = str(value)
        if len(found) < min_length:
            raise Refused(_too_few("characters", "any_str.min_length", min_length))
        if pattern is not None and re.match(pattern, found) is None:
            said = f'string does not match regex "{pattern}"'
            raise Refused(Fault(said, "value_error.str.regex", context={"pattern": pattern}))
        return found

    return read


def integer(above: int | None = None) -> Shape:
    """Fractions are cut off, true becomes 1, "1" becomes 1; no bound but `above`."""

    def read(value: object) -> int:
        _refuse_null(value)
        if not isinstance(value, str | int | float):
            raise Refused(NOT_INTEGER)
        try:
            number = int(value)
        except (ValueError, OverflowError) as error:
            raise Refused(NOT_INTEGER) from error
        if above is not None and number <= above:
            said = f"ensure this value is greater than {above}"
            raise Refused(Fault(said, "value_error.number.not_gt", context={"limit_value": above}))
        return number

    return read


def list_of(item: Shape | None = None, min_items: int = 0) -> Shape:
    """A list whose items fit `item`, anything if None."""

    def read(value: object) -> list[Any]:
        _refuse_null(value)
        if not isinstance(value, list):
            raise Refused(NOT_LIST)
        if len(value) < min_items:
            raise Refused(_too_few("items", "list.min_items", min_items))
        return value if item is None else _all(((i, item, v) for i, v in enumerate(value)))

    return read


def tuple_of(*items: Shape) -> Shape:
    """A list of exactly these."""

    def read(value: object) -> list[Any]:
        _refuse_null(value)
        if not isinstance(value, list):
            raise Refused(NOT_TUPLE)
        if len(value) != len(items):
            said = f"wrong tuple length {len(value)}, expected {len(items)}"
            lengths = {"actual_length": len(value), "expected_length": len(items)}
            raise Refused(Fault(said, "value_error.tuple.length", context=lengths))
        return _all((i, items[i], v) for i, v in enumerate(value))

    return read


def either(*options: Shape) -> Shape:
    """The first option that fits; if none does, the faults of all."""

    def read(value: object) -> Any:
        _refuse_null(value)
        faults: list[Fault] = []
        for option in options:
            try:
                return option(value)
            except Refused as refused:
                faults.extend(refused.faults)
        raise Refused(*faults)

    return read


def optional(shape: Shape) -> Shape:
    """Null, or `shape`."""

    def read(value: object) -> Any:
        return None if value is None else shape(value)

    return read


def record(**fields: Field) -> Shape:
    """An object with these fields, in this order; others are passed over. Whatever dict() takes counts as an object."""

    def read(value: object) -> dict[str, Any]:
        _refuse_null(value)
        document = as_dict(value)
        if document is None:
            raise Refused(NOT_DICT)
        if not all(isinstance(key, str) for key in document):
            raise Refused(NOT_KEYWORDS)
        found = {name: document.get(name, field.default) for name, field in fields.items()}
        given = [(name, fields[name].shape if name in document else _absent, found[name]) for name in fields]
        return dict(zip(fields, _all(given), strict=True))

    return read


def as_dict(value: object) -> dict[Any, Any] | None:
    """Give what dict() makes of `value` (an empty list or text is an empty dict), or None."""
    if isinstance(value, dict):
        return value
    if not isinstance(value, Iterable):
        return None
    try:
        return dict(value)
    except (TypeError, ValueError):
        return None


def _all(children: Iterable[tuple[str | int, Shape, object]]) -> list[Any]:
    values: list[Any] = []
    faults: list[Fault] = []
    for key, shape, value in children:
        try:
            values.append(shape(value))
        except Refused as refused:
            faults.extend(fault.under(key) for fault in refused.faults)
    if faults:
        raise Refused(*faults)
    return values


def _absent(default: object) -> object:
    if default is REQUIRED:
        raise Refused(MISSING)
    return default


def _refuse_null(value: object) -> None:
    if value is None:
        raise Refused(NULL)


def _too_few(what: str, kind: str, least: int) -> Fault:
    said = f"ensure this value has at least {least} {what}"
    return Fault(said, f"value_error.{kind}", context={"limit_value": least})


def as_json(faults: Sequence[Fault]) -> list[dict[str, object]]:
    """Give the faults as the ``detail`` of a 422."""
    entries = []
    for fault in faults:
        entry: dict[str, object] = {"loc": list(fault.where), "msg": fault.message, "type": fault.type}
        entries.append(entry | ({"ctx": fault.context} if fault.context is not None else {}))
    return entries


def as_text(faults: Sequence[Fault], name: str) -> str:
    """Give the faults as ``str(ValidationError)`` shows them for the model `name`."""
    lines = [f"{len(faults)} validation error{'s' * (len(faults) != 1)} for {name}"]
    for fault in faults:
        numbers = "".join(f"; {key}={value}" for key, value in (fault.context or {}).items())
        lines += [" -> ".join(map(str, fault.where)), f"  {fault.message} (type={fault.type}{numbers})"]
    return "\n".join(lines)
