"""Where one field of the contract comes from: a column, a constant or a template, and how it is spelt."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

_PLACEHOLDER: Final = re.compile(r"\{([^{}]+)\}")
_DELAY: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])")
_DELAY_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class MappingError(ValueError):
    """A mapping that cannot be used, or that does not fit the data; the text says why."""


def parse_delay(value: object) -> object:
    """``7d``, ``12h``, ``30m`` or ``0s`` as a timedelta."""
    if isinstance(value, str):
        match = _DELAY.fullmatch(value.strip())
        if match is None:
            raise ValueError("should be a number and a unit, such as 7d, 12h or 30m")
        return timedelta(**{_DELAY_UNITS[match.group(2)]: float(match.group(1))})
    return value


def _text(value: object) -> object:
    """YAML's true, 1 and 1.5 as the text that a column's values are compared with."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


Text = Annotated[str, BeforeValidator(_text)]
Delay = Annotated[timedelta, BeforeValidator(parse_delay), Field(ge=timedelta(0))]


class Strict(BaseModel):
    """Part of a mapping file: what it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class FieldMapping(Strict):
    """Where one field comes from.

    `values` replaces what the column says, `default` stands for absent values and for those
    that `values` does not list. For `event_time` and known-at: `timezone` of times without an
    offset, `format` (strptime) of times that are not ISO 8601, `epoch` unit of plain numbers; with
    an `origin` they count from there: seconds, minutes (`min`), hours or days since the data begin.
    `sheet` is a spreadsheet's day number (days since 1899-12-30, local to `timezone`).
    For `amount`: `unit` major (12.34) or minor (1234), `decimal` the mark before the cents, `thousands` the
    mark between groups of three digits, `symbol` what stands before or behind the number, `rounding` of
    what is finer than the minor unit, `minor_digits` where a provider's minor units are not ISO 4217's,
    `negative`: `refuse` (the default), `absolute`, where the sign only says who pays, or `leave_out`, where
    it marks refunds, and `zero`: `keep`, or `leave_out` for verifications of a card.
    `tokenize` makes a keyed token of the column, so that card numbers may be keys; `row` numbers the rows.
    `card_numbers: none` says that the field's ids are no card numbers although they look like some.
    """

    column: str | None = None
    constant: Text | None = None
    template: str | None = None
    values: dict[Text, Text] | None = None
    default: Text | None = None
    timezone: str | None = None
    format: str | None = None
    epoch: Literal["s", "ms", "us", "ns", "min", "h", "d", "sheet"] | None = None
    origin: AwareDatetime | None = None
    row: bool = False
    tokenize: bool = False
    card_numbers: Literal["refuse", "none"] = "refuse"
    minor_digits: dict[str, Annotated[int, Field(ge=0, le=4)]] = Field(default_factory=dict)
    negative: Literal["refuse", "absolute", "leave_out"] = "refuse"
    zero: Literal["keep", "leave_out"] = "keep"
    unit: Literal["major", "minor"] = "major"
    decimal: Literal[".", ","] = "."
    thousands: Literal[",", ".", " ", "'"] | None = None
    symbol: Annotated[str, Field(min_length=1, max_length=8)] | None = None
    rounding: Literal["refuse", "half_up", "half_even", "down"] = "refuse"

    @model_validator(mode="after")
    def _one_source(self) -> FieldMapping:
        named = sum(source is not None for source in (self.column, self.constant, self.template)) + self.row
        if named != 1:
            raise ValueError("should name exactly one of column, constant or template (or row: true)")
        if self.epoch in ("min", "h", "d") and self.origin is None:
            raise ValueError(
                f"epoch {self.epoch} counts from an origin: say one, such as 2017-01-01T00:00:00Z"
            )
        if self.epoch == "sheet" and self.origin is not None:
            raise ValueError("epoch sheet counts from a spreadsheet's own day: leave the origin out")
        if self.thousands == self.decimal:
            raise ValueError("thousands and decimal should be different marks")
        if self.format is not None and "%Z" in self.format:
            raise ValueError("%Z reads a zone's name and forgets it: write %z, or leave the format out")
        return self

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, zone: str | None) -> str | None:
        if zone is not None:
            try:
                ZoneInfo(zone)
            except (ZoneInfoNotFoundError, ValueError, OSError):
                raise ValueError(f"{zone!r} is not a time zone, such as UTC or Europe/Berlin") from None
        return zone

    @property
    def columns(self) -> tuple[str, ...]:
        """The source columns that this field reads."""
        if self.column is not None:
            return (self.column,)
        return tuple(_PLACEHOLDER.findall(self.template or ""))

    @property
    def groups(self) -> str | None:
        """The mark between groups of three digits: with a decimal comma a point, if nothing else is said."""
        return self.thousands or ("." if self.decimal == "," else None)

    def pieces(self) -> list[tuple[str, str | None]]:
        """The template as pairs of literal text and the column after it (None at the end)."""
        parts = _PLACEHOLDER.split(self.template or "")
        return [
            (text, parts[2 * place + 1] if 2 * place + 1 < len(parts) else None)
            for place, text in enumerate(parts[::2])
        ]


def _column(value: object) -> object:
    return {"column": value} if isinstance(value, str) else value


FieldSource = Annotated[FieldMapping, BeforeValidator(_column)]
