"""Labels and outcomes from topics of Kafka: the same records as by HTTP, taken on once they are on disk.

Whoever may write to such a topic reports as the client that is named like it. Where reading stands is kept
beside what was taken; after a crash some are taken again, which changes nothing.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bentos.log.labels import LabelStore, Reporter, labels_folder, parse_labels
from bentos.log.outcomes import OutcomeStore, outcomes_folder, parse_outcomes
from fraud.contract.transaction import ContractError
from stores.files import write_whole
from stores.settings import Settings
from streaming.ingest.dead_letters import LetterBox, dead_letter, letters_folder
from streaming.ingest.framing import json_inside
from streaming.log.batch import LogPositionError, PartitionReader
from streaming.log.source import reader_opener

_POSITIONS = "positions.json"
_log = logging.getLogger(__name__)


class _Topic:
    def __init__(
        self, configured: Settings, topic: str, folder: Path, partitions: int,
        parse: Callable[[bytes], Sequence[Any]], keep: Callable[[Sequence[Any]], bool],
    ) -> None:  # fmt: skip
        self._path = folder / _POSITIONS
        known: dict[str, str] = json.loads(self._path.read_bytes()) if self._path.is_file() else {}
        opener = reader_opener(configured.changed(topic=topic))
        self._readers: list[PartitionReader] = [
            opener(place, known.get(str(place))) for place in range(partitions)
        ]
        self._letters = [
            LetterBox(letters_folder(configured, topic) / f"{place:03d}") for place in range(partitions)
        ]
        self._parse, self._keep = parse, keep

    def take(self) -> None:
        moved = False
        for place, reader in enumerate(self._readers):
            batch = reader.read()
            reports: list[Any] = []
            for payload, position in zip(batch.payloads, batch.positions, strict=True):
                if not payload:
                    continue
                try:
                    reports += self._parse(json_inside(payload) or payload)
                except ContractError as error:
                    self._letters[place].add([dead_letter(place, position, error, payload)])
            if reports and not self._keep(reports):
                raise OSError("the disk takes no more reports")
            self._letters[place].flush()
            moved = moved or bool(batch.payloads)
        if moved:
            positions = {str(place): reader.position() for place, reader in enumerate(self._readers)}
            write_whole(self._path, json.dumps(positions).encode())
            for reader in self._readers:
                reader.tell(reader.position())

    def close(self) -> None:
        for reader in self._readers:
            reader.close()


class Topics:
    """The topics that there are; none of them where the event log is not Kafka."""

    def __init__(self, topics: Sequence[_Topic], stores: Sequence[LabelStore | OutcomeStore]) -> None:
        self._topics, self._stores = topics, stores

    def take(self) -> None:
        """Take what has come; raises `LogAwayError`."""
        for topic in self._topics:
            topic.take()
        for store in self._stores:
            store.tick()

    def close(self) -> None:
        for each in (*self._topics, *self._stores):
            each.close()


def open_topics(configured: Settings) -> Topics:
    """The topics of labels and outcomes, as far as the broker has them."""
    if configured.event_log.kind != "kafka":
        return Topics([], [])
    from streaming.log.kafka_source import partitions_of

    labels, outcomes = LabelStore(configured.home), OutcomeStore(configured.home)

    def reporter(topic: str) -> Reporter:
        return Reporter(topic[:32], admin=True)

    found = []
    for topic, folder, parse, keep in (
        (configured.event_log.labels_topic, labels_folder(configured.home), parse_labels, labels.append),
        (
            configured.event_log.outcomes_topic,
            outcomes_folder(configured.home),
            parse_outcomes,
            outcomes.append,
        ),
    ):
        try:
            partitions = partitions_of(configured.kafka, topic)
        except LogPositionError:
            _log.info("there is no topic %s: such reports come by HTTP alone", topic)
            continue

        def parsed(raw: bytes, parse: Any = parse, topic: str = topic) -> Sequence[Any]:
            return list(parse(raw, datetime.now(UTC), reporter(topic)))

        found.append(_Topic(configured, topic, folder, partitions, parsed, keep))
    return Topics(found, [labels, outcomes])
