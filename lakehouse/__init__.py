"""Gridlake's library: plain Python that knows no Dagster. docs/architecture.md shows its rooms."""
