"""The mapping file: which columns of somebody's data become which fields of the contract.

A field is a column's name, or one of `column`, `constant` or `template` ("cust-{CUSTOMER_ID}"),
with options (`datasets.fields`). The files in `datasets/mappings/` are complete examples.
"""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import AfterValidator, Field, StringConstraints, ValidationError, model_validator

from datasets.fields import Delay, FieldMapping, FieldSource, MappingError, Strict, Text
from fraud.contract.fields import FIELDS

REQUIRED: Final = (
    "transaction_id", "event_time", "customer_id", "card_id", "merchant_id", "amount", "currency", "channel",
)  # fmt: skip
#: Fields that say who somebody is, or where: never shown of a refused row.
PERSONAL: Final = ("customer_id", "card_id", "device_id", "ip", "latitude", "longitude")


class LabelMapping(Strict):
    """Which column says fraud, and when that became known: after `delay`, or at `known_at`.

    Only frauds become labels; with `keep_genuine`, genuine verdicts do too.
    """

    column: str
    fraud: tuple[Text, ...] = (
        "1", "true", "t", "yes", "y", "fraud", "fraudulent", "fraudster", "chargeback", "bad",
        "confirmed fraud", "confirmed_fraud",
    )  # fmt: skip
    genuine: tuple[Text, ...] = (
        "0", "false", "f", "no", "n", "genuine", "legitimate", "legit", "normal", "good", "ok", "valid",
        "not fraud", "not_fraud", "no fraud", "non-fraud", "non_fraud", "nonfraud",
    )  # fmt: skip
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


class TruthMapping(Strict):
    """What each fraud really was: written to the ground truth only, never a feature."""

    type: FieldSource


class JoinedFile(Strict):
    """A second file beside the data, whose row with the same `key` lends its columns to each row."""

    file: str
    key: str
    #: What the key is called in the second file, where that differs.
    key_there: str | None = None


def _codec(name: str) -> str:
    try:
        "".encode(name)
    except LookupError:
        raise ValueError(f"{name!r} is no encoding, such as utf8, utf-16, cp1252 or latin-1") from None
    return name


_OneMark = Annotated[str, StringConstraints(min_length=1, max_length=1)]


class SourceFormat(Strict):
    """How to read the files; parquet needs none of it but `join`.

    `duplicates: number` calls the second column of a name `name.1`, as pandas does. `records` is where the
    records of a JSON document stand (`notificationItems`), or the name of the element that is one in XML.
    """

    delimiter: _OneMark = ","
    quote: _OneMark = '"'
    encoding: Annotated[str, AfterValidator(_codec)] = "utf8"
    duplicates: Literal["refuse", "number"] = "refuse"
    records: str | None = None
    join: JoinedFile | None = None
    #: Words that stand for nothing, whatever their capitals. (NA is none of them: it is a country.)
    nothing: tuple[Text, ...] = (
        "null",
        "nan",
        "none",
        "n/a",
        "\\n",
        "nil",
        "<na>",
        "#n/a",
        "nat",
        "undefined",
    )


class Mapping(Strict):
    """A whole mapping file. Rows whose columns say something else than `only` lists are left out."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}$")
    source: SourceFormat = SourceFormat()
    only: dict[str, tuple[Text, ...]] = Field(default_factory=dict)
    fields: dict[str, FieldSource]
    label: LabelMapping | None = None
    ground_truth: TruthMapping | None = None

    @model_validator(mode="after")
    def _whole_contract(self) -> Mapping:
        unknown = sorted(set(self.fields) - set(FIELDS))
        if unknown:
            near = get_close_matches(unknown[0], FIELDS, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise ValueError(
                f"fields: {', '.join(unknown)} are not in the contract{hint}: {', '.join(FIELDS)}"
            )
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
        names = set(self.only)
        if self.label is not None:
            names.add(self.label.column)
            if self.label.known_at is not None:
                sources.append(self.label.known_at)
        if self.ground_truth is not None:
            sources.append(self.ground_truth.type)
        return names.union(*(source.columns for source in sources))

    def shown(self) -> set[str]:
        """The source columns that may be shown of a refused row: read, and not about a person."""
        personal = {name for field in PERSONAL if field in self.fields for name in self.fields[field].columns}
        return self.columns() - personal - self.tokenized()


def load_mapping(path: Path) -> Mapping:
    """Read and validate a mapping file; MappingError names every part that is wrong."""
    try:
        # Text as it stands: 036 is a code and no octal number, NO a country and no negation.
        content: Any = yaml.load(path.read_text(encoding="utf-8-sig"), yaml.BaseLoader)
    except yaml.YAMLError as error:
        raise MappingError(f"{path.name} is not YAML: {error}") from None
    except UnicodeDecodeError:
        raise MappingError(f"{path.name} should be text in UTF-8") from None
    except OSError as error:
        raise MappingError(f"{path} cannot be read: {error.strerror}") from None
    if not isinstance(content, dict):
        raise MappingError(f"{path.name} should hold name and fields; `tollgate import --suggest` writes one")
    try:
        return Mapping.model_validate(content)
    except ValidationError as error:
        lines = [_problem(problem, path) for problem in error.errors()]
        raise MappingError("; ".join(lines)) from None


def _problem(problem: Any, path: Path) -> str:
    where = ".".join(str(part) for part in problem["loc"]) or path.name
    said = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        near = get_close_matches(str(problem["loc"][-1]), _KNOWN, n=1)
        said = "is not known here" + (f": did you mean {near[0]}?" if near else "")
    return f"{where}: {said}"


_KNOWN: Final = tuple(
    {
        name
        for part in (Mapping, SourceFormat, LabelMapping, TruthMapping, JoinedFile, FieldMapping)
        for name in part.model_fields
    }
)
