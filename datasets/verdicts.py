"""What a source says became of its transactions: reported or not, as what, and when that was known."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datasets import columns
from datasets.columns import Mask, mask_of
from datasets.mapping import LabelMapping, Mapping
from datasets.times import times
from datasets.validity import Findings
from stores.lake import TIMESTAMP


def reports(
    batch: pa.RecordBatch, mapping: Mapping, event: pa.Array, findings: Findings
) -> dict[str, pa.Array]:
    """Whether each row was reported, as what, when that became known, and what it really was."""
    rows = batch.num_rows
    label = mapping.label
    if label is None:
        return {
            "reported": pa.array(np.zeros(rows, dtype=bool)),
            "is_fraud": pa.nulls(rows, pa.bool_()),
            "known_timestamp": pa.nulls(rows, TIMESTAMP),
            "type": pa.nulls(rows, pa.string()),
        }
    said = columns.tidy(pc.utf8_lower(columns.text(batch.column(label.column))))
    said = pc.replace_substring_regex(said, r"^(\d+)\.0+$", r"\1")  # 1.0 is 1
    fraud = _is_in(said, label.fraud)
    genuine = _is_in(said, label.genuine)
    neither = ~fraud & ~genuine & mask_of(pc.is_valid(said))
    findings.add(neither, "label", _words(label))
    reported = fraud | (genuine & label.keep_genuine)
    if label.known_at is not None:
        known = findings.noted(times(columns.values(batch, label.known_at), label.known_at), "label")
        findings.add(fraud & mask_of(pc.is_null(known)), "label", "has no time at which it became known")
        early = mask_of(pc.fill_null(pc.less(known, event), False))
        findings.add(reported & early, "label", "became known before its transaction")
        reported &= mask_of(pc.is_valid(known))
    else:
        delay = pa.scalar(label.delay, pa.duration("us"))
        known = pc.add(event, delay)
    truth = mapping.ground_truth
    kind = columns.field_text(batch, truth.type) if truth else pa.nulls(rows, pa.string())
    return {
        "reported": pa.array(reported),
        "is_fraud": pa.array(fraud),
        "known_timestamp": known,
        "type": kind,
    }


def _words(label: LabelMapping) -> str:
    fraud, genuine = (", ".join(words[:3]) for words in (label.fraud, label.genuine))
    return f"should be one of the words of label: fraud ({fraud}, ...) or genuine ({genuine}, ...)"


def _is_in(values: pa.Array, choices: tuple[str, ...]) -> Mask:
    return mask_of(pc.is_in(values, value_set=pa.array([choice.lower() for choice in choices], pa.string())))
