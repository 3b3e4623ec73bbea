"""The mapping file: which columns of somebody's data become which fields of the contract.

A field is a column's name, or one of `column`, `constant` or `template` ("cust-{CUSTOMER_ID}"),
with options. `datasets/mappings/handbook.yaml` is a complete example.
"""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml
from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from fraud.contract.transaction import FIELDS

REQUIRED: Final = (
    "transaction_id", "event_time", "customer_id", "card_id", "merchant_id", "amount", "currency", "channel",
)  # fmt: skip
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


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FieldMapping(_Strict):
    """Where one field comes from.

    `values` replaces what the column says, `default` stands for absent values and for those
    that `values` does not list. For `event_time` and known-at: `timezone` of times without an
    offset, `format` (strptime) of times that are not ISO 8601, `epoch` unit of plain numbers.
    `epoch` with an `origin` counts from there: seconds, minutes (`min`), hours or days since the data begin.
    For `amount`: `unit` major (12.34) or minor (1234), `decimal` the mark before the cents,
    `minor_digits` where a provider's minor units are not ISO 4217's, and `negative`: `refuse` (the
    default), or `absolute`, where the sign only says who pays.
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
    epoch: Literal["s", "ms", "us", "ns", "min", "h", "d"] | None = None
    origin: AwareDatetime | None = None
    row: bool = False
    tokenize: bool = False
    card_numbers: Literal["refuse", "none"] = "refuse"
    minor_digits: dict[str, Annotated[int, Field(ge=0, le=4)]] = {}
    negative: Literal["refuse", "absolute"] = "refuse"
    unit: Literal["major", "minor"] = "major"
    decimal: Literal[".", ","] = "."

    @model_validator(mode="after")
    def _one_source(self) -> FieldMapping:
        named = sum(source is not None for source in (self.column, self.constant, self.template)) + self.row
        if named != 1:
            raise ValueError("should name exactly one of column, constant or template (or row: true)")
        if self.epoch in ("min", "h", "d") and self.origin is None:
            raise ValueError(
                f"epoch {self.epoch} counts from an origin: say one, such as 2017-01-01T00:00:00Z"
            )
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


class LabelMapping(_Strict):
    """Which column says fraud, and when that became known: after `delay`, or at `known_at`.

    Only frauds become labels; with `keep_genuine`, genuine verdicts do too.
    """

    column: str
    fraud: tuple[Text, ...] = ("1", "true", "t", "yes", "y", "fraud", "fraudulent", "fraudster")
    genuine: tuple[Text, ...] = ("0", "false", "f", "no", "n", "genuine", "legitimate", "legit", "normal")
    delay: Delay | None = None
    known_at: FieldSource | None = None
    keep_genuine: bool = False
    source: Literal["chargeback", "analyst", "import"] = "import"

    @model_validator(mode="after")
    def _one_time(self) -> LabelMapping:
        if (self.delay is None) == (self.known_at is None):
            raise ValueError("should say either delay or known_at")
        if self.known_at is not None and self.known_at.column is None:
            raise ValueError("known_at should be a column")
        return self


class TruthMapping(_Strict):
    """What each fraud really was: written to the ground truth only, never a feature."""

    type: FieldSource


class SourceFormat(_Strict):
    """How to read text files; parquet needs none of it."""

    delimiter: Annotated[str, StringConstraints(min_length=1, max_length=1)] = ","
    encoding: str = "utf8"
    #: Words that stand for nothing, whatever their capitals. (NA is none of them: it is a country.)
    nothing: tuple[Text, ...] = ("null", "nan", "none", "n/a", "\\n", "nil", "<na>", "#n/a")


class Mapping(_Strict):
    """A whole mapping file."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}$")
    source: SourceFormat = SourceFormat()
    fields: dict[str, FieldSource]
    label: LabelMapping | None = None
    ground_truth: TruthMapping | None = None

    @model_validator(mode="after")
    def _whole_contract(self) -> Mapping:
        unknown = sorted(set(self.fields) - set(FIELDS))
        if unknown:
            raise ValueError(f"fields: {', '.join(unknown)} are not in the contract: {', '.join(FIELDS)}")
        missing = [name for name in REQUIRED if name not in self.fields]
        if missing:
            raise ValueError(f"fields: the contract also needs {', '.join(missing)}")
        if self.ground_truth is not None and self.label is None:
            raise ValueError("ground_truth describes frauds, so it needs a label")
        return self

    def tokenized(self) -> set[str]:
        """The source columns that tokens are made of."""
        return {column for source in self.fields.values() if source.tokenize for column in source.columns}

    def columns(self) -> set[str]:
        """Every source column that the mapping reads."""
        sources = list(self.fields.values())
        names = set()
        if self.label is not None:
            names.add(self.label.column)
            if self.label.known_at is not None:
                sources.append(self.label.known_at)
        if self.ground_truth is not None:
            sources.append(self.ground_truth.type)
        return names.union(*(source.columns for source in sources))


def load_mapping(path: Path) -> Mapping:
    """Read and validate a mapping file; MappingError names every part that is wrong."""
    try:
        # Text as it stands: 036 is a code and no octal number, NO a country and no negation.
        content: Any = yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)
    except yaml.YAMLError as error:
        raise MappingError(f"{path.name} is not YAML: {error}") from None
    except OSError as error:
        raise MappingError(f"{path} cannot be read: {error.strerror}") from None
    try:
        return Mapping.model_validate(content)
    except ValidationError as error:
        lines = [
            f"{'.'.join(str(part) for part in problem['loc']) or path.name}: {problem['msg']}"
            for problem in error.errors()
        ]
        raise MappingError("; ".join(lines)) from None
