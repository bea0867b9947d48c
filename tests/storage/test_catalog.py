"""The analysts' catalog shows each table's newest snapshot, documented, whatever was done to it."""

import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pytest

from lakehouse.storage.catalog import publish_catalog
from lakehouse.storage.engine import connect
from lakehouse.storage.lake import Lake
from tests.servers import PROJECT
from tests.storage.builders import GrownLoads, Loads, day, loads


def rows_in(path, sql="SELECT * FROM cleaned.loads ORDER BY ALL"):
    with duckdb.connect() as analyst:  # a path opened anew from one process shows the old file: attach from a fresh one
        analyst.execute(f"ATTACH '{path}' AS lake (READ_ONLY)")
        analyst.execute("USE lake")
        return analyst.sql(sql).fetchall()


def rows_in_delta(table):
    with duckdb.connect() as engine:
        engine.execute("SET TimeZone = 'UTC'")
        delta = table.delta().to_pyarrow_table().select([c for c in table.contract.columns])
        engine.register("delta", delta)
        return engine.sql("SELECT * FROM delta ORDER BY ALL").fetchall()


def test_each_view_equals_its_delta_table_after_every_kind_of_commit(tmp_path):
    lake, path = Lake(tmp_path / "lake"), tmp_path / "catalog.duckdb"
    table = lake.table(GrownLoads)
    steps = [
        lambda: table.append(loads(1, 10, 11, temperature_c=[1.0, 2.0])),
        lambda: table.append(loads(2, 20, temperature_c=[None])),
        lambda: table.replace(loads(1, 99, temperature_c=[3.0]), where={"date": day(1)}),  # overwrite
        lambda: lake.table(Loads).append(loads(3, 30)),  # files without the newer column
        lambda: table.append(loads(3, 31, series="south", temperature_c=[5.0])),
        lambda: table.compact(),
        lambda: table.delta().delete("load_mw = 20"),
        lambda: table.replace(GrownLoads.empty(), where={"date": day(3)}, allow_empty=True),
    ]
    for step in steps:
        step()
        publish_catalog(lake, [GrownLoads], path)
        assert rows_in(path) == rows_in_delta(table)
    assert rows_in(path, "SELECT load_mw FROM cleaned.loads") == [(99.0,)]


def test_a_table_without_a_commit_is_an_empty_typed_view(tmp_path):
    path = publish_catalog(Lake(tmp_path / "lake"), [Loads], tmp_path / "catalog.duckdb")
    assert rows_in(path) == []
    assert rows_in(path, "SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = 'loads' ORDER BY column_index") == [
        ("series_id", "VARCHAR"),
        ("interval_start", "TIMESTAMP WITH TIME ZONE"),
        ("load_mw", "DOUBLE"),
        ("date", "DATE"),
    ]


def test_tables_and_columns_are_documented_with_units(tmp_path):
    path = publish_catalog(Lake(tmp_path / "lake"), [Loads], tmp_path / "catalog.duckdb")
    assert rows_in(path, "SELECT comment FROM duckdb_views() WHERE view_name = 'loads'") == [("Load of a zone, for tests.",)]
    assert rows_in(path, "SELECT comment FROM duckdb_columns() WHERE table_name = 'loads' AND column_name = 'load_mw'") == [
        ("Mean load; it's never below zero. [MW]",)
    ]


def test_an_analyst_reads_on_while_the_catalog_is_replaced(tmp_path):
    lake, path = Lake(tmp_path / "lake"), tmp_path / "catalog.duckdb"
    lake.table(Loads).append(loads(1, 10))
    publish_catalog(lake, [Loads], path)
    script = (
        "import duckdb, sys\n"
        f"c = duckdb.connect({str(path)!r}, read_only=True)\n"
        "print('open', flush=True)\n"
        "sys.stdin.readline()\n"
        "print(c.sql('SELECT sum(load_mw) FROM cleaned.loads').fetchall()[0][0])\n"
    )
    analyst = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert analyst.stdout.readline() == "open\n"
    lake.table(Loads).replace(loads(1, 99), where={"date": day(1)})
    publish_catalog(lake, [Loads], path)
    assert analyst.communicate("go\n")[0] == "10.0\n"  # the analyst's snapshot, undisturbed
    assert rows_in(path, "SELECT sum(load_mw) FROM cleaned.loads") == [(99.0,)]


def test_publishers_at_once_leave_the_newest_moment_and_no_litter(tmp_path):
    lake, path = Lake(tmp_path / "lake"), tmp_path / "catalog.duckdb"

    def land(number):
        lake.table(Loads).replace(loads(number, number), where={"date": day(number)})
        publish_catalog(lake, [Loads], path)

    land(1)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(land, range(2, 10)))
    assert rows_in(path, "SELECT count(*) FROM cleaned.loads") == [(9,)]
    assert sorted(p.name for p in tmp_path.iterdir()) == [".catalog.duckdb.lock", "catalog.duckdb", "lake"]


def test_a_notebook_reads_the_same_tables_at_an_older_version(tmp_path):
    lake = Lake(tmp_path / "lake")
    lake.table(Loads).append(loads(1, 10))
    lake.table(Loads).replace(loads(1, 99), where={"date": day(1)})
    with connect(lake, [Loads], {"cleaned/loads": 0}) as notebook:
        assert notebook.sql("SELECT load_mw FROM cleaned.loads").fetchall() == [(10.0,)]


@pytest.mark.parametrize("hostile", ["it's", 'a"b', "x; DROP TABLE y", "a*1"])
def test_a_path_with_quotes_is_only_a_path(tmp_path, hostile):
    lake = Lake(tmp_path / hostile)
    lake.table(Loads).append(loads(1, 10))
    path = publish_catalog(lake, [Loads], tmp_path / "catalog.duckdb")
    assert rows_in(path, "SELECT load_mw FROM cleaned.loads") == [(10.0,)]


AS_AN_ANALYST = """
import os, sys, tempfile
from pathlib import Path
import duckdb
from lakehouse.storage.catalog import publish_catalog
from lakehouse.storage.lake import Lake
from tests.storage.builders import Loads, loads

def try_all(home):
    lake, path = Lake(home / "lake"), home / "catalog.duckdb"
    yield "write a table", lambda: lake.table(Loads).append(loads(2, 20))
    yield "replace a day", lambda: lake.table(Loads).replace(loads(1, 99), where={"date": loads(1, 99)["date"][0].as_py()})
    yield "publish the catalog", lambda: publish_catalog(lake, [Loads], path)
    yield "change the catalog", lambda: duckdb.connect(str(path)).execute("CREATE TABLE mine AS SELECT 1")
    yield "remove a file", lambda: next((home / "lake").rglob("*.parquet")).unlink()

with tempfile.TemporaryDirectory() as scratch:  # loads whatever a later import could not read any more
    for _, act in try_all(Path(scratch)):
        act()
if os.geteuid() == 0:  # root may write anywhere
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
home = Path(sys.argv[1])
for what, act in try_all(home):
    try:
        act()
        print("could", what)
    except Exception as error:
        print("refused:", what)
with duckdb.connect() as analyst:
    analyst.execute(f"ATTACH '{home / 'catalog.duckdb'}' AS lake (READ_ONLY)")
    print(analyst.sql("SELECT load_mw FROM lake.cleaned.loads").fetchall())
"""


def test_who_may_only_read_reads_everything_and_changes_nothing():
    with tempfile.TemporaryDirectory() as folder:  # not pytest's, which only its owner may enter
        home = Path(folder)
        lake = Lake(home / "lake")
        lake.table(Loads).append(loads(1, 10))
        publish_catalog(lake, [Loads], home / "catalog.duckdb")
        everything = [home, *home.rglob("*")]
        for path in everything:
            path.chmod(0o555 if path.is_dir() else 0o444)
        try:
            done = subprocess.run([sys.executable, "-c", AS_AN_ANALYST, folder], capture_output=True, text=True, check=False, cwd=PROJECT)
        finally:
            for path in everything:
                path.chmod(0o755)
    tried = ("write a table", "replace a day", "publish the catalog", "change the catalog", "remove a file")
    assert done.stdout.splitlines() == [*(f"refused: {what}" for what in tried), "[(10.0,)]"], done.stderr
