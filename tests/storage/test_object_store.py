"""A lake on an object store keeps the same promises, and its credentials stay in the environment."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pyarrow.fs import FileSelector, S3FileSystem

from lakehouse.errors import SiteError
from lakehouse.flow.query import run_query
from lakehouse.flow.workspace import Workspace
from lakehouse.storage.catalog import publish_catalog
from lakehouse.storage.engine import connect
from lakehouse.storage.lake import Lake
from lakehouse.storage.objects import s3_arguments
from tests.storage.builders import Loads, day, loads
from tests.storage.object_store import object_store

SAMPLE = Path(__file__).resolve().parents[2] / "examples" / "sites" / "sample.yaml"

pytest.importorskip("moto", reason="moto, the stand-in for S3, is not installed")


@pytest.fixture(scope="module")
def store():
    with object_store() as running:
        yield running


@pytest.fixture
def lake(store, request):
    return Lake(f"s3://lake/{request.node.name}", store.options)


def values(table, where=""):
    return sorted(table.read(where).column("load_mw").to_pylist())


def test_a_day_is_replaced_and_read_back_through_duckdb(lake):
    table = lake.table(Loads)
    assert values(table) == []
    table.append(loads(1, 10, 11))
    table.append(loads(2, 20, 21))
    table.replace(loads(2, 25), where={"date": day(2)})
    assert values(table) == [10, 11, 25]
    assert values(table, "date = DATE '2026-03-02'") == [25]
    assert sorted(table.read(version=1).column("load_mw").to_pylist()) == [10, 11, 20, 21]


def test_writers_of_different_days_do_not_lose_each_others_rows(lake):
    table = lake.table(Loads)
    table.append(loads(1, 1))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: lake.table(Loads).replace(loads(n, n), where={"date": day(n)}), range(2, 10)))
    assert values(table) == list(range(1, 10))


def test_a_table_that_is_known_is_followed_and_not_opened_anew(lake, store, monkeypatch):
    table, elsewhere = lake.table(Loads), Lake(lake.root, store.options).table(Loads)
    table.append(loads(1, 10))
    assert table.version() == elsewhere.version() == 0
    elsewhere.append(loads(2, 20))
    monkeypatch.setattr("lakehouse.storage.lake.LakeTable.delta", lambda *_: pytest.fail("opened anew"))
    assert table.version() == 1
    assert [one.partition["date"] for one in table.files()] == [day(2), day(1)]


def test_who_opens_a_table_of_many_commits_fetches_the_last_few_only(lake, store):
    for n in range(12):
        lake.table(Loads).replace(loads(1, n), where={"date": day(1)})
    log = f"{lake.root.removeprefix('s3://')}/{Loads.name}/_delta_log"
    names = [one.base_name for one in S3FileSystem(**s3_arguments(store.options)).get_file_info(FileSelector(log, recursive=True))]
    assert "_last_checkpoint" in names
    assert values(Lake(lake.root, store.options).table(Loads)) == [11]


def test_a_file_too_large_to_be_fetched_whole_is_read_piece_by_piece(lake, monkeypatch):
    monkeypatch.setattr("lakehouse.storage.objects.READ_AT_ONCE_BYTES", 0)
    lake.table(Loads).append(loads(1, 10, 11))
    assert values(lake.table(Loads)) == [10, 11]


def test_all_tables_are_joined_in_one_connection(lake):
    lake.table(Loads).append(loads(1, 10, 11))
    with connect(lake, [Loads]) as engine:
        joined = engine.sql("SELECT sum(a.load_mw) FROM cleaned.loads a JOIN cleaned.loads b USING (interval_start, series_id)")
        assert joined.fetchall() == [(21,)]


def test_the_catalog_lies_on_disk_and_reads_from_the_store(lake, store, tmp_path, monkeypatch):
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    text = SAMPLE.read_text(encoding="utf-8")
    (tmp_path / "gridlake.yaml").write_text(f"{text}\nfirst_day: 2026-03-01\npaths: {{lake: '{lake.root}'}}\n", encoding="utf-8")
    site = Workspace.open(tmp_path).site
    lake.table(Loads).append(loads(1, 10, 11))
    publish_catalog(lake, [Loads], site.path("catalog"))
    assert run_query(site, "SELECT sum(load_mw) AS mw FROM cleaned.loads").to_pylist() == [{"mw": 21}]
    assert b"no-secret" not in site.path("catalog").read_bytes()


def test_credentials_in_the_site_file_are_refused():
    with pytest.raises(SiteError, match="without credentials"):
        Lake("s3://key:secret@lake/x")


def test_a_store_that_cannot_be_read_is_named(tmp_path):
    from lakehouse.storage.engine import open_engine
    from lakehouse.storage.objects import give_access

    with open_engine() as engine, pytest.raises(SiteError, match=r"begins with s3://.*found gs://lake"):
        give_access(engine, Lake("gs://lake"))


def test_reader_and_writer_take_the_same_options():
    options = {"AWS_ACCESS_KEY_ID": "k", "aws_secret_access_key": "s", "AWS_ENDPOINT_URL": "http://127.0.0.1:9000", "AWS_REGION": "eu-1"}
    assert s3_arguments(options, {"AWS_REGION": "other", "AWS_SESSION_TOKEN": "t", "HOME": str(Path.home())}) == {
        "access_key": "k",
        "secret_key": "s",
        "session_token": "t",
        "region": "eu-1",
        "endpoint_override": "127.0.0.1:9000",
        "scheme": "http",
        "force_virtual_addressing": False,
    }
    assert s3_arguments({}, {}) == {}
