"""What assets, sensors and checks talk to."""

from resources.workspace import WorkspaceResource

__all__ = ["WorkspaceResource"]
