"""States as version 2 packed them: some that it did pack, and how it packed any."""

from __future__ import annotations

import struct
from base64 import b64decode

from fraud.state import buckets as bucket_list
from fraud.state.last_seen import NEVER, entries
from fraud.state.layout import FIRST, SEEDED, TIME1, VERSION
from fraud.state.velocity import VelocityState
from tests.fraud.arrivals import Stream

#: Per entity: arrivals, and the bytes that the last program with version 2 packed after them.
WRITTEN: dict[int, tuple[Stream, bytes]] = {
    0: (
        Stream(21, 14, 10, late=0.3),
        b64decode(
            "AgAIAAAAAACoADAAMAAAACl7TPgLTAYACacYr5wBAAAPKkynnAEAAAAAAAAAAAAAAAAAAAAAAAAJpxivnAEAAPkN0gcGtO3+"
            "PKyYrpwBAACMe8v7ZSnq/YPBpqmcAQAA5AYAAIPWxVudIvCqnAEAAD0BAABWj0JlbNjHq5wBAADnHAAAxNbx4YSr3KucAQAA"
            "SQEAAOXpxEuBzfWsnAEAAMMPAACOAQpa2aqLrpwBAAB7PQAAxP+9ZzysmK6cAQAAqwIAADUmit8JpxivnAEAAJIBAABQq8xi"
            "x5CgfF2hf2qDwaapnAEAAAAAAAAAAADwb4tUEJG1RmKdIvCqnAEAAAAAAAAAAADwIxfyPpFg4cJs2MernAEAAAAAAAAAAADw"
            "RL3w19QV20WEq9yrnAEAAAAAAAAAAADwNNa/kSIlzcjZqouunAEAAIHN9aycAQAAvz0jOVSTb3Q8rJiunAEAAAAAAAAAAADw"
            "HWGZpVMyK/YJpxivnAEAAAAAAAAAAADwqxejmY1ObeudIvCqnAEAAIPBpqmcAQAA5COTD9Kj19bZqouunAEAAIHN9aycAQAA"
            "7Koij9jlp+88rJiunAEAANmqi66cAQAA2e34NWhcOMoJpxivnAEAAIHN9aycAQAA"
        ),
    ),
    1: (
        Stream(22, 9, 4, late=0.2, twice=0.2),
        b64decode(
            "AgEDAAAAAABIADAAMAAAAJH0YO4uTAYAet8LuJwBAADateOmnAEAAAAAAAAAAAAAAAAAAAAAAAB63wu4nAEAAIeAUwIAwAwD"
            "9DFLtpwBAAAg7/f/QAdOA7zj67ScAQAAWwMAAIPWxVv0MUu2nAEAAPkEAABWj0Jlet8LuJwBAADTCQAAxNbx4WoRLeAOEK9i"
            "vOPrtJwBAAAAAAAAAAAA8E7Ty/ihUR3v9DFLtpwBAAAAAAAAAAAA8AgDwQlCAS1Jet8LuJwBAAAAAAAAAAAA8KsXo5mNTm3r"
            "9DFLtpwBAAC4fAOynAEAAOQjkw/So9fWet8LuJwBAAC84+u0nAEAAOyqIo/Y5afvXRblsZwBAAAAAAAAAAAA8Nnt+DVoXDjK"
            "et8LuJwBAAD0MUu2nAEAAA=="
        ),
    ),
    2: (
        Stream(23, 96, 400, late=0.05, cards=6),
        b64decode(
            "AgJPAAcAAACQAAAAAAAAAHlOnwfwSwYAO5Hxp5wBAABxpLumnAEAAAAAAAAAAAAAcaS7ppwBAAAAAAAAAAAA8AAAAAAAAAAA"
            "AAAAAAAAAPAAAAAAAAAAAL2s2aacAQAAoBgAAH8b3ENtFeCmnAEAANUEAABNVS5p3svippwBAADxGAAALmto5I0K56acAQAA"
            "Mx4AABXYZ1sCzuimnAEAACkGAACBvObc4BfsppwBAAB7FgAAaVJk23Pl7aacAQAArnIAAGCod+6L9O2mnAEAACoMAAAExJnz"
            "xhvvppwBAAAPJQAAUEyQ50ug+qacAQAAGEcAAPyBtlTM8gKnnAEAAEEcAABpR+HFx2kIp5wBAACxIAAAwn8l/JyqFKecAQAA"
            "fQoAAIv+IcYyjRennAEAABAJAABrvK7DOa8fp5wBAAAtAwAABG6v8Jw0IaecAQAAiScAAMJxqWRbwCGnnAEAAJYPAADiCmRz"
            "qnAlp5wBAAATAgAAa18Gy93jKKecAQAAqiIAACREV33fUyunnAEAACwUAADJ7eh672swp5wBAABAFwAAroee8bNFMaecAQAA"
            "gDEAANFbKswj5TGnnAEAAIUfAgBzL9hPW2U2p5wBAAAJFQAANjJRWKYwPqecAQAAWggAADrrO3UkNEGnnAEAAPsPAADT+OX4"
            "bDlGp5wBAACoIgAAuhGnSg0kSaecAQAAN3MAAEwluvIEQVKnnAEAANIGAAAqfDhniwBUp5wBAAAfDwAAEliZSOMDVKecAQAA"
            "+lIAAN+akMomolSnnAEAAA0CAABMAjDG9z9Yp5wBAADlIQAA/FBqeuLfXKecAQAA4QcAAKBo+FcvMl2nnAEAAPYLAABbnwHD"
            "XoZdp5wBAAB9AQAAuX6ycqUPX6ecAQAA2gkAAORfUUSdtmennAEAADUQAACOxPzi3n9pp5wBAACiBAAAwoPk+A8+cKecAQAA"
            "KgcAADsbsGryG3GnnAEAAEUOAAAzVXjB2DB1p5wBAAAwHQAAtRus7M7idqecAQAA4CYAAMDm69fMMHennAEAAKMEAAClza/7"
            "TZR4p5wBAADpBQAAyBwA0+RQeqecAQAAUggAANx0+G3qRn2nnAEAAPIHAADqTYZCOkp9p5wBAABVBAAAfLPU7OT2gaecAQAA"
            "ohMAANsb82T4DISnnAEAAOuZAACpsM9d+vSFp5wBAABaGAAA8CU4Q1lqhqecAQAA6AMAANzP+FyRLoennAEAAH8FAADo9Adr"
            "65WOp5wBAAChEAAAx/DV4kUvlqecAQAAjBAAAFV0i/GzPJannAEAABYIAAASwm7RmXuWp5wBAADREQAAaYB5dCZYl6ecAQAA"
            "ngEAAMsXt2O69J2nnAEAAAkEAACaoaZGoauip5wBAACWBwAAl7LoxkWKo6ecAQAAagwAAKIKau4LJ6qnnAEAAGcGAAAnYOjx"
            "Wkixp5wBAADbBwAAyWPb/3qus6ecAQAAVgQAAEfcOXrwIMOnnAEAAKwLAABu2KTQgK/Hp5wBAADnCgAAnwZLaeC8x6ecAQAA"
            "5R8AAFuO41O9B8ynnAEAAEweAACOlNBsn8bPp5wBAADyIQAACVKLcUiO16ecAQAAWwgAACiWsPQg8tinnAEAACIKAABcch18"
            "7VPZp5wBAAD7KQAAPzu3Zl1Q3aecAQAAbA4AAPRK6V3KreGnnAEAAAkKAABkgf3tiXrmp5wBAACwIQAA/8bf8IRi56ecAQAA"
            "ggIAAHbszFoYK+ynnAEAAAcCAAAnREXda/zup5wBAAA6GwAAYS63VzuR8aecAQAAowkAAAEkE/sAAAAA3KwEAAY/AAAAMAAA"
            "AAAAyMCXlUF4EAgAG7MKAFQSAAAAMAAAAAAAgA+6XkFGFhAAyLQSAOlXAAAAIAAAAAAANV2TsUGxDRMAVcoUAHBMAAAAIAAA"
            "AAAABJoxp0HQYhUAl74ZAAItAAAAMAAAAAAAsPPRi0GA4RoAbNobAOYOAAAAIAAAAAAAAL3EW0Ha4BsA34kdAFAgAAAAIAAA"
            "AAAAEI2GgEGdnO8v4UCX2QsnqqecAQAAzDB3p5wBAADP6UXS1xMIWl1Q3aecAQAAn8bPp5wBAADdnzFig3Wf3Mqt4aecAQAA"
            "7VPZp5wBAAAkCDtP1hAPSYRi56ecAQAARYqjp5wBAAD4o1sRMj9L8Wv87qecAQAAGCvsp5wBAAC8i15RiKMeRjuR8aecAQAA"
            "iXrmp5wBAAA="
        ),
    ),
    3: (
        Stream(24, 1, 10),
        b64decode(
            "AgMBAAAAAAAYAAAAAAAAAEGO3tXuSwYAaEujp5wBAABoS6OnnAEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA8AAAAAAAAAAA"
            "AAAAAAAAAPAAAAAAAAAAAGhLo6ecAQAAXQIAAA1TZcv4ptM5JvQETmhLo6ecAQAAAAAAAAAAAPA="
        ),
    ),
    4: (
        Stream(25, 20, 20, cards=4),
        b64decode(
            "AgQUAAAAAABgABgAAAAAACmTao75SwYACeZhqpwBAAAMMl6nnAEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA8AAAAAAAAAAA"
            "AAAAAAAAAPAAAAAAAAAAAAwyXqecAQAApBgAAA1TZcvtJ9+nnAEAANMSAABy989ppvjlp5wBAADXDgAAdL0rWsiy6KecAQAA"
            "EQUAAJlYzPbF6/SnnAEAAL4IAACDAyvt+PGCqJwBAABsFAAAz4DFeSzusKicAQAAbQYAAIPWxVsgGbOonAEAAB4MAABWj0Jl"
            "LjG+qJwBAACFCAAAxNbx4c48v6icAQAAVRgAAOXpxEvnMt2onAEAAHEHAACOAQpaQ8T4qJwBAAAqCwAAxP+9Z8Q7HKmcAQAA"
            "MQMAADUmit/X7DKpnAEAAGUTAABQq8xiqfyDqZwBAAC1RAAAUoKtV9KUmKmcAQAAjwgAAGrY9vmKJLipnAEAALQRAABMIYJK"
            "TQYGqpwBAACPIwAAfxvcQwt+FaqcAQAASAQAAE1VLmkJ5mGqnAEAAO8DAAAua2jk3Z8xYoN1n9znMt2onAEAAM48v6icAQAA"
            "JAg7T9YQD0nSlJipnAEAAKn8g6mcAQAAnZzvL+FAl9kLfhWqnAEAAMQ7HKmcAQAA+KNbETI/S/EJ5mGqnAEAAE0GBqqcAQAA"
            "0xXzqxwbo2oJ5mGqnAEAAAt+FaqcAQAA"
        ),
    ),
    5: (
        Stream(26, 7, 1, cards=3),
        b64decode(
            "AgUCAAAAAAAwABgAAAAAABHtrDJ7TAYAyheSy5wBAAA3ltynnAEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA8AAAAAAAAAAA"
            "AAAAAAAAAPAAAAAAAAAAAAtiycacAQAAeA0AAM+AxXnKF5LLnAEAAEQJAACD1sVb3Z8xYoN1n9wLYsnGnAEAAAAAAAAAAADw"
            "+KNbETI/S/HKF5LLnAEAAAAAAAAAAADw0xXzqxwbo2rKF5LLnAEAAAtiycacAQAA"
        ),
    ),
}


def packed(state: VelocityState) -> bytes:
    """`state` as version 2 packed it, but for the hash bits that are no longer kept (0 here)."""
    count = len(state.buckets) // bucket_list.BUCKET_BYTES
    kind = 2 | state.place << 8 | len(state.events) << 15 | count << 32 | state.loose << 48
    tables = [
        b"".join([struct.pack("<2x6sqq", *entry) for entry in entries(table)]) for table in state.tables
    ]
    sizes = sum(len(table) << 16 * index for index, table in enumerate(tables))
    base = bucket_list.base_of(state.buckets) if count else 0
    located = state.header[TIME1:].tolist() or [NEVER, 0, NEVER, 0]
    header = state.header
    words = (kind, sizes, header[VERSION], state.newest_ms, header[FIRST], header[SEEDED], base, *located)
    buckets = state.buckets[bucket_list.BASE_BYTES :]
    return b"".join((struct.pack("<11q", *words), state.events, buckets, *tables))


def without_low_bits(data: bytes) -> bytes:
    """Bytes of version 2 with only those bits of its tables' hashes that are still kept."""
    kind = int.from_bytes(data[:8], "little")
    begin = 88 + 16 * (kind >> 16 & 0xFFFF) + 24 * (kind >> 32 & 0xFFFF)
    table = b"".join([b"\0\0" + data[at + 2 : at + 24] for at in range(begin, len(data), 24)])
    return data[:begin] + table
