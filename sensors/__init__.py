"""When things run by themselves."""

import dagster as dg

from lakehouse.site import Site
from sensors.alerts import alert_sensor
from sensors.refresh import refresh_sensor


def site_sensors(site: Site) -> list[dg.SensorDefinition]:
    """All sensors of a site."""
    return [refresh_sensor(site), alert_sensor()]
