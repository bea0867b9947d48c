"""Making a site: a folder with its site file, its delivered files in landing, and nothing else."""

from __future__ import annotations

import fnmatch
import gzip
import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from lakehouse.errors import SiteError
from lakehouse.site import SITE_FILE, Site, load_site, parse_site
from lakehouse.sources.base import HEAD_BYTES, LandedFile, ReadOptions, format_named, read_file
from lakehouse.storage.landing import Landing, is_finished

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "sites"
SAMPLE = "sample"
SAMPLE_DAYS = 150
SAMPLE_METERS = 200

Progress = Callable[[str, int, int], None]


@dataclass
class Made:
    """What `init` did."""

    site: Site
    landed: dict[str, int] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def example_sites() -> list[str]:
    """Names of the sites that ship."""
    return sorted(p.stem for p in EXAMPLES.glob("*.yaml"))


def parse_example(text: str, home: Path, first_day: date = date(1970, 1, 1)) -> Site:
    """An example's site as if it lay in `home`; an example's first day is that of the data, so it is not in its file."""
    return parse_site(text if "\nfirst_day:" in text else f"{text}\nfirst_day: {first_day}\n", home / SITE_FILE)


def init_site(
    home: Path,
    name: str = SAMPLE,
    *,
    data: Path | None = None,
    days: int = SAMPLE_DAYS,
    meters: int = SAMPLE_METERS,
    seed: int = 1,
    until: date | None = None,
    progress: Progress = lambda what, done, of: None,
) -> Made:
    """Makes a site in a folder and lands its files.

    Args:
        home: the new site's folder; it must not hold a site already.
        name: an example site.
        data: folder with files in that site's published layout (not for the sample, which is simulated).
        days: days of the sample's history.
        meters: meters of the sample.
        seed: seed of the sample.
        until: freezes the site's clock at that day; by default the sample runs to today.
        progress: told what is being done, and how far.

    Raises:
        SiteError: no such example, a site is there already, no data, or none of the files belongs to a feed.
    """
    template = EXAMPLES / f"{name}.yaml"
    if not template.is_file():
        raise SiteError(f"Expected an example site, found '{name}'.", f"Known: {', '.join(example_sites())}.")
    if (home / SITE_FILE).exists():
        raise SiteError(f"There is a site in {home} already.", "Choose another folder, or work with that one: gridlake --home DIR refresh")
    if name != SAMPLE and data is None:
        raise SiteError(
            f"The site '{name}' needs data: it is described for a published data set.",
            f"Give its folder: gridlake init {home} --site {name} --data PATH",
        )
    if data is not None and not data.is_dir():
        raise SiteError(f"Expected a folder with the data of '{name}', found none at {data}.", "Check the path.")
    text = template.read_text(encoding="utf-8")
    is_new = not home.exists()
    home.mkdir(parents=True, exist_ok=True)
    try:
        if name == SAMPLE:
            made = _init_sample(home, text, days, meters, seed, until, progress)
        else:
            assert data is not None
            made = _init_published(home, text, name, data, until, progress)
        write_dagster_home(made.site)
    except BaseException:  # half a site would stand in the way of the next try
        if is_new:
            shutil.rmtree(home, ignore_errors=True)
        else:
            (home / SITE_FILE).unlink(missing_ok=True)
        raise
    return made


def _init_sample(home: Path, text: str, days: int, meters: int, seed: int, until: date | None, progress: Progress) -> Made:
    from lakehouse.simulation import simulate

    if days < 30:
        raise SiteError(f"Expected at least 30 days of history, found {days}.", "Forecasts need some weeks to learn from: --days 150")
    site = parse_example(text, home)
    today = until or datetime.now(site.zone).date()
    first = today - timedelta(days=days)
    site = _write_site(home, text, {"first_day": first, "clock": until})
    progress("simulating the sample utility", 0, 1)
    simulate(
        site.path("landing"),
        truth=home / "truth",
        seed=seed,
        meters=meters,
        first_day=first,
        last_day=today - timedelta(days=1),
        time_zone=site.time_zone,
        latitude_deg=site.location.latitude_deg,
        longitude_deg=site.location.longitude_deg,
        altitude_m=site.location.altitude_m,
        country=site.country,
        subdivision=site.subdivision,
    )
    progress("simulating the sample utility", 1, 1)
    landing = Landing(site.path("landing"))
    return Made(site, {feed: sum(len(landing.arrivals(feed, d)) for d in landing.deliveries(feed)) for feed in site.feeds})


def _init_published(home: Path, text: str, name: str, data: Path, until: date | None, progress: Progress) -> Made:
    site = parse_example(text, home)
    chosen, left_out = _assign(site, data, EXAMPLES)
    if not any(chosen.values()):
        wanted = "; ".join(f"{feed}: {', '.join(f.files) or f.format}" for feed, f in site.feeds.items())
        raise SiteError(f"None of the files in {data} belongs to the site '{name}'.", f"Expected files such as {wanted}.")
    absent = [feed for feed, paths in chosen.items() if not paths]
    if absent:
        left_out += [f"no files for the feed {feed} ({', '.join(site.feeds[feed].files)})" for feed in absent]
    first, last, dated = _calendar(site, chosen, progress)
    clock = until or last
    site = _write_site(home, text, {"first_day": first, "clock": clock})
    landing = Landing(site.path("landing"))
    landed: dict[str, int] = {}
    for feed, paths in chosen.items():
        for path in paths:
            landing.land(feed, path, min(dated.get(path) or clock, clock))
        landed[feed] = len(paths)
    return Made(site, landed, left_out)


def _assign(site: Site, data: Path, examples: Path) -> tuple[dict[str, list[Path]], list[str]]:
    """Which files of a folder belong to which feed: by the feed's patterns first, by content where it has none."""
    chosen: dict[str, list[Path]] = {feed: [] for feed in site.feeds}
    left_out: list[str] = []
    for feed, described in site.feeds.items():  # a feed may ship with the example itself, such as a stylised fleet
        chosen[feed] += [p for pattern in described.files for p in sorted(examples.glob(pattern)) if p.is_file() and p.suffix != ".yaml"]
    for path in sorted(p for p in data.rglob("*") if p.is_file() and is_finished(p.name)):
        relative = path.relative_to(data).as_posix()
        takers = [f for f, d in site.feeds.items() if any(_matches(relative, pattern) for pattern in d.files)]
        takers = takers or [f for f, d in site.feeds.items() if not d.files and format_named(d.format).looks_like(_head(path), path.name)]
        for feed in takers[:1]:
            chosen[feed].append(path)
        if not takers:
            left_out.append(f"{relative} belongs to no feed")
    return chosen, left_out


def _matches(relative: str, pattern: str) -> bool:
    return fnmatch.fnmatch(relative, pattern) or fnmatch.fnmatch(relative.rsplit("/", 1)[-1], pattern)


def _head(path: Path) -> bytes:
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as opened:
                return opened.read(HEAD_BYTES)
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive, archive.open(archive.namelist()[0]) as opened:
                return opened.read(HEAD_BYTES)
        with path.open("rb") as opened:
            return opened.read(HEAD_BYTES)
    except (OSError, EOFError, IndexError, zipfile.BadZipFile):
        return b""


def _calendar(site: Site, chosen: dict[str, list[Path]], progress: Progress) -> tuple[date, date, dict[Path, date | None]]:
    """First and last day of the data, and each file's delivery date where its name tells it."""
    days: set[date] = set()
    dated: dict[Path, date | None] = {}
    total = sum(map(len, chosen.values()))
    for number, (feed, path) in enumerate((f, p) for f, paths in chosen.items() for p in paths):
        progress("looking at the files' days", number, total)
        described = site.feeds[feed]
        dated[path] = format_named(described.format).delivered_on(path)
        days |= _days_in(
            LandedFile(path, path.name, dated[path] or date.today(), feed), described.format, ReadOptions(site.time_zone, described.options)
        )
    progress("looking at the files' days", total, total)
    if not days:
        raise SiteError(
            "The files hold no interval that could be read.", "Is this the layout that the site's feeds name? gridlake doctor --help"
        )
    return min(days), max([max(days), *(d for d in dated.values() if d)]), dated


def _days_in(file: LandedFile, format_name: str, options: ReadOptions) -> set[date]:
    import pyarrow.compute as pc

    days: set[date] = set()
    for table in read_file(file, format_name, options):
        days |= {d for d in pc.unique(table.column("date")).to_pylist() if d is not None}
    return days


def _write_site(home: Path, text: str, changes: dict[str, Any]) -> Site:
    from ruamel.yaml import YAML

    yaml = YAML(typ="rt")
    yaml.width = 4096
    yaml.preserve_quotes = True
    yaml.indent(mapping=2, sequence=4, offset=2)  # as the examples are written: comments keep their place
    document = yaml.load(text)
    for key, value in changes.items():
        if value is None:
            document.pop(key, None)
        else:
            document[key] = value
    aside = home / f".{SITE_FILE}"
    with aside.open("w", encoding="utf-8") as opened:
        yaml.dump(document, opened)
    aside.replace(home / SITE_FILE)
    return load_site(home)


def write_dagster_home(site: Site) -> Path:
    """The folder in which Dagster keeps its runs, with its settings; settings that name this folder already stay as they are."""
    folder = site.path("dagster")
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / "dagster.yaml"
    if not settings.exists() or str(folder) not in settings.read_text(encoding="utf-8"):
        shipped = (EXAMPLES.parents[1] / "deploy" / "laptop" / "dagster.yaml").read_text(encoding="utf-8")
        aside = folder / f".dagster.yaml.{os.getpid()}"
        aside.write_text(shipped.replace("{folder}", str(folder)), encoding="utf-8")
        aside.replace(settings)
    return folder


def land_files(site: Site, feed: str, files: list[Path], delivered: date | None = None) -> list[tuple[str, str]]:
    """Lands files of a feed; returns each file's name and what became of it.

    Raises:
        SiteError: no such feed, or a delivery date outside the site's calendar.
    """
    if feed not in site.feeds:
        raise SiteError(f"The site '{site.name}' has no feed '{feed}'.", f"Its feeds: {', '.join(site.feeds)}.")
    landing, told = Landing(site.path("landing")), []
    days: list[date] = []
    for path in files:  # all are looked at before the first one lands
        if not path.is_file():
            found = "a folder" if path.is_dir() else "nothing"
            raise SiteError(f"Expected a file at {path}, found {found}.", "Give the files themselves; a shell pattern such as DIR/* helps.")
        day = delivered or format_named(site.feeds[feed].format).delivered_on(path) or site.today()
        if not site.first_day <= day <= site.today():
            raise SiteError(
                f"{path.name}: its delivery date {day} is outside the site's calendar, {site.first_day} to {site.today()}.",
                f"Give another with --delivered, or change first_day or clock in {site.home / SITE_FILE}.",
            )
        days.append(day)
    for path, day in zip(files, days, strict=True):
        arrival = landing.land(feed, path, day)
        told.append((path.name, f"landed as {feed}/{day}/{arrival.name}" if arrival else "was landed already, byte for byte"))
    return told
