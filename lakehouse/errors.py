"""The one tree of errors that Gridlake raises on purpose.

Every message is for the person who has to act: what was expected, what was found, where, and the next step. The command
line prints `str(error)` and exits with `exit_code`; a traceback means a bug. Nothing else lives here.
"""

from __future__ import annotations


class GridlakeError(Exception):
    """Something a user can put right.

    Args:
        problem: one sentence with what was expected, what was found, and where.
        remedy: the next step, as a sentence or a command.
    """

    exit_code = 1

    def __init__(self, problem: str, remedy: str = "") -> None:
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{problem}\n{remedy}" if remedy else problem)


class SiteError(GridlakeError):
    """The site file (`gridlake.yaml`) is missing or says something that can't be."""

    exit_code = 2


class SourceError(GridlakeError):
    """A landed file can't be read in the format of its feed. The file goes to quarantine; others go on."""

    exit_code = 3


class ContractError(GridlakeError):
    """Rows break the contract of the table they were to be written to; nothing was committed."""

    exit_code = 4


class TableNotFoundError(GridlakeError):
    """A table was asked for that the lake doesn't have (yet)."""

    exit_code = 5


class ConflictError(GridlakeError):
    """Another writer won the same partition more often than we were willing to try again."""

    exit_code = 6


class ForecastError(GridlakeError):
    """A forecast, backtest or training can't be done with the data there is."""

    exit_code = 7


class LookAheadError(ForecastError):
    """Code asked for a value that was not yet known at the issue time. Always a bug in the asker."""


class DispatchError(GridlakeError):
    """A fleet, an instance or a plan contradicts itself."""

    exit_code = 8


class AlertError(GridlakeError):
    """A channel did not take a message."""

    exit_code = 9
