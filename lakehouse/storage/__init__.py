"""Where tables and files are kept: the landing zone, Delta tables, and the analysts' catalog.

`landing` holds delivered files, `lake` the Delta tables behind one explicit interface, `catalog` the published views, and
`engine` DuckDB connections. What the rows mean is not known here.
"""

from lakehouse.storage.catalog import publish_catalog
from lakehouse.storage.engine import connect, open_engine
from lakehouse.storage.lake import Commit, Lake, LakeTable
from lakehouse.storage.landing import Landing

__all__ = ["Commit", "Lake", "LakeTable", "Landing", "connect", "open_engine", "publish_catalog"]
