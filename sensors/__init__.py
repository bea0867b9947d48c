"""When things run by themselves."""

from __future__ import annotations

import dagster as dg

from lakehouse.site import Site


def site_sensors(site: Site) -> list[dg.SensorDefinition]:
    """All sensors of a site."""
    return []
