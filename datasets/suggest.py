"""A mapping to edit, from a sample of somebody's file: `tollgate import --suggest FILE`.

Columns are guessed by their names, how they are written by their values; every guess says so in a comment.
The sample is imported with it, and what would be refused, or looks odd, stands on top of the mapping.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow as pa
import yaml
from pydantic import ValidationError

from datasets import columns
from datasets.convert import convert
from datasets.fields import MappingError
from datasets.guesses import Guess, guess_amount, guess_channel, guess_currency, guess_event_time
from datasets.mapping import REQUIRED, Mapping, SourceFormat
from datasets.sources import column_names, read_batches, source_files
from datasets.suspicions import suspicions
from fraud.contract.cards import looks_like_card_number

_SAMPLE: Final = 20_000
#: What columns are called, most telling first, without anything but letters and digits.
_NAMES: Final = {
    "transaction_id": (
        "transactionid txid txnid transid transnum paymentid pspreference id rrn reference orderid"
    ),
    "event_time": (
        "eventtime txdatetime transdatetranstime transactiontime "
        "transactiondate timestamp datetime createdat created time date "
        "unixtime transactiondt step ts at"
    ),
    "customer_id": (
        "customerid customer cust userid user clientid accountid account "
        "nameorig payerid shopperreference sender ccnum"
    ),
    "card_id": "cardid cardtoken cardnumber ccnum pan card card1 token",
    "merchant_id": ("merchantid merchant mer shop shopid terminalid namedest payee productcd beneficiary"),
    "amount": "amount amt txamount transactionamt transactionamount value total sum",
    "currency": "currency currencycode cur ccy",
    "channel": "channel entrymode posentrymode paymentchannel type usechip",
    "terminal_id": "terminalid terminal tid",
    "device_id": "deviceid device dev fingerprint imei",
    "ip": "ip ipaddress clientip shopperip",
    "merchant_category": "mcc merchantcategorycode merchantcategory category",
    "country": "country countrycode merchantcountry",
    "latitude": "latitude lat merchlat",
    "longitude": "longitude lon long lng merchlong",
    "label": "isfraud fraud txfraud fraudulent islaundering class label chargeback",
}
_OPTIONAL: Final = ("terminal_id", "device_id", "ip", "merchant_category", "country", "latitude", "longitude")


class Sample(NamedTuple):
    """The first rows of a file, and how it was read."""

    batch: pa.RecordBatch
    form: SourceFormat

    def texts(self, name: str) -> list[str]:
        """What stands in the column, as text; without what stands for nothing."""
        clean = columns.without_words(self.batch, self.form.nothing, {name})
        return [value for value in columns.text(clean.column(name)).to_pylist() if value is not None]


def read_sample(path: Path) -> Sample:
    """The first rows of `path`; MappingError when it cannot be read in any usual way."""
    file = source_files(path)[0]
    failed: MappingError | None = None
    for encoding in ("utf8", "cp1252"):
        for delimiter in (",", ";", "\t", "|"):
            form = SourceFormat(delimiter=delimiter, encoding=encoding, duplicates="number")
            try:
                names = column_names(file, form, path)
                batch = next(read_batches(file, form, set(names), path)).batch.slice(0, _SAMPLE)
            except StopIteration:
                raise MappingError(f"{file.name} has no rows") from None
            except MappingError as error:
                failed = failed or error
                continue
            return Sample(batch, form)
    assert failed is not None
    raise failed


def suggest(path: Path) -> str:
    """The text of a mapping for `path`, commented."""
    sample = read_sample(path)
    chosen = _columns(sample)
    guesses = _guesses(sample, chosen)
    mapping = _content(path, sample, guesses)
    head = [
        f"# A guess from the first {sample.batch.num_rows:,} rows of {path.name}: read it, and edit it.",
        f"# Columns: {', '.join(sample.batch.schema.names)}",
        "# What each option means: docs/importing.md",
    ]
    head += [f"# LOOK: {line}" for line in _trial(sample, mapping)]
    lines = [f"name: {mapping['name']}"]
    if mapping.get("source"):
        lines.append(f"source: {_flow(mapping['source'])}")
    lines.append("fields:")
    for name, guess in guesses.items():
        if name != "label":
            lines.append(
                f"  {name}: {_flow(guess.content)}" + (f"  # {guess.remark}" if guess.remark else "")
            )
    if "label" in guesses:
        lines.append(f"label: {_flow(guesses['label'].content)}  # {guesses['label'].remark}")
    return "\n".join([*head, *lines]) + "\n"


def main(path: Path, out: Path | None) -> int:
    """Print the suggested mapping for `path`, or write it to `out`; return the exit code."""
    if not path.exists():
        print(f"{path} does not exist", file=sys.stderr)
        return 2
    try:
        text = suggest(path)
    except MappingError as error:
        print(error, file=sys.stderr)
        return 1
    if out is None:
        print(text, end="")
        return 0
    if out.exists():
        print(f"{out} exists; choose another --out", file=sys.stderr)
        return 1
    out.write_text(text, encoding="utf-8")
    print(f"{out}: edit it, then tollgate import --data {path} --mapping {out} --out FOLDER")
    return 0


def _columns(sample: Sample) -> dict[str, str]:
    """Which column seems to be which field."""
    names: dict[str, str] = {}
    for name in sample.batch.schema.names:
        last = re.sub("[^a-z0-9]", "", name.casefold().rpartition(".")[2])
        names.setdefault(re.sub("[^a-z0-9]", "", name.casefold()), name)
        names.setdefault(last, name)
    found = {}
    for field, wanted in _NAMES.items():
        column = next((names[each] for each in wanted.split() if each in names), None)
        if column is not None:
            found[field] = column
    return found


def _guesses(sample: Sample, chosen: dict[str, str]) -> dict[str, Guess]:
    found: dict[str, Guess] = {}
    for field in REQUIRED:
        column = chosen.get(field)
        values = sample.texts(column) if column is not None else []
        found[field] = _required(field, column, values, chosen)
    for field in _OPTIONAL:
        column = chosen.get(field)
        if column is not None and column not in (chosen.get(name) for name in REQUIRED):
            if field == "country" and not all(
                re.fullmatch("[A-Z]{2}", each) for each in sample.texts(column)
            ):
                continue
            found[field] = Guess(column)
    if "label" in chosen:
        found["label"] = Guess(
            {"column": chosen["label"], "delay": "7d"},
            "EDIT the delay after which a fraud is known, or say known_at",
        )
    return found


def _required(field: str, column: str | None, values: list[str], chosen: dict[str, str]) -> Guess:
    if field == "event_time":
        return guess_event_time(column, values)
    if field == "amount":
        return guess_amount(column, values)
    if field == "currency":
        return guess_currency(column, values)
    if field == "channel":
        return guess_channel(column, values)
    if column is not None:
        if any(looks_like_card_number(each) for each in values):
            return Guess(
                {"column": column, "tokenize": True}, "holds card numbers: keyed tokens are made of them"
            )
        return Guess(column)
    if field == "transaction_id":
        return Guess({"row": True}, "no column looks like an id: rows are numbered")
    if field == "card_id" and "customer_id" in chosen:
        return Guess(
            {"template": f"card-{{{chosen['customer_id']}}}"},
            "no column looks like a card: one for each customer",
        )
    return Guess(
        {"constant": "unknown"},
        f"EDIT: no column looks like {field}; with one for all, nothing is learnt by it",
    )


def _content(path: Path, sample: Sample, guesses: dict[str, Guess]) -> dict[str, Any]:
    usual = SourceFormat()
    source = {
        name: getattr(sample.form, name)
        for name in ("delimiter", "encoding")
        if getattr(sample.form, name) != getattr(usual, name)
    }
    if any(name.rpartition(".")[2].isdigit() for name in sample.batch.schema.names):
        source["duplicates"] = "number"
    name = re.sub("[^A-Za-z0-9]+", "-", path.name.split(".")[0]).strip("-") or "mine"
    fields = {field: guess.content for field, guess in guesses.items() if field != "label"}
    content: dict[str, Any] = {"name": name[:64], "source": source, "fields": fields}
    if "label" in guesses:
        content["label"] = guesses["label"].content
    return content


def _trial(sample: Sample, content: dict[str, Any]) -> list[str]:
    """What an import of the sample with the mapping refuses, and what looks odd in it."""
    # A trial makes no tokens, so that it needs, and makes, no key for them.
    plain = {
        name: {"column": source["column"], "card_numbers": "none"}
        if isinstance(source, dict) and source.get("tokenize")
        else source
        for name, source in content["fields"].items()
    }
    try:
        mapping = Mapping.model_validate(yaml.load(json.dumps(content | {"fields": plain}), yaml.BaseLoader))
        absent = sorted(mapping.columns() - set(sample.batch.schema.names))
        if absent:
            return [f"it does not fit yet: there is no column {', '.join(absent)}"]
        table, findings = convert(sample.batch, mapping)
    except (ValidationError, MappingError) as error:
        return [f"it does not fit yet: {str(error).splitlines()[0]}"]
    refused = [f"{rows:,} rows of the sample would be refused: {field}: {reason}"
               for (field, reason), rows in findings.counts().items()]  # fmt: skip
    return refused + suspicions(table.filter(pa.array(findings.kept)), sample.batch, mapping)


def _flow(content: Any) -> str:
    text: str = yaml.safe_dump(
        content, default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True
    )
    return text.removesuffix("...\n").strip()
