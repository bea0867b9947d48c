"""`gridlake stream`: messages of a broker into landing files, until it is stopped."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Annotated, Any

import typer

from lakehouse.terminal import console

stream = typer.Typer(help="Lands the messages of a broker, until it is stopped (Ctrl-C).", no_args_is_help=True)

Feed = Annotated[str, typer.Argument(help="Name of the feed, of a canonical format.")]
Broker = Annotated[str, typer.Option(help="HOST:PORT. Credentials come from the environment: docs/streams.md.")]
Messages = Annotated[int, typer.Option(help="Most messages of a file.")]
Seconds = Annotated[float, typer.Option(help="Longest time until a message's file is closed.")]


@stream.command()
def kafka(
    feed: Feed,
    topic: Annotated[str, typer.Option(help="The topic.")],
    broker: Broker = "localhost:9092",
    messages: Messages = 50_000,
    seconds: Seconds = 30.0,
) -> None:
    """From a topic of Kafka: nothing lost, nothing doubled."""
    from lakehouse.streams.kafka import stream_kafka

    _stream(stream_kafka, feed, broker, topic, messages, seconds)


@stream.command()
def mqtt(
    feed: Feed,
    topic: Annotated[str, typer.Option(help="A topic filter, such as meters/+/readings.")],
    broker: Broker = "localhost:1883",
    client_id: Annotated[str, typer.Option(help="Name of the session at the broker.")] = "gridlake",
    messages: Messages = 50_000,
    seconds: Seconds = 30.0,
) -> None:
    """From topics of MQTT: at least once; cleaning drops what comes twice."""
    from lakehouse.streams.mqtt import stream_mqtt

    _stream(stream_mqtt, feed, broker, topic, messages, seconds, client_id=client_id)


def _stream(source: Callable[..., int], feed: str, broker: str, topic: str, messages: int, seconds: float, **more: Any) -> None:
    from lakehouse.errors import SiteError
    from lakehouse.site import load_site
    from lakehouse.storage.landing import Landing
    from lakehouse.streams.batch import Limits

    site = load_site()
    if feed not in site.feeds:
        raise SiteError(f"The site '{site.name}' has no feed '{feed}'.", f"Its feeds: {', '.join(site.feeds)}.")
    stopped: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda seen, _frame: stopped.append(seen))

    def told(file: str, count: int, lag: int) -> None:
        console().print(f"{file}: {count:,} messages" + (f", {lag:,} behind" if lag else ""), highlight=False)

    landing = Landing(site.path("landing"))
    landed = source(
        landing, feed, site.feeds[feed].format, site.today, broker, topic,
        limits=Limits(messages, seconds), stop=lambda: bool(stopped), tell=told, **more,
    )  # fmt: skip
    console().print(f"Stopped. {landed:,} messages have landed; the next start goes on behind them.", highlight=False)
