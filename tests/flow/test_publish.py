"""Set points reach a broker, and what stands in the way is said."""

from __future__ import annotations

import json
import socket
import struct
import threading
from datetime import UTC, datetime

import pandas as pd
import pytest

from lakehouse.errors import DispatchError
from lakehouse.flow.publish import publish_setpoints

ROWS = [
    {
        "asset_id": asset, "command": "run", "power_mw": 1.5, "reserve_mw": 0.0,
        "valid_from": pd.Timestamp(datetime(2026, 3, 11, tzinfo=UTC)), "valid_until": pd.Timestamp(datetime(2026, 3, 11, 1, tzinfo=UTC)),
    }
    for asset in ("gas 1", "battery")
]  # fmt: skip


class Broker(threading.Thread):
    """As much of MQTT 3.1.1 as one client needs that publishes with QoS 1: accepts, acknowledges, remembers."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.taken: dict[str, tuple[str, bool]] = {}

    def run(self) -> None:
        client, _ = self.listener.accept()
        with client:
            while head := client.recv(1):
                length, shift = 0, 0
                while True:
                    byte = client.recv(1)[0]
                    length, shift = length | (byte & 127) << shift, shift + 7
                    if byte < 128:
                        break
                body = b""
                while len(body) < length:
                    body += client.recv(length - len(body))
                if head[0] >> 4 == 1:
                    client.sendall(b"\x20\x02\x00\x00")
                elif head[0] >> 4 == 3:
                    (size,) = struct.unpack(">H", body[:2])
                    self.taken[body[2 : 2 + size].decode()] = body[4 + size :].decode(), bool(head[0] & 1)
                    client.sendall(b"\x40\x02" + body[2 + size : 4 + size])
                elif head[0] >> 4 == 14:
                    return


def test_each_set_point_is_a_retained_message_under_its_topic():
    pytest.importorskip("paho.mqtt", reason="publishing needs paho-mqtt")
    broker = Broker()
    broker.start()
    assert publish_setpoints(ROWS, f"127.0.0.1:{broker.port}") == 2
    broker.join(5)
    assert broker.taken.keys() == {"gridlake/setpoints/gas_1", "gridlake/setpoints/battery"}
    text, is_retained = broker.taken["gridlake/setpoints/gas_1"]
    assert is_retained
    assert json.loads(text) == {
        "form": "gridlake.setpoint/1", "asset": "gas 1", "command": "run", "power_mw": 1.5, "reserve_mw": 0.0,
        "valid_from": "2026-03-11T00:00:00+00:00", "valid_until": "2026-03-11T01:00:00+00:00",
    }  # fmt: skip


def test_a_broker_that_is_not_there_is_named():
    pytest.importorskip("paho.mqtt", reason="publishing needs paho-mqtt")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(DispatchError, match=f"The broker 127.0.0.1:{port} can't be used"):
        publish_setpoints(ROWS, f"127.0.0.1:{port}")


@pytest.mark.parametrize("address", ["", ":1883", "host:mqtt"])
def test_an_address_that_is_none_is_refused(address: str):
    with pytest.raises(DispatchError, match="Expected a broker as HOST or HOST:PORT"):
        publish_setpoints(ROWS, address)
