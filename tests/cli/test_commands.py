"""The command as a user meets it: what it prints, its exit codes, and for each mistake one clear sentence and the next step."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from lakehouse import cli
from lakehouse.flow.workspace import Workspace
from tests.flow.builders import clean_up_to_date, day, land, reading_lines, series_lines, village

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Told:
    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """What a failed command said: some words, a next step, no traceback."""
        assert self.code not in (0, None)
        assert "Traceback" not in self.out + self.err
        assert self.out == "", "a failure prints nothing that a script could take for a result"
        lines = [line for line in self.err.splitlines() if line.strip()]
        assert len(lines) >= 2, f"a sentence and the next step, found: {self.err}"
        return " ".join(self.err.split())


@pytest.fixture
def gridlake(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Told]:
    """Runs the command in this process, in an empty folder."""
    monkeypatch.delenv("GRIDLAKE_HOME", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(*arguments: object) -> Told:
        monkeypatch.setattr(sys, "argv", ["gridlake", *map(str, arguments)])
        code: object = 0
        try:
            cli.main()
        except SystemExit as stopped:
            code = stopped.code or 0
        monkeypatch.delenv("GRIDLAKE_HOME", raising=False)
        captured = capsys.readouterr()
        return Told(int(str(code)), captured.out, captured.err)

    return run


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small site with cleaned tables and a catalog."""
    home = tmp_path_factory.mktemp("filled") / "site"
    workspace = village(home)
    land(workspace, "readings", day(3), "n3.csv", reading_lines(day(2)))
    land(workspace, "market", day(3), "m3.csv", series_lines(day(3), "spot", "price_eur_per_mwh", lambda h: 40.0 + h))
    clean_up_to_date(workspace)
    workspace.publish()
    return home


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    return village(tmp_path / "empty").site.home


# -- init


def test_init_makes_a_site_and_says_what_comes_next(gridlake, tmp_path: Path):
    home = tmp_path / "new"
    told = gridlake("init", home, "--days", 30, "--meters", 5, "--until", "2026-03-31")
    assert told.code == 0
    assert "Site 'sample'" in told.out and f"Next: gridlake --home {home} refresh" in told.out
    workspace = Workspace.open(home)
    assert workspace.site.clock and workspace.site.clock.isoformat() == "2026-03-31"
    assert all(workspace.landing.deliveries(feed) for feed in workspace.site.feeds)
    again = gridlake("init", home)
    assert again.code == 2 and "There is a site in" in again.sentence and "Choose another folder" in again.sentence


def test_init_tells_a_script_in_json(gridlake, tmp_path: Path):
    told = gridlake("init", tmp_path / "new", "--days", 30, "--meters", 5, "--until", "2026-03-31", "--json")
    document = json.loads(told.out)
    assert document["site"] == "sample" and document["landed"]["meters"] == 1


def test_init_with_a_site_that_does_not_ship(gridlake, tmp_path: Path):
    told = gridlake("init", tmp_path / "new", "--site", "atlantis")
    assert "Expected an example site, found 'atlantis'" in told.sentence and "sample" in told.sentence
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["../sample", "/etc/passwd", ""])
def test_init_with_a_site_that_is_a_path(gridlake, tmp_path: Path, name: str):
    assert "Expected an example site" in gridlake("init", tmp_path / "new", "--site", name).sentence


def test_init_of_a_published_site_without_its_data(gridlake, tmp_path: Path):
    told = gridlake("init", tmp_path / "new", "--site", "spain")
    assert "needs data" in told.sentence and "--data PATH" in told.sentence
    assert not (tmp_path / "new").exists()


def test_init_with_data_that_is_no_folder(gridlake, tmp_path: Path):
    assert "found none at" in gridlake("init", tmp_path / "new", "--site", "spain", "--data", tmp_path / "nowhere").sentence


def test_init_with_a_folder_of_other_files(gridlake, tmp_path: Path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "holiday.jpg").write_bytes(b"\xff\xd8\xff")
    told = gridlake("init", tmp_path / "new", "--site", "octopus", "--data", other)
    assert "None of the files in" in told.sentence and "Expected files such as" in told.sentence
    assert not (tmp_path / "new" / "gridlake.yaml").exists()


def test_init_after_a_failed_init_works(gridlake, tmp_path: Path):
    other = tmp_path / "other"
    other.mkdir()
    assert gridlake("init", tmp_path / "new", "--site", "octopus", "--data", other).code == 2
    assert gridlake("init", tmp_path / "new", "--days", 30, "--meters", 5, "--until", "2026-03-31").code == 0


@pytest.mark.parametrize("wrong", [("--days", 3), ("--days", -5), ("--meters", 0), ("--meters", -1)])
def test_init_with_a_size_that_makes_no_site(gridlake, tmp_path: Path, wrong: tuple[str, int]):
    told = gridlake("init", tmp_path / "new", *wrong, "--until", "2026-03-31")
    assert told.code != 0 and "Traceback" not in told.err and told.err.strip()
    assert not (tmp_path / "new" / "gridlake.yaml").exists()


def test_init_into_a_file(gridlake, tmp_path: Path):
    (tmp_path / "new").write_text("a file", encoding="utf-8")
    told = gridlake("init", tmp_path / "new")
    assert str(tmp_path / "new") in told.sentence.replace(" ", "") or "new" in told.sentence


# -- land


def test_land_copies_a_file_whole(gridlake, empty: Path, tmp_path: Path):
    file = tmp_path / "n.csv"
    file.write_text("meter_id,register\n", encoding="utf-8")
    told = gridlake("--home", empty, "land", "readings", file, "--delivered", "2026-03-05")
    assert (told.code, told.out.strip()) == (0, "n.csv: landed as readings/2026-03-05/n.csv")
    assert (empty / "landing/readings/2026-03-05/n.csv").read_bytes() == file.read_bytes()
    assert list((empty / "landing" / ".incoming").iterdir()) == []
    again = json.loads(gridlake("--home", empty, "land", "readings", file, "--delivered", "2026-03-05", "--json").out)
    assert again == [{"file": "n.csv", "outcome": "was landed already, byte for byte"}]
    file.write_text("meter_id,register,more\n", encoding="utf-8")
    assert "n~2.csv" in gridlake("--home", empty, "land", "readings", file, "--delivered", "2026-03-05").out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nofeed", "FILE"), "The site 'village' has no feed 'nofeed'. Its feeds: readings, market."),
        (("readings", "MISSING"), "Expected a file at"),
        (("readings", "FOLDER"), "found a folder"),
        (("readings", "FILE", "--delivered", "2062-01-01"), "outside the site's calendar, 2026-03-01 to 2026-03-20"),
    ],
)
def test_land_what_cannot_be_landed(gridlake, empty: Path, tmp_path: Path, arguments: tuple[str, ...], says: str):
    (tmp_path / "n.csv").write_text("x", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    places = {"FILE": tmp_path / "n.csv", "MISSING": tmp_path / "none.csv", "FOLDER": tmp_path / "folder"}
    assert says in gridlake("--home", empty, "land", *(places.get(a, a) for a in arguments)).sentence
    assert not [p for p in (empty / "landing").rglob("*") if p.is_file()]


def test_land_several_of_which_one_is_missing_lands_none(gridlake, empty: Path, tmp_path: Path):
    (tmp_path / "n.csv").write_text("x", encoding="utf-8")
    told = gridlake("--home", empty, "land", "readings", tmp_path / "n.csv", tmp_path / "none.csv")
    assert "Expected a file at" in told.sentence
    assert not [p for p in (empty / "landing").rglob("*") if p.is_file()]


# -- sql


def test_sql_prints_a_table(gridlake, filled: Path):
    told = gridlake("--home", filled, "sql", "SELECT count(*) AS n, sum(price_eur_per_mwh) AS total, NULL AS none FROM cleaned.prices")
    assert told.code == 0
    assert "24" in told.out and "1,236.00" in told.out and "–" in told.out and "1 row" in told.out


def test_sql_prints_csv_json_and_parquet(gridlake, filled: Path, tmp_path: Path):
    query = "SELECT interval_start, price_eur_per_mwh AS price FROM cleaned.prices ORDER BY 1 LIMIT 2"
    csv = gridlake("--home", filled, "sql", query, "--format", "csv").out
    assert duckdb.from_csv_auto(io.StringIO(csv)).fetchall()[1][1] == 41.0
    assert json.loads(gridlake("--home", filled, "sql", query, "--json").out) == [
        {"interval_start": "2026-03-03T00:00:00+00:00", "price": 40.0},
        {"interval_start": "2026-03-03T01:00:00+00:00", "price": 41.0},
    ]
    out = tmp_path / "out.parquet"
    assert gridlake("--home", filled, "sql", query, "--format", "parquet", "--out", out).code == 0
    assert pq.read_table(out)["price"].to_pylist() == [40.0, 41.0]
    assert gridlake("--home", filled, "sql", query, "--format", "csv", "--out", tmp_path / "o.csv").out == ""
    assert (tmp_path / "o.csv").read_text(encoding="utf-8") == csv


def test_what_json_cannot_say_is_said_in_words_that_it_can(gridlake, filled: Path):
    told = gridlake(
        "--home", filled, "sql", "SELECT 'NaN'::DOUBLE AS a, 'inf'::DOUBLE AS b, DATE '2026-01-01' AS c, 1.5::DECIMAL(4,1) AS d", "--json"
    )
    strict = json.loads(told.out, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert (strict[0]["a"], strict[0]["c"]) == (None, "2026-01-01")


@pytest.mark.parametrize(
    ("query", "code", "says"),
    [
        ("FROM cleaned.price", 5, "There is no table 'price'. Did you mean cleaned.prices"),
        ("FROM cleaned.meter_reading", 5, "Did you mean cleaned.meter_readings"),
        ("FROM nowhere", 5, "gridlake tables lists them all"),
        ("FROM nolayer.prices", 5, "cleaned.prices"),
        ("SELEC 1", 2, "The query can't be run"),
        ("SELECT nonsense FROM cleaned.prices", 2, "nonsense"),
        ("SELECT 1/0::INT + 'x'", 2, "The query can't be run"),
        ("SELECT nofunction(1)", 2, "The query can't be run"),
        ("", 2, "query"),
        ("   ;  ", 2, "query"),
        ("CREATE TABLE cleaned.mine AS SELECT 1", 2, "read-only"),
        ("DROP VIEW cleaned.prices", 2, "read-only"),
        ("DELETE FROM cleaned.prices", 2, "The query can't be run"),
        ("INSERT INTO cleaned.prices SELECT * FROM cleaned.prices", 2, "The query can't be run"),
        ("CREATE VIEW x AS SELECT 1", 2, "read-only"),
    ],
)  # fmt: skip
def test_a_query_that_cannot_be_run(gridlake, filled: Path, query: str, code: int, says: str):
    before = (filled / "catalog.duckdb").read_bytes()
    told = gridlake("--home", filled, "sql", query)
    assert says.lower() in told.sentence.lower()
    assert told.code == code
    assert (filled / "catalog.duckdb").read_bytes() == before


def test_sql_on_a_site_without_a_catalog(gridlake, empty: Path):
    told = gridlake("--home", empty, "sql", "FROM cleaned.prices")
    assert "The lake of 'village' is empty" in told.sentence and "Fill it with: gridlake refresh" in told.sentence
    assert told.code == 5


def test_sql_as_parquet_needs_a_file(gridlake, filled: Path):
    told = gridlake("--home", filled, "sql", "SELECT 1", "--format", "parquet")
    assert told.code == 2 and "--out" in told.err


def test_sql_to_a_folder_that_is_not_there(gridlake, filled: Path, tmp_path: Path):
    told = gridlake("--home", filled, "sql", "SELECT 1", "--format", "csv", "--out", tmp_path / "no" / "o.csv")
    assert "o.csv" in told.sentence


def test_a_cell_is_only_text(gridlake, filled: Path):
    told = gridlake("--home", filled, "sql", "SELECT '[red]no markup[/red]' AS a, chr(27) || '[31mred' AS b, '[/nothing]' AS \"[c]\"")
    assert "[red]no markup[/red]" in told.out and "\x1b[31mred" not in told.out


def test_twice_the_same_column_name_is_no_reason_to_fail(gridlake, filled: Path):
    for shape in ("table", "csv", "json"):
        told = gridlake("--home", filled, "sql", "SELECT 1 AS a, 2 AS a", "--format", shape)
        assert told.code == 0 and "2" in told.out, shape


# -- tables, doctor, ui, refresh


def test_tables_lists_all_and_describes_one(gridlake, filled: Path):
    listed = gridlake("--home", filled, "tables")
    assert listed.code == 0 and "cleaned.prices" in listed.out and "24" in listed.out
    for name in ("cleaned.prices", "cleaned/prices"):
        one = gridlake("--home", filled, "tables", name)
        assert "EUR/MWh" in one.out and "key: series_id, interval_start" in one.out
    described = json.loads(gridlake("--home", filled, "tables", "--json").out)
    assert {t["table"]: t["rows"] for t in described}["cleaned.prices"] == 24
    assert {t["table"] for t in described} == {n.replace("/", ".") for n in Workspace.open(filled).contracts}
    assert gridlake("--home", filled, "tables", "--markdown").out.startswith("# Tables")


@pytest.mark.parametrize("name", ["cleaned.nothing", "nothing", "../../etc", ""])
def test_tables_of_a_table_that_is_not_there(gridlake, filled: Path, name: str):
    told = gridlake("--home", filled, "tables", name)
    if name == "":
        assert told.code == 0  # no name: all tables
    else:
        assert "has no table" in told.sentence and "gridlake tables" in told.sentence and told.code == 5


@pytest.mark.parametrize(
    "command", [("sql", "SELECT 1"), ("tables",), ("doctor",), ("ui",), ("refresh",), ("land", "readings", "x.csv")], ids=lambda c: c[0]
)
def test_without_a_site_every_command_says_how_to_make_one(gridlake, command: tuple[str, ...], tmp_path: Path):
    told = gridlake(*command)
    assert told.code == 2
    assert "Expected a site file at" in told.sentence and "gridlake init DIR" in told.sentence
    assert "Expected a site file at" in gridlake("--home", tmp_path / "nowhere", *command).sentence


@pytest.mark.parametrize("command", [("sql", "SELECT 1"), ("tables",), ("refresh",), ("land", "readings", "x.csv")], ids=lambda c: c[0])
def test_a_wrong_site_file_is_told_by_every_command(gridlake, command: tuple[str, ...], empty: Path):
    path = empty / "gridlake.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("canonical_readings", "canonical_reading"), encoding="utf-8")
    told = gridlake("--home", empty, *command)
    assert told.code == 2
    assert "'canonical_reading' is no known format; did you mean 'canonical_readings'?" in told.sentence


@pytest.mark.parametrize(
    "arguments",
    [
        ("--nonsense",),
        ("fly",),
        ("refresh", "--until", "moon"),
        ("refresh", "--from", "yesterday"),
        ("sql",),
        ("land",),
        ("sql", "SELECT 1", "--format", "xml"),
    ],
)
def test_wrong_use_is_told_with_exit_code_2(gridlake, arguments: tuple[str, ...]):
    told = gridlake(*arguments)
    assert told.code == 2 and "Traceback" not in told.err and told.err.strip()


# -- as a process of its own


def run(*arguments: object, home: Path | None = None) -> subprocess.CompletedProcess[str]:
    site = ["--home", str(home)] if home else []
    return subprocess.run(
        [sys.executable, "-m", "lakehouse.cli", *site, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_as_a_process_it_prints_and_exits_as_in_process(filled: Path):
    done = run("sql", "SELECT count(*) AS n FROM cleaned.prices", "--json", home=filled)
    assert (done.returncode, json.loads(done.stdout), done.stderr) == (0, [{"n": 24}], "")
    wrong = run("sql", "FROM cleaned.price", home=filled)
    assert wrong.returncode == 5 and "Did you mean" in wrong.stderr and wrong.stdout == "" and "Traceback" not in wrong.stderr


@pytest.mark.slow
def test_refresh_of_an_empty_site_says_that_nothing_was_stale(tmp_path: Path):
    home = village(tmp_path / "site").site.home
    done = run("refresh", "--json", home=home)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["failed"] == [] and {t for s in told["steps"] for t in s["tables"]} <= {"quality/codes"}
    assert json.loads(run("refresh", "--json", home=home).stdout)["steps"] == []


@pytest.mark.slow
def test_refresh_as_a_user_meets_it(tmp_path: Path):
    workspace = village(tmp_path / "site")
    home = workspace.site.home
    for n in (3, 4):
        land(workspace, "readings", day(n), f"n{n}.csv", reading_lines(day(n - 1)))
    first = run("refresh", "--until", "cleaned", "--from", "2026-03-01", "--to", "2026-03-04", home=home)
    assert first.returncode == 0, first.stderr
    assert "done" in first.stderr and "Next" in first.stdout and "Traceback" not in first.stderr
    assert workspace.table("cleaned/load").read().num_rows > 0
    again = json.loads(run("refresh", "--until", "cleaned", "--json", home=home).stdout)
    assert again["steps"] == [] and again["summary"]["rows"]["raw/readings"] == 48
    assert run("refresh", "--from", "2026-03-05", "--to", "2026-03-01", home=home).returncode in (0, 2)
