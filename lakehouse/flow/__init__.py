"""The flow: one module per layer that reads tables, calls one trade, and writes tables. No Dagster, no arithmetic.

`workspace` holds what all of them need; `staleness` tells what has to be made again. Assets are thin skins over these.
"""

CODE_VERSION = "1"
"""Version of the flow's results: raised when the same input would give other rows."""
