"""A thousand broken files: none crashes a reader, and no row that its contract forbids comes through unnamed."""

from __future__ import annotations

import gzip
import io
import random
import zipfile
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakehouse.contracts.raw import RawReadings
from lakehouse.sources.base import LandedFile, ReadOptions, read_file

CSV = "meter_id,register,interval_start,interval_minutes,energy_kwh,quality\n" + "".join(
    f"M{n % 3},import,2026-03-02T{n // 3:02}:00:00Z,60,{0.1 + n / 100:.3f},A\n" for n in range(60)
)
NEM12 = "100,NEM12,200405011135,MDA1,Ret1\n200,NMI1,E1,1,E1,N1,METSER,kWh,30,\n300,20040201," + "1.5," * 48 + "V,,,,\n400,1,48,A,,\n900\n"
OCTOPUS = "meter_identifier,interval_start,interval_end,kWh_per_half_hour\n" + "".join(
    f"x,2017-11-05 {n:02}:00:00+00:00,2017-11-05 {n:02}:30:00+00:00,0.{n + 1}\n" for n in range(24)
)
ESPI = (
    '<feed xmlns="http://www.w3.org/2005/Atom"><entry><link rel="self" href="ReadingType/1"/><content>'
    '<ReadingType xmlns="http://naesb.org/espi"><uom>72</uom></ReadingType></content></entry><entry>'
    '<link rel="self" href="UsagePoint/1/MeterReading/1/IntervalBlock/1"/><content><IntervalBlock xmlns="http://naesb.org/espi">'
    + "".join(
        f"<IntervalReading><timePeriod><duration>3600</duration><start>{1293868800 + 3600 * n}</start></timePeriod>"
        f"<value>{n}</value></IntervalReading>\n"
        for n in range(20)
    )
    + "</IntervalBlock></content></entry></feed>"
)
READS = "meter_id,read_at,reading_kwh\n" + "".join(f"A,2026-03-02T{n:02}:00:00Z,{n * 1.5}\n" for n in range(24))
SOUND = {"canonical_readings": CSV, "nem12": NEM12, "octopus": OCTOPUS, "greenbutton": ESPI, "register_reads": READS}


def mutated(text: str, rng: random.Random) -> bytes:
    """A sound file, broken in one to four ways."""
    data = bytearray(text.encode())
    for _ in range(rng.randint(1, 4)):
        kind = rng.choice(["flip", "cut", "insert", "swap", "null", "long", "encoding", "newline", "pack"])
        at = rng.randrange(len(data)) if data else 0
        if kind == "flip" and data:
            data[at] = rng.randrange(256)
        elif kind == "cut":
            del data[at:]
        elif kind == "insert":
            data[at:at] = rng.choice([b'"', b",", b";", b"\xff\xfe", b"nan", b"-", b"1e400", b"9" * 50, "é".encode(), b"\r", b"\t"])
        elif kind == "swap":
            lines = bytes(data).split(b"\n")
            one, other = rng.randrange(len(lines)), rng.randrange(len(lines))
            lines[one], lines[other] = lines[other], b",".join(reversed(lines[one].split(b",")))
            data = bytearray(b"\n".join(lines))
        elif kind == "null":
            data[at:at] = b"\x00" * rng.randint(1, 9)
        elif kind == "long":
            data[at:at] = b"7" * rng.choice([2_000, 1_100_000])
        elif kind == "encoding":
            data = bytearray(bytes(data).decode("latin-1").encode(rng.choice(["utf-16", "utf-8", "utf-16-be"])))
        elif kind == "newline":
            data = bytearray(bytes(data).replace(b"\n", rng.choice([b"\r\n", b"\r", b"\n\n"])))
        elif kind == "pack":
            packed = io.BytesIO()
            with zipfile.ZipFile(packed, "w") as archive:
                archive.writestr(rng.choice(["a.csv", "../a.csv", "x/y.csv"]), bytes(data))
            data = bytearray(rng.choice([gzip.compress(bytes(data)), packed.getvalue()]))
    return bytes(data)


def check(path: Path, format_name: str) -> None:
    file = LandedFile(path, path.name, date(2026, 3, 3), "readings")
    for table in read_file(file, format_name, ReadOptions()):
        rows = RawReadings.conform(table).to_pylist()
        for row in rows:
            assert "breaks its reader" not in (row["fault"] or ""), row["fault"]
            if row["fault"] is None:
                assert None not in (
                    row["meter_id"],
                    row["register"],
                    row["interval_start"],
                    row["interval_minutes"],
                    row["energy_kwh"],
                    row["date"],
                )
                assert row["energy_kwh"] == row["energy_kwh"] and abs(row["energy_kwh"]) != float("inf")
                assert row["line"] >= 1
            else:
                assert len(row["raw_text"] or "") <= 1000


@pytest.mark.parametrize("format_name", SOUND)
@pytest.mark.parametrize("seed", range(20))
def test_ten_broken_files_break_no_reader(tmp_path, format_name, seed):
    rng = random.Random(f"{format_name} {seed}")
    for n in range(10):
        path = tmp_path / f"{n}.csv"
        path.write_bytes(mutated(SOUND[format_name], rng))
        check(path, format_name)


def test_a_hundred_broken_parquet_files_break_no_reader(tmp_path):
    """Bytes flipped anywhere, pages and footer included, or the end cut off."""
    sound = tmp_path / "sound.parquet"
    stamps = [datetime(2026, 3, 2, tzinfo=UTC) + timedelta(minutes=30 * n) for n in range(2000)]
    columns = {
        "meter_id": [f"M{n % 7}" for n in range(2000)],
        "interval_start": pa.array(stamps, pa.timestamp("us", "UTC")),
        "interval_minutes": pa.array([30] * 2000, pa.int32()),
        "energy_kwh": [n / 1000 for n in range(2000)],
    }
    pq.write_table(pa.table(columns), sound, row_group_size=500)
    rng = random.Random("parquet")
    for n in range(100):
        data = bytearray(sound.read_bytes())
        for _ in range(rng.randint(1, 20)):
            data[rng.randrange(4, len(data))] = rng.randrange(256)
        if n % 5 == 0:
            del data[rng.randrange(len(data)) :]
        path = tmp_path / f"{n}.parquet"
        path.write_bytes(data)
        check(path, "canonical_readings")
