"""The ledger of alerts, as an external asset: the sensor that tells them writes it (`sensors/alerts.py`)."""

from __future__ import annotations

import dagster as dg

from assets.skin import spec_of
from lakehouse.contracts import quality


def alert_ledger() -> list[dg.AssetSpec]:
    """The table of alerts."""
    return [spec_of(quality.Alerts, doc="Written by the sensor `tell_what_is_wrong` when something begins or is over.")]
