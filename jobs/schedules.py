"""What runs by the clock. Everything else follows from arrivals (`sensors`)."""

from __future__ import annotations

import dagster as dg

from lakehouse.site import Site


def site_schedules(site: Site) -> list[dg.ScheduleDefinition]:
    """The nightly housekeeping, on the site's clock."""
    hour, minute = site.housekeeping.at.split(":")
    job = dg.define_asset_job(
        "housekeeping",
        selection=dg.AssetSelection.assets(["quality", "housekeeping"]),
        description="Cleans the lake and Dagster's folder: old versions, orphan files, logs.",
        tags={"dagster/priority": "-10"},
    )
    return [
        dg.ScheduleDefinition(
            name="housekeeping_by_night",
            job=job,
            cron_schedule=f"{int(minute)} {int(hour)} * * *",
            description="Removes old versions, orphan files and logs (housekeeping.keep_versions_days); checkpoints tables' logs.",
            execution_timezone=site.time_zone,
            default_status=dg.DefaultScheduleStatus.RUNNING,
        )
    ]
