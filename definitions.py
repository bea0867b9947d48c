"""The one place where assets, jobs, sensors and resources meet; `workspace.yaml` loads it.

The site is that of GRIDLAKE_HOME, else of the current folder, else the shipped sample, so that the graph can always be seen.
"""

from __future__ import annotations

import os
from datetime import date, timedelta
from pathlib import Path

import dagster as dg

from assets.alerts import alert_ledger
from assets.cleaned import cleaned_assets, ledgers
from assets.dispatch import dispatch_assets
from assets.features import feature_assets
from assets.forecasts import forecast_assets
from assets.freshness import freshness_checks
from assets.housekeeping import housekeeping
from assets.models import model_assets
from assets.raw import landing_assets, raw_assets
from jobs.of_site import site_jobs
from jobs.schedules import site_schedules
from lakehouse.flow.setup import parse_example
from lakehouse.site import HOME_VARIABLE, SITE_FILE, Site, load_site
from resources import WorkspaceResource
from resources.executor import site_executor
from sensors import site_sensors

SAMPLE = Path(__file__).resolve().parent / "examples" / "sites" / "sample.yaml"
SAMPLE_HISTORY = timedelta(days=150)


def build_definitions(site: Site) -> dg.Definitions:
    """All of a site's definitions."""
    return dg.Definitions(
        assets=[
            *landing_assets(site),
            *raw_assets(site),
            *cleaned_assets(site),
            *ledgers(site),
            *feature_assets(site),
            *model_assets(site),
            *forecast_assets(site),
            *dispatch_assets(site),
            *alert_ledger(),
            housekeeping,
        ],
        asset_checks=freshness_checks(site),
        jobs=site_jobs(site),
        schedules=site_schedules(site),
        sensors=site_sensors(site),
        resources={"workspace": WorkspaceResource(home=str(site.home))},
        executor=site_executor,
    )


def site_of_environment() -> Site:
    """The site that this process is for."""
    if os.environ.get(HOME_VARIABLE) or (Path.cwd() / SITE_FILE).is_file():
        return load_site()
    return parse_example(SAMPLE.read_text(encoding="utf-8"), Path(__file__).resolve().parent / "site", date.today() - SAMPLE_HISTORY)


defs = build_definitions(site_of_environment())
