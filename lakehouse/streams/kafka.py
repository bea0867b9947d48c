"""From Kafka: each partition's messages become files that bear their offsets in the name, so files and position can't disagree.

A file appears in landing whole or not at all. Whoever begins again, after a stop or a kill at any moment, looks in landing for the
last offset that is there and goes on behind it: nothing is lost, nothing doubled. No consumer group keeps the position.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from datetime import date
from typing import Any

from lakehouse.errors import SourceError
from lakehouse.storage.landing import Landing
from lakehouse.streams.batch import Batch, Limits, Stop, format_for_stream

OPTION_PREFIX = "GRIDLAKE_KAFKA_"
POLL_SECONDS = 0.2
POLL_MESSAGES = 5000
CONNECT_SECONDS = 15.0


def stream_kafka(
    landing: Landing,
    feed: str,
    feed_format: str,
    today: Callable[[], date],
    broker: str,
    topic: str,
    *,
    limits: Limits | None = None,
    stop: Stop = lambda: False,
    tell: Callable[[str, int, int], None] = lambda file, messages, lag: None,
) -> int:
    """Lands a topic's messages until told to stop; what has not landed then is read again by the next.

    Args:
        landing: the landing zone.
        feed: the feed to land in.
        feed_format: its format; see `lakehouse.streams.batch.COLUMNS`.
        today: the delivery date of a file that is closed now.
        broker: HOST:PORT, or several with commas. Further settings of the client, such as passwords, come from the environment:
            GRIDLAKE_KAFKA_SASL_PASSWORD is `sasl.password`.
        topic: the topic.
        limits: when a file is closed.
        stop: asked between polls.
        tell: told of each file: its name, its messages, and how many messages of its partition are behind it at the broker.

    Returns:
        How many messages have landed.

    Raises:
        SourceError: no client library, no such topic, the broker can't be reached, or it has no longer what comes next.
    """
    format_for_stream(feed, feed_format)
    limits = limits or Limits()
    try:
        from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
    except ImportError:
        raise SourceError("The package confluent-kafka is not installed.", "pip install 'gridlake[streams]'") from None
    consumer = Consumer(_settings(broker))
    landed = 0
    try:
        partitions = _partitions(consumer, topic, broker)
        last = last_offsets(landing, feed, topic)
        consumer.assign([TopicPartition(topic, p, last[p] + 1 if p in last else OFFSET_BEGINNING) for p in partitions])
        batches: dict[int, tuple[Batch, int, int]] = {}

        def close(partition: int) -> int:
            batch, first, newest = batches.pop(partition)
            name = file_name(topic, partition, first, newest)
            batch.land(landing, feed, today(), name)
            _, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True)
            tell(name, len(batch.lines), max(0, end - newest - 1))
            return len(batch.lines)

        while not stop():
            for message in consumer.consume(POLL_MESSAGES, POLL_SECONDS):
                if fault := message.error():
                    raise SourceError(f"Kafka at {broker}, topic {topic}: {fault.str()}.", _remedy(fault, KafkaError))
                partition, offset = int(message.partition() or 0), int(message.offset() or 0)
                batch, first, _ = batches.get(partition) or (Batch(feed_format), offset, offset)
                batch.add(message.value() or b"", f"{topic}/{partition}/{offset}")
                batches[partition] = (batch, first, offset)
                if len(batch.lines) >= limits.messages:
                    landed += close(partition)
            landed += sum(close(p) for p in list(batches) if batches[p][0].is_due(limits))
    except KafkaException as error:
        raise SourceError(f"Kafka at {broker}: {error.args[0].str()}.", "Is the broker there, and are the credentials right?") from None
    finally:
        consumer.close()
    return landed


def file_name(topic: str, partition: int, first: int, last: int) -> str:
    """Name of the file that holds these offsets of a partition, both included."""
    return f"kafka.{topic}.{partition}.{first:020}-{last:020}.csv"


def last_offsets(landing: Landing, feed: str, topic: str) -> dict[int, int]:
    """The last offset of each partition that is in landing."""
    pattern = re.compile(rf"kafka\.{re.escape(topic)}\.(\d+)\.\d{{20}}-(\d{{20}})(~\d+)?\.csv")
    found: dict[int, int] = {}
    for day in landing.deliveries(feed):
        for arrival in landing.arrivals(feed, day):
            if named := pattern.fullmatch(arrival.name):
                partition = int(named[1])
                found[partition] = max(found.get(partition, -1), int(named[2]))
    return found


def _settings(broker: str) -> dict[str, Any]:
    given = {k.removeprefix(OPTION_PREFIX).lower().replace("_", "."): v for k, v in os.environ.items() if k.startswith(OPTION_PREFIX)}
    return given | {
        "bootstrap.servers": broker,
        "group.id": "gridlake",  # the client asks for one; it is never joined, since partitions are assigned by hand
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",  # a gap is told, never skipped
        "isolation.level": "read_committed",
    }


def _partitions(consumer: Any, topic: str, broker: str) -> list[int]:
    known = consumer.list_topics(topic, timeout=CONNECT_SECONDS).topics[topic]
    if known.error or not known.partitions:
        raise SourceError(f"Kafka at {broker} has no topic '{topic}'.", "Check --topic.")
    return sorted(known.partitions)


def _remedy(error: Any, kinds: Any) -> str:
    if error.code() in (kinds.OFFSET_OUT_OF_RANGE, kinds._AUTO_OFFSET_RESET):
        return "The broker no longer has the messages that come next: docs/streams.md tells how to go on behind the gap."
    return "Start it again: it goes on behind what has landed."
