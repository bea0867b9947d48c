"""Which assets run together: one job per layer, and the one that does all that is stale."""

from __future__ import annotations

import dagster as dg

from jobs.replan import replan_job
from jobs.up_to_date import up_to_date
from lakehouse.site import Site

LAYERS = ("raw", "cleaned", "features", "models", "forecasts", "dispatch")


def site_jobs(site: Site) -> list[dg.JobDefinition | dg.UnresolvedAssetJobDefinition]:
    """A job per layer that this site has, the one that does all that is stale, and planning again where there is a fleet."""
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
        *([replan_job] if site.fleet else []),
        *(
            dg.define_asset_job(f"{layer}_layer", selection=dg.AssetSelection.groups(layer), description=f"Materializes the layer {layer}.")
            for layer in LAYERS
            if has[layer] and layer not in ("cleaned",)
        ),
    ]
