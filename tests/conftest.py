"""Two sites that many tests look at: the sample utility just landed, and the same one refreshed to its plans.

Both are made once per process: keep their users in few files, since `make test` hands out whole files to its workers.
Read them, never write to them: a test that changes a site copies it first (`copied_site`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

LAST_DAY = date(2026, 3, 31)
"""Two days after the clocks went forward in Madrid."""
DAYS = 45
METERS = 12

LONGEST_FIRST = ("test_by_force.py", "test_arrival.py", "test_refreshed.py", "test_pods.py", "test_prometheus.py", "test_up_to_date.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole files go to the workers of `make test` in this order: those of minutes first, so that none is left over at the end."""
    items.sort(key=lambda item: LONGEST_FIRST.index(item.path.name) if item.path.name in LONGEST_FIRST else len(LONGEST_FIRST))


@pytest.fixture(scope="session")
def small_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a sample site whose files have landed and of which nothing was refreshed; its clock stands still."""
    from lakehouse.flow.setup import init_site

    home = tmp_path_factory.mktemp("landed") / "site"
    init_site(home, days=DAYS, meters=METERS, until=LAST_DAY)
    return home


@pytest.fixture(scope="session")
def refreshed_site(small_site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same site, refreshed through Dagster until its dispatch plans. Takes about a minute: for slow tests."""
    from jobs.refresh import refresh

    home = tmp_path_factory.mktemp("refreshed") / "site"
    shutil.copytree(small_site, home)
    done = refresh(home)
    assert not done.failed, done.failed
    return home


@pytest.fixture
def copied_site(small_site: Path, tmp_path: Path) -> Path:
    """A copy of the landed site that a test may change."""
    return shutil.copytree(small_site, tmp_path / "site")


@pytest.fixture
def site_with(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a site file and returns its folder."""

    def write(text: str) -> Path:
        home = tmp_path / "written"
        home.mkdir(exist_ok=True)
        (home / "gridlake.yaml").write_text(text, encoding="utf-8")
        return home

    return write


@pytest.fixture(autouse=True)
def _no_site_of_another_test():
    """`gridlake --home` speaks to its parts through the environment; what one test says must not reach the next."""
    before = dict(os.environ)
    os.environ.pop("GRIDLAKE_HOME", None)
    os.environ.pop("DAGSTER_HOME", None)
    yield
    os.environ.clear()
    os.environ.update(before)
