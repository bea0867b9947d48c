"""Set points to a message broker: one retained MQTT message per asset, in the form that docs/dispatch.md describes.

The package paho-mqtt is not among Gridlake's own; who publishes installs it. User and password come from the environment.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from lakehouse.errors import DispatchError

USER, PASSWORD = "GRIDLAKE_MQTT_USER", "GRIDLAKE_MQTT_PASSWORD"
PORT = 1883
SECONDS = 10.0


def publish_setpoints(rows: Sequence[Mapping[str, Any]], broker: str) -> int:
    """Publishes set points, each under its topic, and waits until the broker has them.

    Args:
        rows: rows of dispatch/setpoints, one per asset.
        broker: HOST or HOST:PORT.

    Returns:
        How many were published.

    Raises:
        DispatchError: no client library, a wrong address, or the broker can't be reached or refuses.
    """
    import pandas as pd

    from lakehouse.dispatch.setpoints import setpoint_messages

    host, _, port = broker.partition(":")
    if not host or (port and not port.isdigit()):
        raise DispatchError(f"Expected a broker as HOST or HOST:PORT, found '{broker}'.", "For example: --mqtt localhost:1883")
    try:
        from paho.mqtt import client as mqtt
    except ImportError:
        raise DispatchError("Publishing needs the package paho-mqtt, which is not installed.", "pip install paho-mqtt") from None
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    if USER in os.environ:
        client.username_pw_set(os.environ[USER], os.environ.get(PASSWORD))
    messages = setpoint_messages(pd.DataFrame(list(rows)))
    try:
        client.connect(host, int(port or PORT))
        client.loop_start()
        sent = [client.publish(topic, body, qos=1, retain=True) for topic, body in messages.items()]
        for one in sent:
            one.wait_for_publish(SECONDS)
        if not all(one.is_published() for one in sent):
            raise DispatchError(f"The broker {broker} did not take all set points within {SECONDS:g} s.", "Check user and password.")
    except (OSError, RuntimeError, ValueError) as error:
        raise DispatchError(f"The broker {broker} can't be used: {error}.", "Check host and port, and that it runs.") from None
    finally:
        client.loop_stop()
        client.disconnect()
    return len(messages)
