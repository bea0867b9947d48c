from __future__ import annotations
def model_assets(site): return []
