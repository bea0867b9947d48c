"""A day larger than DuckDB's memory is cleaned all the same."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import pytest

from lakehouse.metering.vee import validate_estimate_edit
from lakehouse.storage.engine import open_engine
from tests.metering.builders import meters

DAY = date(2026, 3, 10)
METERS = 20_000


@pytest.mark.slow
def test_a_day_in_the_order_of_time_is_sorted_on_disk_where_memory_is_short(tmp_path: Path):
    landed = tmp_path / "day.parquet"
    with open_engine("120MB") as engine:
        engine.execute("SET threads = 2")
        engine.execute(f"""
            COPY (
                SELECT 'day.csv' AS file, n + 2 AS line, DATE '{DAY + timedelta(days=1)}' AS delivery_date, DATE '{DAY}' AS date,
                       NULL::VARCHAR AS fault, NULL::VARCHAR AS raw_text, 'M' || lpad((n % {METERS})::VARCHAR, 5, '0') AS meter_id,
                       'import' AS register, TIMESTAMPTZ '{DAY} 00:00+00' + to_minutes(30 * (n // {METERS})) AS interval_start,
                       30::INTEGER AS interval_minutes, 'A' AS quality, 'readings' AS feed,
                       CASE WHEN n % 997 = 0 THEN -1.0 ELSE round(0.1 + (hash(n) % 1000) / 2500.0, 3) END AS energy_kwh
                FROM range({48 * METERS}) r(n)
            ) TO '{landed}'""")
        engine.execute(f"CREATE VIEW delivered AS SELECT * FROM '{landed}'")
        engine.register("known", meters(*(f"M{n:05d}" for n in range(METERS))))
        vee = validate_estimate_edit(engine, "delivered", days=[DAY], meters="known")
        by_quality: dict[str, int] = {}
        for batch in vee.trusted.to_arrow_reader(100_000):
            for quality in batch["quality"].to_pylist():
                by_quality[quality] = by_quality.get(quality, 0) + 1
        refused = sum(batch.num_rows for batch in vee.quarantined.to_arrow_reader(100_000))
        vee.close()
    negative = len(range(0, 48 * METERS, 997))
    assert refused == negative
    assert by_quality["measured"] == 48 * METERS - negative
