"""Amounts as columns: the functions of `fraud.contract.money` applied to arrays, same results."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from fraud.contract.money import MINOR_DIGITS, reference_cents

Ints = np.ndarray[Any, np.dtype[np.int64]]


def reference_column(minor: Ints, currency: pa.Array) -> pa.Array:
    """Reference cents of `minor` units of each `currency` (ISO codes, no nulls)."""
    codes = currency.dictionary_encode()
    index = codes.indices.to_numpy(zero_copy_only=False)
    result = np.zeros(len(minor), dtype=np.int64)
    for place, code in enumerate(codes.dictionary.to_pylist()):
        mask = index == place
        distinct, inverse = np.unique(minor[mask], return_inverse=True)
        cents = np.array([reference_cents(value, code) for value in distinct.tolist()], dtype=np.int64)
        result[mask] = cents[inverse]
    return pa.array(result)


def digits_column(currency: pa.Array) -> tuple[Ints, np.ndarray[Any, np.dtype[np.bool_]]]:
    """Decimals of each currency's minor unit, and whether the currency is known at all."""
    codes = currency.dictionary_encode()
    names = codes.dictionary.to_pylist()
    digits = np.array([MINOR_DIGITS.get(name, 0) for name in names] + [0], dtype=np.int64)
    known = np.array([name in MINOR_DIGITS for name in names] + [False])
    index = codes.indices.fill_null(len(names)).to_numpy(zero_copy_only=False)
    return digits[index], known[index]
