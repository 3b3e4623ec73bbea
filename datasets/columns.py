"""Somebody's columns as text: what stands for nothing, ids that went through a float, addresses, degrees.

Every function works on whole Arrow arrays, and says row by row what it could not read instead of
raising; MappingError is for a column that cannot be read at all.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datasets.fields import FieldMapping, MappingError
from datasets.tokens import read_key, token_column
from fraud.contract.canonical import normal_address
from fraud.contract.fields import EXPECTED

Mask = np.ndarray[Any, np.dtype[np.bool_]]
Ints = np.ndarray[Any, np.dtype[np.int64]]

_POWER: Final = r"^\s*[+-]?\d{1,18}(\.\d{1,17})?[eE][+-]?\d{1,2}\s*$"
#: Whole numbers as a float prints them; and one whose last digits a float has lost.
_WHOLE: Final = r"^(\d{1,18})\.0+$"
_LOST: Final = r"^\s*\d(\.\d+)?[eE]\+\d{1,3}\s*$"
#: Floats hold whole numbers exactly below this.
_EXACT: Final = {"float": 2.0**24, "double": 2.0**53, "halffloat": 2.0**11}

#: Which rows could not be read, and why.
Problems = list[tuple[Mask, str]]


def text(column: pa.Array) -> pa.Array:
    """`column` as strings; empty and NaN become null, and 7.0 reads as 7 whatever the type."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return text(column.dictionary_decode())
    if pa.types.is_floating(kind):
        column = pc.if_else(pc.is_finite(column), column, None).cast(pa.float64())
        whole = pc.and_(pc.equal(pc.floor(column), column), pc.less(pc.abs(column), 1e18))
        integer = pc.if_else(whole, column, 0.0).cast(pa.int64()).cast(pa.string())
        return pc.if_else(whole, integer, column.cast(pa.string()))
    try:
        strings = column.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise MappingError(f"a column of type {kind} cannot be read as text") from None
    return pc.if_else(pc.equal(strings, ""), None, strings)


def tidy(strings: pa.Array) -> pa.Array:
    """`strings` composed (Unicode NFC) and trimmed, as the contract has text; what is left empty is null."""
    if not pc.all(pc.string_is_ascii(strings)).as_py():
        strings = pc.utf8_normalize(strings, form="NFC")
    strings = pc.utf8_trim_whitespace(strings)
    return pc.if_else(pc.equal(strings, ""), None, strings)


def without_words(batch: pa.RecordBatch, words: tuple[str, ...], names: set[str]) -> pa.RecordBatch:
    """`batch` with null in place of `words` (NULL, nan, ...) and blanks in the text columns of `names`."""
    value_set = pa.array(["", *(word.lower() for word in words)], pa.string())
    for place, name in enumerate(batch.schema.names):
        column = batch.column(place)
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if name in names and (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            said = pc.utf8_lower(pc.utf8_trim_whitespace(column)).cast(pa.string())
            nothing = pc.is_in(said, value_set=value_set)
            if pc.any(nothing).as_py():
                batch = batch.set_column(place, name, pc.if_else(nothing, None, column))
    return batch


def normal_addresses(column: pa.Array) -> tuple[pa.Array, Problems]:
    """IP addresses in the contract's form, each distinct one once."""
    codes = column.dictionary_encode()
    made = [normal_address(value) for value in codes.dictionary.to_pylist()]
    found = pa.array(made, pa.string()).take(codes.indices)
    broken = mask_of(pc.and_(pc.is_valid(column), pc.is_null(found)))
    return found, [(broken, f"should be {EXPECTED['ip']}")]


def field_text(batch: pa.RecordBatch, source: FieldMapping) -> pa.Array:
    """The field that `source` describes, as strings."""
    rows = batch.num_rows
    if source.constant is not None:
        return pa.array([source.constant]).take(pa.array(np.zeros(rows, dtype=np.int64)))
    if source.template is not None:
        parts: list[Any] = []
        for literal, column in source.pieces():
            parts.append(pa.scalar(literal))
            if column is not None:
                parts.append(_whole(batch.column(column)))
        joined = pc.binary_join_element_wise(*parts, pa.scalar(""))
        values = joined if isinstance(joined, pa.Array) else pa.array([joined.as_py()] * rows, pa.string())
    else:
        values = _whole(batch.column(source.column))
    values = tidy(values)
    if source.tokenize:
        values = token_column(values, read_key())
    if source.values is not None:
        place = pc.index_in(values, value_set=pa.array(list(source.values), pa.string()))
        replaced = pa.array(list(source.values.values()), pa.string()).take(place)
        # What is not listed stays as it is, to be refused by name, unless there is a default.
        values = replaced if source.default is not None else pc.coalesce(replaced, values)
    return values if source.default is None else pc.fill_null(values, source.default)


def values(batch: pa.RecordBatch, source: FieldMapping) -> pa.Array:
    """The column itself, with its own type, unless the mapping makes text of it."""
    if source.column is not None and source.values is None and source.default is None:
        return batch.column(source.column)
    return field_text(batch, source)


def lost_digits(batch: pa.RecordBatch, source: FieldMapping) -> Mask:
    """Rows whose id went through a float that cannot hold it: 1.23457E+11, or a whole number beyond 2^53.

    Different ids have become one there, and nothing tells which.
    """
    lost = np.zeros(batch.num_rows, dtype=bool)
    for name in source.columns:
        column = batch.column(name)
        if pa.types.is_floating(column.type):
            limit = _EXACT[str(column.type)]
            lost |= mask_of(pc.fill_null(pc.greater_equal(pc.abs(column), limit), False))
        elif pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            lost |= mask_of(pc.fill_null(pc.match_substring_regex(column, _LOST), False))
    return lost


def degrees(column: pa.Array) -> tuple[pa.Array, Problems]:
    """A latitude or longitude as float64; NaN and empty are absent."""
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        values = column.cast(pa.float64())
        return pc.if_else(pc.is_nan(values), None, values), []
    strings = text(column)
    readable = pc.match_substring_regex(strings, r"^\s*[+-]?\d{1,3}(\.\d{1,30})?\s*$")
    values = pc.utf8_trim_whitespace(pc.if_else(readable, strings, None)).cast(pa.float64())
    broken = mask_of(pc.fill_null(pc.invert(readable), False))
    return values, [(broken, "should be decimal degrees")]


def without_powers(strings: pa.Array) -> pa.Array:
    """`strings` with 1e+05, as spreadsheets and floats are printed, as 100000."""
    power = mask_of(pc.fill_null(pc.match_substring_regex(strings, _POWER), False))
    if not power.any():
        return strings
    written = [
        f"{Decimal(value.strip()):f}" if odd else value
        for value, odd in zip(strings.to_pylist(), power, strict=True)
    ]
    return pa.array(written, pa.string())


def numbers(strings: pa.Array, pattern: str) -> tuple[Ints, Ints, Mask, Mask]:
    """Whole part, twelve decimals as an integer, whether negative, whether readable."""
    found = pc.extract_regex(strings, pattern=pattern)
    readable = mask_of(found.is_valid())
    sign, whole, part = (pc.fill_null(piece, "") for piece in found.flatten())
    digits = pc.utf8_rpad(part, 12, "0")
    return (
        pc.if_else(pa.array(readable), whole, "0").cast(pa.int64()).to_numpy(zero_copy_only=False),
        digits.cast(pa.int64()).to_numpy(zero_copy_only=False),
        mask_of(pc.equal(sign, "-")),
        readable,
    )


def matches(strings: pa.Array, pattern: str) -> Mask:
    """Which strings match; nulls do not."""
    return mask_of(pc.fill_null(pc.match_substring_regex(strings, pattern), False))


def mask_of(values: pa.Array) -> Mask:
    """An Arrow array of booleans without nulls, for numpy."""
    return np.array(values.to_numpy(zero_copy_only=False), dtype=bool)


def readable(column: pa.Array) -> list[str | None]:
    """`column` as text for people: whole numbers without a point, anything odd by its own repr."""
    try:
        values: list[str | None] = text(column).to_pylist()
        return values
    except MappingError:
        return [None if value is None else repr(value) for value in column.to_pylist()]


def _whole(column: pa.Array) -> pa.Array:
    """`column` as text, and ``7.0`` as 7: a column with gaps, after a program read it as floats."""
    strings = text(column)
    if pa.types.is_integer(column.type):
        return strings
    return pc.replace_substring_regex(strings, _WHOLE, r"\1")
