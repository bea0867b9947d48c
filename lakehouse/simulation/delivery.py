"""From the simulated utility to files: what is delivered on which day, and the truth beside it.

A delivery day is a morning: the readings of yesterday (and what is late), the plants' and stations' values up to nine o'clock,
the weather service's forecast for tomorrow; and the market's prices of today, which came yesterday afternoon and lie in
yesterday's folder.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lakehouse.errors import GridlakeError
from lakehouse.simulation import dirt, plants, weather
from lakehouse.simulation.dirt import Fault, Rows
from lakehouse.simulation.meters import REGISTERS, Route, layout, rated_kw, routes, true_energy_kwh
from lakehouse.simulation.utility import Utility, local_day, local_seconds

if TYPE_CHECKING:
    import pyarrow as pa

METERS, READINGS, REGISTERS_READ, WEATHER, WEATHER_FORECAST, GENERATION, PRICES, FLEET = FEEDS = (
    "meters",
    "meter_readings",
    "register_reads",
    "weather",
    "weather_forecast",
    "generation",
    "prices",
    "fleet",
)
TELEMETRY_UNTIL_HOUR = 9
# Whose registers are read, at local midnight: every day, or on the first of a month.
READ_DAILY, READ_MONTHLY = ("shop", "industry"), ("household", "pv")
READINGS_HEADER = b"meter_id,register,interval_start,interval_minutes,energy_kwh,quality\n"
SERIES_HEADER = "series_id,quantity,interval_start,interval_minutes,value,is_forecast\n"
METERS_HEADER = "meter_id,meter_class,interval_minutes,rated_kw,registers,first_date,last_date\n"
_TRUTH_ROWS = 1_000_000
_WEB_PAGE = b"<!DOCTYPE html>\n<html><head><title>503 Service Unavailable</title></head>\n<body>Under maintenance.</body></html>\n"
_BAD_NUMBERS = ("n/a", "ERROR 17", "--", "#VALUE!", "low battery")


@dataclass(frozen=True)
class DeliveredFile:
    """One file as it is delivered.

    Args:
        feed: the feed it belongs to.
        delivery_date: the folder it lands in.
        name: its name.
        content: its bytes.
    """

    feed: str
    delivery_date: date
    name: str
    content: bytes


@dataclass
class Simulation:
    """What was made.

    Args:
        utility: the utility.
        landing: the folder with the deliveries.
        truth: the folder with the truth; None where none was written.
        first_delivery, last_delivery: first and last delivery date.
        files: number of files by feed.
        readings: readings that truly are, whether delivered or not.
        faults: number of readings that each kind of fault touched.
    """

    utility: Utility
    landing: Path
    truth: Path | None
    first_delivery: date
    last_delivery: date
    files: Counter[str] = field(default_factory=Counter)
    readings: int = 0
    faults: Counter[str] = field(default_factory=Counter)


def simulate(out: Path, *, last_day: date, truth: Path | None = None, **utility: Any) -> Simulation:
    """Makes a sample utility and writes what it delivered until the morning after `last_day`, with the truth.

    Files appear whole or not at all, and the same call writes the same bytes. A longer span adds files and changes none.

    Args:
        out: landing folder; files are written to `out/<feed>/<delivery date>/<file>`.
        last_day: last local day whose readings are delivered, on the morning after it.
        truth: folder for the truth; by default `truth` beside `out`.
        **utility: `first_day` and whatever else makes the utility another one; see `Utility`.

    Returns:
        What was made.

    Raises:
        GridlakeError: the span is empty, or the utility can't be.
    """
    who = Utility(**utility)
    if last_day < who.first_day:
        raise GridlakeError(f"Expected a last day on or after the first, found {who.first_day} to {last_day}.", "Exchange the two days.")
    truth = truth or out.parent / "truth"
    made = Simulation(who, out, truth, who.first_day, last_day + timedelta(days=1))
    with _Truth(who, truth) as book:
        for number in range((last_day - who.first_day).days + 2):
            morning = who.first_day + timedelta(days=number)
            for file in _other_files(who, morning):
                _write(out, file)
                made.files[file.feed] += 1
            for route in routes(who):
                for file in _files_of_route(who, route, morning):
                    _write(out, file)
                    made.files[file.feed] += 1
                if number:
                    book.add(route, morning - timedelta(days=1))
        book.add_series(last_day)
        made.readings, made.faults = book.readings, book.faults
    return made


def deliver_day(out: Path, *, day: date, **utility: Any) -> list[Path]:
    """Writes what arrives on one more morning of the same utility: the files that `simulate` would write for it.

    After `simulate(out, last_day=d, …)` the next morning is `day = d + 2 days`: it brings the readings of `d + 1` and the prices
    of `d + 2`. No truth is written.

    Args:
        out: landing folder.
        day: the morning.
        **utility: the same as given to `simulate`.

    Returns:
        The files written.
    """
    return [_write(out, file) for file in deliveries(Utility(**utility), day)]


def deliveries(utility: Utility, morning: date) -> Iterator[DeliveredFile]:
    """The files that arrive until a morning and were not there on the morning before; none before the first day."""
    if morning < utility.first_day:
        return
    yield from _other_files(utility, morning)
    for route in routes(utility):
        yield from _files_of_route(utility, route, morning)


def _files_of_route(utility: Utility, route: Route, morning: date) -> Iterator[DeliveredFile]:
    yield from _reading_files(utility, route, morning)
    yield from _register_files(utility, route, morning)


def _register_files(utility: Utility, route: Route, morning: date) -> Iterator[DeliveredFile]:
    """What the route's registers counted since they were last read, as rows of the canonical readings."""
    yesterday = morning - timedelta(days=1)
    if route.meter_class in READ_DAILY:
        opens = yesterday
    elif route.meter_class in READ_MONTHLY and morning.day == 1:
        opens = max(yesterday.replace(day=1), utility.first_day)
    else:
        return
    if morning <= utility.first_day:
        return
    counted = np.zeros((len(route), len(route.registers)))
    for number in range((morning - opens).days):
        day = opens + timedelta(days=number)
        rows = layout(route, local_day(utility.time_zone, day).quarters)
        np.add.at(counted, (rows.meter, rows.register), true_energy_kwh(utility, route, day))
    start_s, end_s = (local_day(utility.time_zone, day).start_s for day in (opens, morning))
    [stamp], minutes = _stamps(np.array([start_s])), (end_s - start_s) // 60
    lines = [
        f"{meter},{REGISTERS[register]},{stamp},{minutes},{kwh:.3f},A"
        for meter, of_meter in zip(route.meter_ids, counted.tolist(), strict=True)
        for register, kwh in enumerate(of_meter)
    ]
    content = READINGS_HEADER + ("\n".join(lines) + "\n").encode()
    yield DeliveredFile(REGISTERS_READ, morning, f"registers-{yesterday}-{route.name}.csv", content)


def _other_files(utility: Utility, morning: date) -> Iterator[DeliveredFile]:
    first = utility.first_day
    yesterday, tomorrow = morning - timedelta(days=1), morning + timedelta(days=1)
    if morning == first:
        yield DeliveredFile(METERS, morning, "meters.csv", _meters_csv(utility))
        yield DeliveredFile(FLEET, morning, "fleet.json", (json.dumps(plants.fleet(utility), indent=2) + "\n").encode())
        yield _forecast_file(utility, morning, first)
    else:
        since = local_seconds(utility.time_zone, yesterday, 0 if yesterday == first else TELEMETRY_UNTIL_HOUR)
        hours = (local_seconds(utility.time_zone, morning, TELEMETRY_UNTIL_HOUR) - since) // 3600
        yield DeliveredFile(WEATHER, morning, f"weather-{morning}.csv", _series_csv(since, weather.observed(utility, since, hours)))
        generated = {(plant, "generation_mw"): v for plant, v in plants.generation_mw(utility, since, hours).items()}
        yield DeliveredFile(GENERATION, morning, f"generation-{morning}.csv", _series_csv(since, generated))
    price = {(plants.DAY_AHEAD, "price_eur_per_mwh"): plants.day_ahead_price_eur_per_mwh(utility, morning)}
    price_file = _series_csv(local_day(utility.time_zone, morning).start_s, price)
    yield DeliveredFile(PRICES, max(yesterday, first), f"prices-{morning}.csv", price_file)
    yield _forecast_file(utility, tomorrow, morning)


def _forecast_file(utility: Utility, target: date, delivered: date) -> DeliveredFile:
    content = _series_csv(local_day(utility.time_zone, target).start_s, weather.forecast(utility, target), is_forecast=True)
    return DeliveredFile(WEATHER_FORECAST, delivered, f"weather-forecast-{target}.csv", content)


def _reading_files(utility: Utility, route: Route, morning: date) -> Iterator[DeliveredFile]:
    for late in range(dirt.LONGEST_LATENESS_DAYS + 1):
        day = morning - timedelta(days=1 + late)
        if day < utility.first_day:
            return
        plan = dirt.file_plan(utility, route, day)
        stem = f"readings-{day}-{route.name}"
        if late == (plan.days if plan.kind == "late_file" else 0):
            yield DeliveredFile(READINGS, morning, f"{stem}.csv", _first_file(utility, route, day))
        elif plan.kind in ("corrected_file", "empty_file", "not_csv") and late == plan.days:
            rows = dirt.sound_rows(utility, route, day)
            only = None
            if plan.kind == "corrected_file":
                only = np.flatnonzero(np.isin(rows.meter, dirt.corrected_meters(utility, route, day, plan)))
            suffix = "correction" if plan.kind == "corrected_file" else "resent"
            yield DeliveredFile(READINGS, morning, f"{stem}-{suffix}.csv", _readings_csv(rows, only))


def _first_file(utility: Utility, route: Route, day: date) -> bytes:
    plan = dirt.file_plan(utility, route, day)
    if plan.kind == "empty_file":
        return b""
    if plan.kind == "not_csv":
        rng = utility.stream("not csv", route.number, day.toordinal())
        return _WEB_PAGE if plan.share < 0.5 else bytes(rng.integers(0, 256, 20_000, np.uint8))
    rows = dirt.delivered_rows(utility, route, day)
    content = _readings_csv(rows)
    return content[: _cut(content, plan)] if plan.kind == "truncated_file" else content


def _cut(content: bytes, plan: dirt.FilePlan) -> int:
    """Where a truncated file breaks off: in the stamp of a row in its last sixth."""
    line_start = content.rindex(b"\n", 0, int(len(content) * (0.84 + 0.14 * plan.share))) + 1
    return line_start + 24


def _file_order(rows: Rows) -> np.ndarray:
    order = np.argsort(rows.place, kind="stable")  # NaN, what was dropped, comes last
    return order[: len(order) - int(np.isnan(rows.place).sum())]


def _readings_csv(rows: Rows, only: np.ndarray | None = None) -> bytes:
    import pyarrow as pa
    from pyarrow import csv

    order = _file_order(rows) if only is None else only
    starts, which = np.unique(rows.start_s[order], return_inverse=True)
    table = pa.table(
        {
            "meter_id": pa.array(rows.meter_ids).take(pa.array(rows.meter[order])),
            "register": pa.array(REGISTERS).take(pa.array(rows.register[order])),
            "interval_start": pa.array(_stamps(starts)).take(pa.array(which)),
            "interval_minutes": rows.minutes[order],
            "energy_kwh": rows.energy_kwh[order],
            "quality": pa.array(dirt.QUALITY).take(pa.array(rows.quality[order])),
        }
    )
    sink = pa.BufferOutputStream()
    csv.write_csv(table, sink, csv.WriteOptions(include_header=False, quoting_style="none"))
    content = READINGS_HEADER + sink.getvalue().to_pybytes()
    text = rows.text[order]
    return _miswritten(content, text) if text.any() else content


def _miswritten(content: bytes, text: np.ndarray) -> bytes:
    lines = content.decode().split("\n")
    for at in np.flatnonzero(text):
        cells = lines[at + 1].split(",")
        if text[at] == dirt.TEXT_BAD_NUMBER:
            cells[4] = _BAD_NUMBERS[at % len(_BAD_NUMBERS)]
        elif text[at] == dirt.TEXT_MISSING_COLUMN:
            cells = cells[:3]
        else:
            whole, _, decimals = cells[4].partition(".")
            cells[4] = f"{whole},{decimals or '0'}"
        lines[at + 1] = ",".join(cells)
    return "\n".join(lines).encode()


def _stamps(seconds: np.ndarray) -> list[str]:
    return [f"{s}Z" for s in seconds.astype("datetime64[s]").astype(str)]


def _series_csv(start_s: int, values: dict[tuple[str, str], np.ndarray], *, is_forecast: bool = False) -> bytes:
    hours = len(next(iter(values.values())))
    stamps = _stamps(start_s + 3600 * np.arange(hours))
    mark = "true" if is_forecast else "false"
    lines = [f"{s},{q},{at},60,{v:g},{mark}" for (s, q), series in values.items() for at, v in zip(stamps, series.tolist(), strict=True)]
    return (SERIES_HEADER + "\n".join(lines) + "\n").encode()


def _meters_csv(utility: Utility) -> bytes:
    lines = []
    for route in routes(utility):
        rng = utility.stream("installed", route.number)
        installed = rng.integers(date(2012, 1, 1).toordinal(), date(2020, 1, 1).toordinal(), len(route))
        registers = ",".join(route.registers)
        registers = f'"{registers}"' if "," in registers else registers
        rated = rated_kw(utility, route)
        for meter_id, minutes, kw, number in zip(route.meter_ids, route.interval_minutes, rated, installed, strict=True):
            lines.append(f"{meter_id},{route.meter_class},{minutes},{kw:g},{registers},{date.fromordinal(int(number))},")
    return (METERS_HEADER + "\n".join(lines) + "\n").encode()


def _write(out: Path, file: DeliveredFile) -> Path:
    path = out / file.feed / file.delivery_date.isoformat() / file.name
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.part")  # hidden until whole: landing never shows half a file
    unfinished.write_bytes(file.content)
    return unfinished.replace(path)


class _Truth:
    """Writes the folder of the truth, a million readings at a time."""

    def __init__(self, utility: Utility, folder: Path) -> None:
        self.utility, self.folder = utility, folder
        self.readings = 0
        self.faults: Counter[str] = Counter()
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0
        self._waiting_faults: list[pa.Table] = []
        self._load_mwh: dict[date, np.ndarray] = {}

    def __enter__(self) -> _Truth:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.folder.mkdir(parents=True, exist_ok=True)
        self._instant = pa.timestamp("us", tz="UTC")
        word = pa.dictionary(pa.int32(), pa.string())
        self._reading_schema = pa.schema(
            {
                "meter_id": word,
                "register": word,
                "interval_start": self._instant,
                "interval_minutes": pa.int32(),
                "energy_kwh": pa.float64(),
            }
        )
        self._fault_schema = pa.schema(
            {
                "kind": pa.string(),
                "meter_id": pa.string(),
                "register": pa.string(),
                "interval_start": self._instant,
                "interval_minutes": pa.int32(),
                "true_kwh": pa.float64(),
                "delivered_kwh": pa.float64(),
                "delivered_start": self._instant,
                "file": pa.string(),
                "line": pa.int64(),
                "delivery_date": pa.date32(),
                "day": pa.date32(),
            }
        )
        self._ids = pa.array([m for r in routes(self.utility) for m in r.meter_ids])
        self._first_id = np.cumsum([0] + [len(r) for r in routes(self.utility)])
        self._readings = pq.ParquetWriter(self.folder / "readings.parquet", self._reading_schema, compression="zstd", compression_level=1)
        self._faults = pq.ParquetWriter(self.folder / "faults.parquet", self._fault_schema, compression="zstd")
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._readings.close()
        self._faults.close()

    def add(self, route: Route, day: date) -> None:
        """Adds the true readings and the faults of a route's local day."""
        import pyarrow as pa

        local = local_day(self.utility.time_zone, day)
        rows = layout(route, local.quarters)
        energy = true_energy_kwh(self.utility, route, day)
        signed = np.where(rows.register == 0, energy, -energy)
        load_mwh = self._load_mwh.setdefault(day, np.zeros(local.quarters // 4))
        load_mwh += np.bincount(rows.start_s // 3600, signed, len(load_mwh)) / 1000
        who = pa.array((rows.meter + self._first_id[route.number]).astype(np.int32))
        register = pa.array(rows.register.astype(np.int32))
        self._waiting.append(
            pa.table(
                {
                    "meter_id": pa.DictionaryArray.from_arrays(who, self._ids),
                    "register": pa.DictionaryArray.from_arrays(register, pa.array(REGISTERS)),
                    "interval_start": pa.array((local.start_s + rows.start_s) * 1_000_000).cast(self._instant),
                    "interval_minutes": pa.array(rows.minutes.astype(np.int32)),
                    "energy_kwh": energy,
                },
                schema=self._reading_schema,
            )
        )
        self._waiting_rows += len(energy)
        self.readings += len(energy)
        self._add_faults(route, day)
        if self._waiting_rows >= _TRUTH_ROWS:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._waiting:
            self._readings.write_table(pa.concat_tables(self._waiting))
        if self._waiting_faults:
            self._faults.write_table(pa.concat_tables(self._waiting_faults))
        self._waiting, self._waiting_rows, self._waiting_faults = [], 0, []

    def _add_faults(self, route: Route, day: date) -> None:
        plan = dirt.file_plan(self.utility, route, day)
        if not plan.kind and not dirt.meter_faults(self.utility, route, day).any():
            return
        rows = dirt.delivered_rows(self.utility, route, day)
        order = _file_order(rows)
        line = np.zeros(len(rows), np.int64)
        line[order] = np.arange(len(order)) + 2
        faults = rows.faults
        if plan.kind in ("late_file", "truncated_file", "empty_file", "not_csv"):
            faults = [_whole_file_fault(rows, plan)]
        delivered = day + timedelta(days=1 + (plan.days if plan.kind == "late_file" else 0))
        name = f"readings-{day}-{route.name}.csv"
        for fault in faults:
            self.faults[fault.kind] += len(fault.rows)
            self._waiting_faults.append(self._fault_table(fault, rows, line, name, delivered, day))

    def _fault_table(self, fault: Fault, rows: Rows, line: np.ndarray, name: str, delivered: date, day: date) -> pa.Table:
        import pyarrow as pa

        n = len(fault.rows)
        is_there = fault.rows >= 0
        moment = np.where(np.isnan(fault.delivered_start_s), 0, fault.delivered_start_s).astype(np.int64) * 1_000_000
        return pa.table(
            {
                "kind": pa.array([fault.kind] * n),
                "meter_id": pa.array(rows.meter_ids).take(pa.array(fault.meter)),
                "register": pa.array(REGISTERS).take(pa.array(fault.register)),
                "interval_start": pa.array(fault.start_s.astype(np.int64) * 1_000_000).cast(self._instant),
                "interval_minutes": pa.array(fault.minutes.astype(np.int32)),
                "true_kwh": pa.array(fault.true_kwh, from_pandas=True),
                "delivered_kwh": pa.array(fault.delivered_kwh, from_pandas=True),
                "delivered_start": pa.array(moment, mask=np.isnan(fault.delivered_start_s)).cast(self._instant),
                "file": pa.array([name] * n),
                "line": pa.array(np.where(is_there, line[np.maximum(fault.rows, 0)], 0), mask=~is_there),
                "delivery_date": pa.array([delivered] * n),
                "day": pa.array([day] * n),
            },
            schema=self._fault_schema,
        )

    def add_series(self, last_day: date) -> None:
        """Writes the truth of load, weather, generation and prices by hour, to the end of the last day."""
        first = local_day(self.utility.time_zone, self.utility.first_day).start_s
        end = local_day(self.utility.time_zone, last_day + timedelta(days=1)).start_s
        hours = (end - first) // 3600
        load = np.concatenate([self._load_mwh[d] for d in sorted(self._load_mwh)])  # MWh in an hour: MW
        self._series("load", first, {("portfolio", "load_mw"): load})
        self._series("weather", first, weather.observed(self.utility, first, hours))
        self._series("generation", first, {(p, "generation_mw"): v for p, v in plants.generation_mw(self.utility, first, hours).items()})
        days = [self.utility.first_day + timedelta(days=n) for n in range((last_day - self.utility.first_day).days + 1)]
        price = np.concatenate([plants.day_ahead_price_eur_per_mwh(self.utility, d) for d in days])
        self._series("prices", first, {(plants.DAY_AHEAD, "price_eur_per_mwh"): price})
        told = {k: v.isoformat() if isinstance(v, date) else v for k, v in asdict(self.utility).items() if k != "holidays"}
        (self.folder / "utility.json").write_text(json.dumps(told | {"last_day": last_day.isoformat()}, indent=2) + "\n", encoding="utf-8")

    def _series(self, name: str, start_s: int, values: dict[tuple[str, str], np.ndarray]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        n = len(next(iter(values.values())))
        starts = np.tile((start_s + 3600 * np.arange(n)) * 1_000_000, len(values))
        table = pa.table(
            {
                "series_id": pa.array(np.repeat([s for s, _ in values], n)),
                "quantity": pa.array(np.repeat([q for _, q in values], n)),
                "interval_start": pa.array(starts).cast(self._instant),
                "value": np.concatenate(list(values.values())),
            }
        )
        pq.write_table(table, self.folder / f"{name}.parquet")


def _whole_file_fault(rows: Rows, plan: dirt.FilePlan) -> Fault:
    """The readings that a fault of the file touched: all of it, or what a truncated file lost (its broken row is line last)."""
    at = np.arange(len(rows))
    if plan.kind == "truncated_file":
        content = _readings_csv(rows)
        at = at[content[: _cut(content, plan)].count(b"\n") - 1 :]
        fault = dirt._fault(plan.kind, rows, at, rows.energy_kwh[at].copy(), is_missing=True)
        fault.rows[0] = at[0]
        return fault
    return dirt._fault(plan.kind, rows, at, rows.energy_kwh.copy(), is_missing=plan.kind != "late_file")


def read_utility(truth: Path) -> dict[str, Any]:
    """The arguments with which a utility was simulated, from its folder of truth; for `deliver_day`."""
    told = json.loads((truth / "utility.json").read_text(encoding="utf-8"))
    told.pop("last_day")
    return told | {"first_day": date.fromisoformat(told["first_day"])}
