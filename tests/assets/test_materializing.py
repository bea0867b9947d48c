"""Assets at work, in process: what they leave behind, twice as once, and what a user sees when something breaks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest

from definitions import build_definitions
from lakehouse.errors import SourceError
from lakehouse.flow.workspace import Workspace
from tests.flow.builders import day, land, reading_lines, series_lines, village


@pytest.fixture(scope="module")
def landed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("landed") / "site"
    workspace = village(home)
    for n in (3, 4, 5):
        land(workspace, "readings", day(n), f"n{n}.csv", reading_lines(day(n - 1)))
        land(workspace, "market", day(n), f"m{n}.csv", series_lines(day(n), "spot", "price_eur_per_mwh", lambda h: 40.0 + h))
    return home


@pytest.fixture
def workspace(landed: Path, tmp_path: Path) -> Workspace:
    return Workspace.open(shutil.copytree(landed, tmp_path / "site"))


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as one:
        yield one


def materialize(
    workspace: Workspace, instance: dg.DagsterInstance, *tables: str, days: tuple[int, int] | None = None
) -> dg.ExecuteInProcessResult:
    job = build_definitions(workspace.site).resolve_implicit_global_asset_job_def()
    tags = {}
    if days:
        tags = {
            "dagster/asset_partition_range_start": day(days[0]).isoformat(),
            "dagster/asset_partition_range_end": day(days[1]).isoformat(),
        }
    keys = {dg.AssetKey(t.split("/")) for t in tables}
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    return job.get_subset(asset_selection=keys).execute_in_process(instance=instance, tags=tags, raise_on_error=False, run_config=quiet)


def checks(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {f"{e.asset_key.to_user_string()}:{e.check_name}": e.passed for e in result.get_asset_check_evaluations()}


def failure(result: dg.ExecuteInProcessResult) -> str:
    (event,) = [e for e in result.all_events if e.is_step_failure]
    return event.step_failure_data.user_failure_data.description or ""


def sorted_rows(workspace: Workspace, table: str) -> pa.Table:
    contract = workspace.contract(table)
    return workspace.table(table).read().sort_by([(k, "ascending") for k in contract.key])


def test_raw_twice_is_raw_once_and_its_metadata_tells_what_happened(workspace: Workspace, instance: dg.DagsterInstance):
    result = materialize(workspace, instance, "raw/readings", days=(3, 5))
    assert result.success
    once = sorted_rows(workspace, "raw/readings")
    assert materialize(workspace, instance, "raw/readings", days=(3, 5)).success
    assert sorted_rows(workspace, "raw/readings").equals(once)
    (told,) = [e for e in result.get_asset_materialization_events() if e.partition == "2026-03-05" or e.partition is None][:1]
    metadata = told.materialization.metadata
    assert metadata["rows"].value == 72
    assert metadata["touched_days"].value == ["2026-03-02", "2026-03-03", "2026-03-04"]
    assert metadata["dagster/partition_row_count"].value == 72
    assert metadata["delta_version"].value == 0
    assert metadata["bytes"].value > 0
    assert metadata["first_interval_utc"].value == "2026-03-02 00:00"
    assert metadata["dagster/uri"].value == workspace.table("raw/readings").uri
    # The last delivery is of long ago by the clock of this test.
    assert checks(result) == {"raw/readings:contract": True, "raw/readings:files_are_readable": True, "raw/readings:data_is_fresh": False}


def test_every_day_of_a_range_counts_as_materialized(workspace: Workspace, instance: dg.DagsterInstance):
    materialize(workspace, instance, "raw/readings", days=(1, 5))
    done = instance.get_materialized_partitions(dg.AssetKey(["raw", "readings"]))
    assert done == {f"2026-03-0{n}" for n in range(1, 6)}


def test_the_commit_names_the_run_and_the_versions_it_rests_on(workspace: Workspace, instance: dg.DagsterInstance):
    materialize(workspace, instance, "raw/market", days=(3, 5))
    result = materialize(workspace, instance, "cleaned/prices", "cleaned/external_forecasts", days=(3, 5))
    assert result.success
    told = workspace.table("cleaned/prices").history(1)[0]
    assert told["gridlake.run_id"] == result.run_id
    assert json.loads(told["gridlake.inputs"]) == {"raw/market": 0}


def test_the_analyst_sees_each_step_when_it_is_done(workspace: Workspace, instance: dg.DagsterInstance):
    from lakehouse.flow.query import run_query

    materialize(workspace, instance, "raw/market", days=(3, 5))
    materialize(workspace, instance, "cleaned/prices", "cleaned/external_forecasts", days=(3, 3))
    assert run_query(workspace.site, "SELECT count(*) AS n FROM cleaned.prices").to_pylist() == [{"n": 24}]


def test_an_unreadable_file_warns_and_does_not_fail_the_run(workspace: Workspace, instance: dg.DagsterInstance):
    from tests.flow.builders import land_text

    land_text(workspace, "readings", day(4), "broken.csv", "no table")
    result = materialize(workspace, instance, "raw/readings", days=(4, 4))
    assert result.success
    assert checks(result) == {"raw/readings:contract": True, "raw/readings:files_are_readable": False, "raw/readings:data_is_fresh": False}


def test_a_broken_contract_fails_the_blocking_check_and_the_old_partition_stays(
    workspace: Workspace, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
):
    import lakehouse.series.clean as series

    materialize(workspace, instance, "raw/market", days=(3, 5))
    materialize(workspace, instance, "cleaned/prices", "cleaned/external_forecasts", days=(3, 5))
    before, version = sorted_rows(workspace, "cleaned/prices"), workspace.table("cleaned/prices").version()
    clean = series.clean_series

    def wrong(engine, *args, **more):
        cleaned = clean(engine, *args, **more)
        columns = "* REPLACE (price_eur_per_mwh + 1e6 AS price_eur_per_mwh)"
        trusted = dict(cleaned.trusted) | {"cleaned/prices": cleaned.trusted["cleaned/prices"].project(columns)}
        return series.Cleaned(trusted, cleaned.quarantined, cleaned.conservation)

    monkeypatch.setattr(series, "clean_series", wrong)
    result = materialize(workspace, instance, "cleaned/prices", "cleaned/external_forecasts", days=(3, 5))
    assert not result.success
    assert checks(result) == {"cleaned/prices:contract": False}
    assert "cleaned/prices: price_eur_per_mwh must be at most 100000" in failure(result)
    assert "Traceback" not in failure(result)
    assert workspace.table("cleaned/prices").version() == version
    assert sorted_rows(workspace, "cleaned/prices").equals(before)
    assert not result.get_asset_materialization_events()


def test_an_error_a_user_can_mend_is_told_in_its_own_words(
    workspace: Workspace, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
):
    def broken(*args: object) -> None:
        raise SourceError("Expected a lamp, found a candle.", "Light it.")

    monkeypatch.setattr("assets.raw.read_deliveries", broken)
    result = materialize(workspace, instance, "raw/readings", days=(3, 3))
    assert not result.success
    assert failure(result) == "Expected a lamp, found a candle.\nLight it."


def test_a_bug_stays_a_bug(workspace: Workspace, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch):
    def broken(*args: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("assets.raw.read_deliveries", broken)
    result = materialize(workspace, instance, "raw/readings", days=(3, 3))
    (event,) = [e for e in result.all_events if e.is_step_failure]
    assert "ZeroDivisionError" in str(event.step_failure_data.error)
    assert checks(result) == {}, "a bug is not told as bad data"


def test_cleaning_reports_the_ledgers_and_that_nothing_is_lost(workspace: Workspace, instance: dg.DagsterInstance):
    materialize(workspace, instance, "raw/readings", days=(3, 5))
    assert materialize(workspace, instance, "cleaned/meters").success
    result = materialize(workspace, instance, "cleaned/meter_readings", "quality/vee_report", "quality/edits", days=(2, 4))
    assert result.success
    told = checks(result)
    assert told["cleaned/meter_readings:nothing_is_lost"] and told["cleaned/meter_readings:mostly_measured"]
    assert told["cleaned/meter_readings:spike"] and "cleaned/meter_readings:missing_interval" in told
    reported = {e.asset_key.to_user_string() for e in result.get_asset_materialization_events()}
    assert {"quality/quarantine", "quality/conservation", "cleaned/meter_readings"} <= reported
    plots = [
        e.materialization.metadata["plot"].value for e in result.get_asset_materialization_events() if "plot" in e.materialization.metadata
    ]
    assert plots and plots[0].startswith("![plot](data:image/png;base64,")
