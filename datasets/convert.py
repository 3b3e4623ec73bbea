"""A batch of somebody's rows as the contract's columns, and what is wrong with each."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datasets import columns
from datasets.amounts import amounts, in_iso_digits
from datasets.columns import mask_of
from datasets.mapping import Mapping
from datasets.money_columns import digits_column, reference_column
from datasets.times import times
from datasets.validity import Findings, check_columns
from datasets.verdicts import reports
from fraud.contract.money import CURRENCIES
from stores.lake import LATER_COLUMNS, TIMESTAMP, TRANSACTION_SCHEMA

#: What waits for sorting: the transaction, and what the source says of it.
STAGED = pa.schema(
    [
        *(field for field in TRANSACTION_SCHEMA if field.name not in {"ingest_seq", *LATER_COLUMNS}),
        ("reported", pa.bool_()),
        ("is_fraud", pa.bool_()),
        ("known_timestamp", TIMESTAMP),
        ("type", pa.string()),
    ]
)
#: How far ahead of this machine's clock an event may lie: a day, for other time zones.
_AHEAD: Final = timedelta(days=1)
_TEXT_FIELDS = (
    "transaction_id", "customer_id", "card_id", "merchant_id", "terminal_id", "device_id", "ip",
    "currency", "channel", "merchant_category", "country",
)  # fmt: skip


#: Fields whose values are somebody's ids: digits that a float has lost make two of them one.
_IDS: Final = (
    "transaction_id", "customer_id", "card_id", "merchant_id", "terminal_id", "device_id",
)  # fmt: skip
_REFUND: Final = (
    "is negative: a refund or reversal is no payment (negative: absolute, where the sign says who pays, or "
    "leave_out)"
)
#: Words that a line lists.
_FEW: Final = 4
_LOST: Final = "went through a float that lost its last digits: export the column as text"
_NUMERIC_CODES: Final = pa.array([f"{currency.number:03d}" for currency in CURRENCIES.values()])
_LETTER_CODES: Final = pa.array(list(CURRENCIES))


def convert(batch: pa.RecordBatch, mapping: Mapping, first_row: int = 0) -> tuple[pa.Table, Findings]:
    """The rows of `batch` as the contract's columns, and what is wrong with them.

    `first_row` is how many rows of the data came before them.
    """
    batch = columns.without_words(batch, mapping.source.nothing, mapping.columns())
    findings = Findings(batch.num_rows)
    for name, kept in mapping.only.items():
        said = columns.tidy(columns.text(batch.column(name)))
        other = ~mask_of(pc.is_in(said, value_set=pa.array(kept, pa.string())))
        findings.leave_out(other, f"{name} is none of {_few(kept)}")
    fields = mapping.fields
    made = _texts(batch, mapping, findings, first_row)
    _place(batch, mapping, made, findings)
    event = fields["event_time"]
    made["event_timestamp"] = findings.noted(times(columns.values(batch, event), event), "event_time")
    late = pc.greater(made["event_timestamp"], pa.scalar(datetime.now(UTC) + _AHEAD, TIMESTAMP))
    findings.add(mask_of(pc.fill_null(late, False)), "event_time", "lies in the future")
    made["created_timestamp"] = made["event_timestamp"]
    _amount(batch, mapping, made, findings)
    made |= reports(batch, mapping, made["event_timestamp"], findings)
    check_columns(
        pa.table(made), findings, {name for name, source in fields.items() if source.card_numbers == "none"}
    )
    good = pa.array(findings.kept)
    safe = pc.if_else(good, made["amount_minor"], 0).to_numpy(zero_copy_only=False)
    made["amount_reference"] = reference_column(safe, pc.if_else(good, made["currency"], "USD"))
    table = pa.table([made[field.name] for field in STAGED], schema=STAGED)
    return table, findings


def _texts(
    batch: pa.RecordBatch, mapping: Mapping, findings: Findings, first_row: int
) -> dict[str, pa.Array]:
    """The fields that are text."""
    made: dict[str, pa.Array] = {}
    for name in _TEXT_FIELDS:
        source = mapping.fields.get(name)
        if source is None:
            made[name] = pa.nulls(batch.num_rows, pa.string())
        elif source.row:
            made[name] = _row_ids(mapping.name, first_row, batch.num_rows)
        else:
            made[name] = columns.field_text(batch, source)
            if name in _IDS:
                findings.add(columns.lost_digits(batch, source), name, _LOST)
    made["ip"] = findings.noted(columns.normal_addresses(made["ip"]), "ip")
    # As providers write it: usd.
    small = pc.match_substring_regex(made["currency"], "^[a-z]{3}$")
    made["currency"] = pc.if_else(small, pc.utf8_upper(made["currency"]), made["currency"])
    # ISO 4217 has numbers beside its letters: 978 is EUR, and so is 0978 of a fixed-width field.
    code = pc.utf8_slice_codeunits(pc.utf8_lpad(made["currency"], 3, "0"), -3)
    place = pc.index_in(
        pc.if_else(pc.match_substring_regex(made["currency"], r"^0?\d{2,3}$"), code, None), _NUMERIC_CODES
    )
    made["currency"] = pc.coalesce(_LETTER_CODES.take(place), made["currency"])
    return made


def _place(batch: pa.RecordBatch, mapping: Mapping, made: dict[str, pa.Array], findings: Findings) -> None:
    for name in ("latitude", "longitude"):
        source = mapping.fields.get(name)
        made[name] = pa.nulls(batch.num_rows, pa.float64())
        if source is not None:
            made[name] = findings.noted(columns.degrees(columns.values(batch, source)), name)
    # Exactly 0, 0 is where a device is that does not know: no place.
    nowhere = pc.fill_null(pc.and_(pc.equal(made["latitude"], 0.0), pc.equal(made["longitude"], 0.0)), False)
    for name in ("latitude", "longitude"):
        made[name] = pc.if_else(nowhere, None, made[name])


def _amount(batch: pa.RecordBatch, mapping: Mapping, made: dict[str, pa.Array], findings: Findings) -> None:
    digits, known = digits_column(made["currency"])
    source = mapping.fields["amount"]
    minor, problems = amounts(columns.values(batch, source), digits, source)
    if source.minor_digits:
        minor, more = in_iso_digits(minor, made["currency"], source)
        problems = problems + more
    read = pc.fill_null(minor, 1)
    if source.negative == "leave_out":
        findings.leave_out(mask_of(pc.less(read, 0)), "the amount is negative: a refund or reversal")
    else:
        problems.append((mask_of(pc.less(read, 0)), _REFUND))
    if source.zero == "leave_out":
        findings.leave_out(mask_of(pc.equal(read, 0)), "the amount is zero: a card was verified")
    # Without a known currency an amount means nothing: the currency is at fault, not the amount.
    minor = findings.noted((minor, [(mask & known, reason) for mask, reason in problems]), "amount")
    made["amount_minor"] = pc.if_else(pa.array(known), minor, 0)


def _few(words: tuple[str, ...]) -> str:
    return ", ".join(words) if len(words) <= _FEW else f"{', '.join(words[:_FEW])}, ..."


def _row_ids(name: str, first_row: int, rows: int) -> pa.Array:
    numbers = pa.array(np.arange(first_row + 1, first_row + rows + 1)).cast(pa.string())
    return pc.binary_join_element_wise(pa.scalar(name), numbers, "-")
