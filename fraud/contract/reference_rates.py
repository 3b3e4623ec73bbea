"""US dollars for one unit of each currency: what makes amounts of many currencies comparable.

Rounded to two or three digits, about what money was worth at `AS_OF`; no quote to settle by. The
table is a constant of the features: they repeat because training, stream and service use the same one.
`TOLLGATE_REFERENCE_RATES` names a file that replaces it (`stores.reference_rates`).
"""

from __future__ import annotations

from typing import Final

#: The day of the table.
AS_OF: Final = "2026-01-01"

#: US dollars for one major unit, as exact decimals.
USD: Final[dict[str, str]] = {
    "AED": "0.2723", "AFN": "0.0150", "ALL": "0.0120", "AMD": "0.0026", "AOA": "0.0011", "ARS": "0.00070",
    "AUD": "0.66", "AWG": "0.5587", "AZN": "0.588", "BAM": "0.552", "BBD": "0.5", "BDT": "0.0082",
    "BHD": "2.6525", "BIF": "0.00034", "BMD": "1", "BND": "0.745", "BOB": "0.145", "BOV": "0.37",
    "BRL": "0.19", "BSD": "1", "BTN": "0.012", "BWP": "0.073", "BYN": "0.31", "BZD": "0.5", "CAD": "0.73",
    "CDF": "0.00045", "CHE": "1.12", "CHF": "1.12", "CHW": "1.12", "CLF": "43", "CLP": "0.00106",
    "CNY": "0.14", "COP": "0.00025", "COU": "0.097", "CRC": "0.0020", "CUP": "0.0417", "CVE": "0.0098",
    "CZK": "0.043", "DJF": "0.00562", "DKK": "0.145", "DOP": "0.0160", "DZD": "0.0077", "EGP": "0.0205",
    "ERN": "0.0667", "ETB": "0.0066", "EUR": "1.08", "FJD": "0.44", "FKP": "1.27", "GBP": "1.27",
    "GEL": "0.37", "GHS": "0.085", "GIP": "1.27", "GMD": "0.0138", "GNF": "0.000115", "GTQ": "0.130",
    "GYD": "0.00478", "HKD": "0.128", "HNL": "0.0380", "HTG": "0.0076", "HUF": "0.00275", "IDR": "0.000063",
    "ILS": "0.27", "INR": "0.012", "IQD": "0.000763", "IRR": "0.000001", "ISK": "0.00725", "JMD": "0.0063",
    "JOD": "1.41", "JPY": "0.0067", "KES": "0.00775", "KGS": "0.01144", "KHR": "0.000249", "KMF": "0.0022",
    "KPW": "0.00111", "KRW": "0.000745", "KWD": "3.25", "KYD": "1.2", "KZT": "0.0019", "LAK": "0.000046",
    "LBP": "0.0000112", "LKR": "0.0033", "LRD": "0.0055", "LSL": "0.054", "LYD": "0.184", "MAD": "0.108",
    "MDL": "0.0590", "MGA": "0.000222", "MKD": "0.0175", "MMK": "0.000476", "MNT": "0.00028", "MOP": "0.124",
    "MRU": "0.0251", "MUR": "0.0217", "MVR": "0.0649", "MWK": "0.000577", "MXN": "0.055", "MXV": "0.47",
    "MYR": "0.215", "MZN": "0.0156", "NAD": "0.054", "NGN": "0.00068", "NIO": "0.0272", "NOK": "0.094",
    "NPR": "0.0075", "NZD": "0.61", "OMR": "2.5974", "PAB": "1", "PEN": "0.29", "PGK": "0.235",
    "PHP": "0.0175", "PKR": "0.00356", "PLN": "0.25", "PYG": "0.000145", "QAR": "0.2747", "RON": "0.217",
    "RSD": "0.0092", "RUB": "0.0125", "RWF": "0.00069", "SAR": "0.2666", "SBD": "0.12", "SCR": "0.0710",
    "SDG": "0.00167", "SEK": "0.095", "SGD": "0.745", "SHP": "1.27", "SLE": "0.0435", "SOS": "0.00175",
    "SRD": "0.0260", "SSP": "0.00022", "STN": "0.0441", "SVC": "0.1143", "SYP": "0.000077", "SZL": "0.054",
    "THB": "0.028", "TJS": "0.108", "TMT": "0.2857", "TND": "0.32", "TOP": "0.42", "TRY": "0.031",
    "TTD": "0.147", "TWD": "0.031", "TZS": "0.00040", "UAH": "0.0238", "UGX": "0.000279", "USD": "1",
    "USN": "1", "UYI": "0.154", "UYU": "0.0250", "UYW": "0.160", "UZS": "0.0000826", "VED": "0.0034",
    "VES": "0.0034", "VND": "0.00004", "VUV": "0.0083", "WST": "0.362", "XAD": "0.2723", "XAF": "0.00165",
    "XCD": "0.3704", "XCG": "0.5587", "XOF": "0.00165", "XPF": "0.00905", "YER": "0.0042", "ZAR": "0.054",
    "ZMW": "0.0437", "ZWG": "0.0380",
    # Withdrawn: at what they were exchanged for, or were worth at last.
    "ANG": "0.5587", "BGN": "0.552", "BYR": "0.000050", "CUC": "1", "EEK": "0.069", "HRK": "0.143",
    "LTL": "0.313", "LVL": "1.537", "MRO": "0.00251", "SLL": "0.0000435", "STD": "0.0000441",
    "VEF": "0.000001", "ZMK": "0.000194", "ZWL": "0.00019",
}  # fmt: skip
