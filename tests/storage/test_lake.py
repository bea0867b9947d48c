"""The lake's promises: partitions replaced atomically, contracts enforced before the commit, no lost update."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import pyarrow as pa
import pytest

from lakehouse.contracts.base import Column
from lakehouse.errors import ContractError, TableNotFoundError
from lakehouse.storage.engine import open_engine, register
from lakehouse.storage.lake import Lake, Lineage
from tests.storage.builders import GrownLoads, Loads, day, loads


def values(table, where=""):
    return sorted(table.read(where).column("load_mw").to_pylist())


def test_a_replaced_day_leaves_the_others_alone(tmp_path):
    table = Lake(tmp_path).table(Loads)
    table.append(loads(1, 10, 11))
    table.append(loads(2, 20, 21))
    commit = table.replace(loads(2, 25), where={"date": day(2)})
    assert values(table) == [10, 11, 25]
    assert (commit.rows, commit.version) == (1, 2)
    assert commit.bytes > 0


def test_writing_twice_equals_writing_once(tmp_path):
    table = Lake(tmp_path).table(Loads)
    for _ in range(2):
        table.replace(loads(1, 10, 11), where={"date": day(1)})
    assert values(table) == [10, 11]


def test_a_broken_row_commits_nothing_and_is_named(tmp_path):
    table = Lake(tmp_path).table(Loads)
    table.append(loads(1, 10))
    with pytest.raises(ContractError, match=r"cleaned/loads: load_mw must be at least 0, found -3\.0 \(1 rows\).*Nothing was committed"):
        table.replace(loads(1, 12, -3), where={"date": day(1)})
    assert values(table) == [10]
    assert table.version() == 0


def test_rows_of_another_day_are_refused(tmp_path):
    table = Lake(tmp_path).table(Loads)
    table.append(loads(1, 10))
    with pytest.raises(ContractError, match="outside the partitions"):
        table.replace(loads(2, 12), where={"date": day(1)})
    assert values(table) == [10]


def test_an_empty_replacement_must_be_asked_for(tmp_path):
    table = Lake(tmp_path).table(Loads)
    table.append(loads(1, 10))
    with pytest.raises(ContractError, match="expected rows, found none"):
        table.replace(Loads.empty(), where={"date": day(1)})
    table.replace(Loads.empty(), where={"date": day(1)}, allow_empty=True)
    assert values(table) == []


def test_a_table_that_is_not_there_reads_empty_and_says_how_to_make_it(tmp_path):
    table = Lake(tmp_path).table(Loads)
    assert table.read().num_rows == 0
    assert table.version() == -1
    with pytest.raises(TableNotFoundError, match="gridlake refresh --until cleaned"):
        table.delta()


def test_older_versions_stay_readable(tmp_path):
    table = Lake(tmp_path).table(Loads)
    table.append(loads(1, 10))
    table.replace(loads(1, 99), where={"date": day(1)})
    assert table.read(version=0).column("load_mw").to_pylist() == [10]
    with pytest.raises(TableNotFoundError, match="no readable version 7"):
        table.read(version=7)


def test_a_new_column_reads_as_missing_in_old_files(tmp_path):
    lake = Lake(tmp_path)
    lake.table(Loads).append(loads(1, 10))
    lake.table(GrownLoads).append(loads(2, 20, temperature_c=[7.5]))
    grown = lake.table(GrownLoads).read().sort_by("interval_start")
    assert grown.column("temperature_c").to_pylist() == [None, 7.5]
    assert values(lake.table(Loads)) == [10, 20]


def test_a_new_column_reads_as_missing_where_no_file_has_it(tmp_path):
    lake = Lake(tmp_path)
    lake.table(Loads).append(loads(1, 10))
    lake.table(GrownLoads).append(loads(2, 20, temperature_c=[7.5]))
    with open_engine() as engine:
        for number, found in ((1, [(10.0, None)]), (2, [(20.0, 7.5)])):
            name = register(engine, lake.table(GrownLoads), only={"date": (day(number), day(number))})
            assert engine.sql(f"SELECT load_mw, temperature_c FROM {name}").fetchall() == found


def test_a_table_of_many_columns_reads_back_whole(tmp_path):
    wide = Loads.derive(Loads.name, extra=[Column("One of many.", nullable=True, name=f"x{n}", type=pa.float64()) for n in range(60)])
    row = loads(1, 10).to_pylist()[0] | {f"x{n}": float(n) for n in range(60)}
    Lake(tmp_path).table(wide).append(pa.Table.from_pylist([row], schema=pa.schema([f.with_nullable(True) for f in wide.arrow_schema()])))
    assert Lake(tmp_path).table(wide).read().to_pylist()[0]["x59"] == 59.0


def test_every_commit_says_who_made_it_from_what(tmp_path):
    table = Lake(tmp_path).table(Loads)
    table.append(loads(1, 10), lineage=Lineage(run_id="r1", code_version="abc", inputs={"raw/loads": 4}))
    told = table.history(1)[0]
    assert (told["gridlake.run_id"], told["gridlake.inputs"]) == ("r1", '{"raw/loads": 4}')


def _write_day(root, number, value):
    Lake(root).table(Loads).replace(loads(number, value), where={"date": day(number)})
    return number


@pytest.mark.slow
def test_eight_writers_of_eight_days_and_two_of_one_day_lose_nothing(tmp_path):
    work = [(n, n * 10.0) for n in range(1, 9)] + [(8, 80.0)]
    with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(_write_day, [tmp_path] * len(work), *zip(*work, strict=True)))
    assert values(Lake(tmp_path).table(Loads)) == [10, 20, 30, 40, 50, 60, 70, 80]


def test_a_table_whose_numbers_seldom_repeat_is_written_without_dictionaries_of_them(tmp_path):
    import pyarrow.parquet as pq

    def encodings(contract):
        table = Lake(tmp_path / contract.__name__).table(contract)
        table.append(loads(1, 10, 11, 10))
        written = pq.ParquetFile(next((tmp_path / contract.__name__).rglob("*.parquet"))).metadata.row_group(0)
        chunks = [written.column(n) for n in range(written.num_columns)]
        assert values(table) == [10, 10, 11]
        return next(c.encodings for c in chunks if c.path_in_schema == "load_mw")

    class Measured(Loads):
        """Numbers that seldom repeat."""

        numbers_repeat = False

    assert "RLE_DICTIONARY" in encodings(Loads)
    assert "RLE_DICTIONARY" not in encodings(Measured)
