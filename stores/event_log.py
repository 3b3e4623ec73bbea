"""Names of the event log's streams and the partition a transaction belongs to."""

from __future__ import annotations

from stores.kafka import keyed_hash


def stream_name(topic: str, partition: int) -> str:
    """The Redis stream (one per partition) of a topic."""
    return f"tollgate:{topic}:{partition}"


def partition_of(customer_id: str, partitions: int) -> int:
    """The partition of a customer's transactions: one customer's events keep their order.

    It is where Kafka's own producers put a record whose key is the customer's id.
    """
    return keyed_hash(customer_id) % partitions
