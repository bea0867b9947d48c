"""The site at work, as a Dagster resource: its lake, landing zone, models and catalog."""

from __future__ import annotations

import dagster as dg

from lakehouse.flow.workspace import Workspace


class WorkspaceResource(dg.ConfigurableResource):
    """Opens the workspace of a site's folder.

    Args:
        home: the folder of `gridlake.yaml`. Every process reads the site file anew, so an edit needs no restart of a run.
    """

    home: str

    def open(self, run_id: str = "") -> Workspace:
        """The workspace; `run_id` goes into every commit it makes."""
        workspace = Workspace.open(self.home)
        workspace.run_id = run_id
        return workspace
