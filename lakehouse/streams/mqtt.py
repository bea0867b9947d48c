"""From MQTT: messages at least once, acknowledged only when their file is in place.

The session is the broker's and persistent: what was not acknowledged, because this process was killed, comes again. A message
may so land twice, in two files; cleaning counts the second as an exact duplicate and drops it.
"""

from __future__ import annotations

import os
import ssl
import time
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from lakehouse.errors import SourceError
from lakehouse.storage.landing import Landing
from lakehouse.streams.batch import Batch, Limits, Stop, format_for_stream

USER, PASSWORD = "GRIDLAKE_MQTT_USER", "GRIDLAKE_MQTT_PASSWORD"
TLS, AUTHORITY = "GRIDLAKE_MQTT_TLS", "GRIDLAKE_MQTT_CA_FILE"
CERTIFICATE, KEY = "GRIDLAKE_MQTT_CERTIFICATE_FILE", "GRIDLAKE_MQTT_KEY_FILE"
PORT, TLS_PORT = 1883, 8883
POLL_SECONDS = 0.2
CONNECT_SECONDS = 15.0
KEEP_SESSION_SECONDS = 7 * 24 * 3600


def stream_mqtt(
    landing: Landing,
    feed: str,
    feed_format: str,
    today: Callable[[], date],
    broker: str,
    topic: str,
    *,
    client_id: str = "gridlake",
    limits: Limits | None = None,
    stop: Stop = lambda: False,
    tell: Callable[[str, int, int], None] = lambda file, messages, lag: None,
) -> int:
    """Lands the messages of a topic filter until told to stop; see `lakehouse.streams.kafka.stream_kafka` for the other arguments.

    Args:
        landing: the landing zone.
        feed: the feed to land in.
        feed_format: its format.
        today: the delivery date of a file that is closed now.
        broker: HOST or HOST:PORT. User and password come from GRIDLAKE_MQTT_USER and GRIDLAKE_MQTT_PASSWORD. GRIDLAKE_MQTT_TLS=1 asks
            for TLS with the authorities that the system trusts, GRIDLAKE_MQTT_CA_FILE with one's own;
            GRIDLAKE_MQTT_CERTIFICATE_FILE and GRIDLAKE_MQTT_KEY_FILE name a certificate of the client.
        topic: a topic filter, such as `meters/+/readings`; subscribed with quality of service 1.
        client_id: names the session at the broker; two processes must not share it.
        limits: when a file is closed. The broker sends no more than it allows unacknowledged (20 at mosquitto unless told otherwise).
        stop: asked between polls.
        tell: told of each file; MQTT knows no lag, so 0.

    Returns:
        How many messages have landed.

    Raises:
        SourceError: no client library, a wrong address, or the broker can't be reached, is not who it should be, or refuses.
    """
    format_for_stream(feed, feed_format)
    limits = limits or Limits()
    host, _, port = broker.partition(":")
    if not host or (port and not port.isdigit()):
        raise SourceError(f"Expected a broker as HOST or HOST:PORT, found '{broker}'.", "For example: --broker localhost:1883")
    try:
        from paho.mqtt import client as mqtt
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties
    except ImportError:
        raise SourceError("The package paho-mqtt is not installed.", "pip install 'gridlake[streams]'") from None
    arrived: SimpleQueue[Any] = SimpleQueue()
    refused: list[str] = []
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=client_id, protocol=mqtt.MQTTv5, manual_ack=True)
    client.on_message = lambda _client, _data, message: arrived.put(message)

    def connected(_client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            refused.append(str(reason))
        else:
            client.subscribe(topic, qos=1)

    client.on_connect = connected
    if os.environ.get(USER):
        client.username_pw_set(os.environ[USER], os.environ.get(PASSWORD))
    is_encrypted = _encrypt(client)
    properties = Properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = KEEP_SESSION_SECONDS
    properties.ReceiveMaximum = min(limits.messages, 65_535)
    try:
        client.connect(host, int(port or (TLS_PORT if is_encrypted else PORT)), clean_start=False, properties=properties)
    except ssl.SSLError as error:
        remedy = (
            f"Its certificate must name {host} and be signed by who {AUTHORITY} names; without that variable, by one the system trusts."
        )
        raise SourceError(f"The broker at {broker} is not trusted: {error}.", remedy) from None
    except OSError as error:
        raise SourceError(f"The broker at {broker} can't be reached: {error}.", "Is it running, and is the address right?") from None
    client.loop_start()
    landed = 0
    batch, waiting = Batch(feed_format), []
    begun = time.monotonic()
    try:
        while not stop():
            if refused or (not client.is_connected() and time.monotonic() - begun > CONNECT_SECONDS and not landed):
                raise SourceError(f"The broker at {broker} refuses: {(refused or ['no answer'])[0]}.", f"Check {USER} and {PASSWORD}.")
            try:
                message = arrived.get(timeout=POLL_SECONDS)
                batch.add(message.payload, f"{message.topic}/{message.mid}")
                waiting.append(message)
            except Empty:
                pass
            if batch.is_due(limits):
                name = f"mqtt.{datetime.now(UTC):%Y%m%dT%H%M%S}.{uuid.uuid4().hex[:12]}.csv"
                batch.land(landing, feed, today(), name)
                for message in waiting:  # only now may the broker forget them
                    client.ack(message.mid, message.qos)
                landed += len(waiting)
                tell(name, len(waiting), 0)
                batch, waiting = Batch(feed_format), []
    finally:
        client.disconnect()
        client.loop_stop()
    return landed


def _encrypt(client: Any) -> bool:
    """Whether TLS is asked for; a certificate that names another host is always refused."""
    given = {name: os.environ.get(name, "") for name in (TLS, AUTHORITY, CERTIFICATE, KEY)}
    if not any(given.values()):
        return False
    for name in (AUTHORITY, CERTIFICATE, KEY):
        if given[name] and not Path(given[name]).is_file():
            raise SourceError(f"Expected a file in {name}, found none at {given[name]}.", "Give the path of a file in PEM.")
    client.tls_set(ca_certs=given[AUTHORITY] or None, certfile=given[CERTIFICATE] or None, keyfile=given[KEY] or None)
    return True
