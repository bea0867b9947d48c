"""Which assets run together: one job per layer, and the refresh of everything that is stale (`jobs.refresh`)."""

from __future__ import annotations

import dagster as dg

from jobs.up_to_date import up_to_date
from lakehouse.site import Site

LAYERS = ("raw", "cleaned", "features", "models", "forecasts", "dispatch")


def site_jobs(site: Site) -> list[dg.JobDefinition | dg.UnresolvedAssetJobDefinition]:
    """A job per layer that this site has, and the one that does all that is stale."""
    has = {
        "raw": True,
        "cleaned": True,
        "features": bool(site.series),
        "models": bool(site.series),
        "forecasts": bool(site.series),
        "dispatch": bool(site.fleet),
    }
    return [
        up_to_date,
        *(
            dg.define_asset_job(f"{layer}_layer", selection=dg.AssetSelection.groups(layer), description=f"Materializes the layer {layer}.")
            for layer in LAYERS
            if has[layer] and layer not in ("cleaned",)
        ),
    ]
