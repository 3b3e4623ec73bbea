"""From integer codes to the lake's columns: names, currencies, exact amounts."""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datasets.folder import GROUND_TRUTH_SCHEMA
from datasets.money_columns import reference_column
from datasets.synthetic.places import CATEGORIES, COUNTRIES, CURRENCY_OF
from datasets.synthetic.rows import ATM, KINDS, NONE, STEALTHY, Array, Floats, Ints, Rows
from datasets.synthetic.world import CITY_COUNTRY, World
from fraud.contract.fields import CHANNELS
from fraud.contract.money import MINOR_DIGITS, reference_cents
from stores.lake import LATER_COLUMNS, TIMESTAMP, TRANSACTION_SCHEMA

_CURRENCIES: Final = tuple(sorted(set(CURRENCY_OF.values())))
_DIGITS: Final = np.array([MINOR_DIGITS[code] for code in _CURRENCIES])
#: Reference cents for one major unit of each currency.
_RATE: Final = np.array([reference_cents(10 ** (MINOR_DIGITS[code] + 5), code) / 1e5 for code in _CURRENCIES])
#: The note that cash machines give, in major units: about ten dollars, to a power of ten.
_NOTE: Final = 10.0 * 10.0 ** np.round(np.log10(100 / _RATE))
_CURRENCY_OF_COUNTRY: Final = np.array([_CURRENCIES.index(CURRENCY_OF[code]) for code in COUNTRIES])
_CATEGORY_LOSS: Final = 0.01
_COUNTRY_LOSS: Final = 0.005


def transaction_columns(
    world: World, rows: Rows, named: Rows, prefix: str, rng: np.random.Generator
) -> pa.Table:
    """`rows`, already in event order, as TRANSACTION_SCHEMA; ids are `prefix` and a number.

    `named` are the same rows with the codes that are known to the platform (`datasets.synthetic.turnover`).
    """
    count = len(rows)
    currency = _CURRENCY_OF_COUNTRY[CITY_COUNTRY[world.merchant_city[rows.merchant]]]
    minor = _minor(rows.cents, currency, rows.channel == ATM)
    currencies = _named(currency, list(_CURRENCIES))
    category = np.where(rng.random(count) < _CATEGORY_LOSS, NONE, world.category[rows.merchant])
    country = np.where(rng.random(count) < _COUNTRY_LOSS, NONE, rows.country)
    times = pa.array(rows.event_ms * 1000).cast(TIMESTAMP)
    columns = {
        "transaction_id": _numbered(prefix, np.arange(count), 8),
        "event_timestamp": times,
        "created_timestamp": times,
        "customer_id": _numbered("cust-", named.customer, 6),
        "card_id": _scrambled("card-", named.card),
        "merchant_id": _numbered("merch-", named.merchant, 5),
        "terminal_id": _numbered("term-", named.terminal, 6),
        "device_id": _scrambled("dev-", named.device),
        "ip": _addresses(named.ip),
        "amount_minor": pa.array(minor),
        "currency": currencies,
        "amount_reference": reference_column(minor, currencies),
        "channel": _named(rows.channel, list(CHANNELS)),
        "merchant_category": _named(category, [kind.name for kind in CATEGORIES]),
        "country": _named(country, list(COUNTRIES)),
        "latitude": pa.array(np.round(rows.latitude, 5), from_pandas=True),
        "longitude": pa.array(np.round(rows.longitude, 5), from_pandas=True),
        "ingest_seq": pa.array(np.arange(count)),
        **{name: pa.nulls(count, TRANSACTION_SCHEMA.field(name).type) for name in LATER_COLUMNS},
    }
    return pa.table([columns[name] for name in TRANSACTION_SCHEMA.names], schema=TRANSACTION_SCHEMA)


def truth_table(ids: pa.Array, rows: Rows) -> pa.Table:
    """Every fraud of `rows` with its type, as GROUND_TRUTH_SCHEMA."""
    fraud = np.flatnonzero(rows.kind)
    kind, episode = rows.kind[fraud], rows.episode[fraud]
    name = np.array(KINDS, dtype=object)[kind]
    attack = [
        f"{text}-{number}" if number != NONE else None for text, number in zip(name, episode, strict=True)
    ]
    columns = [
        ids.take(pa.array(fraud)),
        pa.array(rows.event_ms[fraud] * 1000).cast(TIMESTAMP),
        pa.array(name.tolist(), pa.string()),
        pa.array(kind == STEALTHY),
        pa.array(attack, pa.string()),
    ]
    return pa.table(columns, schema=GROUND_TRUTH_SCHEMA)


def _minor(cents: Floats, currency: Ints, cash: Array) -> Ints:
    """Whole minor units of each currency; cash in whole notes; a payment is never nothing."""
    major = cents / _RATE[currency]
    note = _NOTE[currency]
    major = np.where(cash, np.maximum(np.round(major / note), 1) * note, major)
    minor = np.round(major * 10.0 ** _DIGITS[currency]).astype(np.int64)
    return np.where(cents > 0, np.maximum(minor, 1), 0)


def _named(codes: Array, names: list[str]) -> pa.Array:
    """`names` at `codes`; null where the code is negative."""
    index = pa.array(codes.astype(np.int32), mask=codes < 0)
    return pa.DictionaryArray.from_arrays(index, pa.array(names)).cast(pa.string())


def _numbered(prefix: str, codes: Ints, width: int) -> pa.Array:
    digits = pc.utf8_lpad(pa.array(codes, mask=codes < 0).cast(pa.string()), width, "0")
    return pc.binary_join_element_wise(prefix, digits, "")


def _scrambled(prefix: str, codes: Ints) -> pa.Array:
    """Names in which the order of the codes does not show; distinct for distinct codes below 2^31."""
    distinct, inverse = np.unique(codes, return_inverse=True)
    # Multiplying by an odd number permutes the integers modulo 2^32.
    mixed = (distinct.astype(np.uint64) * np.uint64(2_654_435_761) + np.uint64(97)) % np.uint64(2**32)
    names = pa.array([f"{prefix}{number:08x}" for number in mixed.tolist()], pa.string())
    return names.take(pa.array(inverse, mask=codes < 0))


def _addresses(codes: Ints) -> pa.Array:
    """An address of 10.0.0.0/8 per code; distinct for distinct codes below 2^24."""
    distinct, inverse = np.unique(codes, return_inverse=True)
    mixed = (distinct.astype(np.uint64) * np.uint64(10_368_889) + np.uint64(41)) % np.uint64(2**24)
    names = [f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}" for number in mixed.tolist()]
    return pa.array(names, pa.string()).take(pa.array(inverse, mask=codes < 0))
