"""What a plan faces: the values of demand, wind, sun, river and price in the intervals to be planned.

Forecast quantiles, scenarios drawn from them, and what came in the end answer the same question, so that one function sets up a
problem for each of them. How the problem looks is `problem`'s business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

from lakehouse.errors import DispatchError
from lakehouse.flow.workspace import Workspace
from lakehouse.storage.engine import register

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

MEDIAN = "p50"
EXTERNAL = "external"
GENERATION_QUANTITY = "generation_mw"


class MissingActualsError(Exception):
    """What came is not known yet; says what."""


@dataclass
class Horizon:
    """The intervals of a plan.

    Attributes:
        starts: starts of all intervals, UTC.
        day: how many of them make up the local day that is planned; the rest is look-ahead.
    """

    starts: pd.DatetimeIndex
    day: int

    @property
    def end_of_day(self) -> datetime:
        """End of the planned local day, UTC."""
        return (self.starts[self.day - 1] + (self.starts[1] - self.starts[0])).to_pydatetime()  # type: ignore[no-any-return]


def horizon_of(workspace: Workspace, issue: date) -> Horizon:
    """The intervals of the local day after an issue day (23, 24 or 25 hours), and those of the look-ahead."""
    import pandas as pd

    fleet, zone = workspace.site.fleet, workspace.site.zone
    assert fleet is not None
    first, end = (datetime.combine(issue + timedelta(days=n), time(), zone).astimezone(UTC) for n in (1, 2))
    step = pd.Timedelta(minutes=fleet.interval_minutes)
    day = pd.date_range(first, end, freq=step, inclusive="left").as_unit("us")
    ahead = pd.date_range(end, periods=round(fleet.look_ahead_hours * 60 / fleet.interval_minutes), freq=step).as_unit("us")
    return Horizon(day.append(ahead), len(day))


@dataclass
class Outlook:
    """Forecasts of one issue, read once each.

    Args:
        workspace: the site at work.
        issue: local day of the issue.
        quantile: column of the demand forecast to plan for; everything else is planned on its median.
        paths: values by (target, series) that stand in for the forecast: a scenario, or what came.
    """

    workspace: Workspace
    issue: date
    quantile: str = MEDIAN
    paths: Mapping[tuple[str, str], np.ndarray] = field(default_factory=dict)
    _read: dict[str, pd.DataFrame] = field(default_factory=dict, repr=False)

    def horizon(self) -> Horizon:
        """The intervals."""
        return horizon_of(self.workspace, self.issue)

    def demand(self, series: str) -> np.ndarray:
        """Demand of one series by interval, MW, never below zero."""
        import numpy as np

        fleet = self.workspace.site.fleet
        assert fleet is not None
        return np.maximum(self.values(fleet.demand, series, "The demand", self.quantile), 0.0)

    def values(self, target: str, series: str, who: str, column: str = MEDIAN) -> np.ndarray:
        """Values of a series by interval.

        Args:
            target: demand, wind, solar or price; or `external` for the forecasts of others.
            series: which of its series.
            who: for whom, to begin a sentence with.
            column: which quantile.

        Raises:
            DispatchError: an interval has no forecast.
        """
        import numpy as np

        if (target, series) in self.paths:
            return self.paths[target, series]
        known = self._external(series) if target == EXTERNAL else self.forecast(target, who)
        own = known[known["series_id"] == series].set_index("at")["value" if target == EXTERNAL else column]
        horizon = self.horizon()
        found = own.reindex(horizon.starts)
        # Behind the last forecast, the look-ahead sees the day before once more.
        day_before = found.shift(freq="24h").reindex(horizon.starts)
        found = found.where(found.notna() | (np.arange(len(found)) < horizon.day), day_before)
        if found.isna().any():
            absent, count = found.index[found.isna()][0], int(found.isna().sum())
            what = f"cleaned/external_forecasts ({GENERATION_QUANTITY})" if target == EXTERNAL else f"the issue of {self.issue}"
            raise DispatchError(
                f"{who}: no forecast of {'' if target == EXTERNAL else target + ' '}'{series}' for {absent:%Y-%m-%d %H:%M} UTC "
                f"in {what} ({count} of {len(found)} intervals lack one).",
                "Land what is missing, then: gridlake refresh"
                if target == EXTERNAL
                else f"Make it with: gridlake refresh --until forecasts --from {self.issue} --to {self.issue}",
            )
        return found.to_numpy(float)

    def forecast(self, target: str, who: str = "The plan") -> pd.DataFrame:
        """All series of an issue on the plan's grid: series_id, at, quantiles, model_version, is_fallback; empty where nothing was issued.

        Raises:
            DispatchError: the site does not forecast that target.
        """
        if target not in self.workspace.site.series:
            raise DispatchError(f"{who} needs a forecast of {target}, which the site does not make.", "Add it to series in gridlake.yaml.")
        if target not in self._read:
            with self.workspace.engine() as engine:
                table = register(engine, self.workspace.table(f"forecasts/{target}"), only={"date": (self.issue, self.issue)})
                rows = engine.sql(f"FROM {table} ORDER BY series_id, valid_at").to_arrow_table().to_pandas()
            minutes = self.workspace.site.series[target].interval_minutes  # type: ignore[index]
            self._read[target] = self._on_grid(rows.rename(columns={"valid_at": "at"}), minutes)
        return self._read[target]

    def _external(self, series: str) -> pd.DataFrame:
        name = "cleaned/external_forecasts"
        if not self.workspace.has(name):
            raise DispatchError(
                f"No feed of the site delivers forecasts of others, so '{series}' has none.", "Add a feed, or name a target."
            )
        if EXTERNAL not in self._read:
            starts = self.horizon().starts
            with self.workspace.engine() as engine:
                table = register(engine, self.workspace.table(name), only={"date": (starts[0].date(), starts[-1].date())})
                query = (
                    f"SELECT series_id, interval_start AS at, interval_minutes, value FROM {table} WHERE quantity = $quantity ORDER BY ALL"
                )
                rows = engine.sql(query, params={"quantity": GENERATION_QUANTITY}).to_arrow_table().to_pandas()
            minutes = int(rows.pop("interval_minutes").max()) if len(rows) else 60
            self._read[EXTERNAL] = self._on_grid(rows, minutes)
        return self._read[EXTERNAL]

    def _on_grid(self, rows: pd.DataFrame, minutes: int) -> pd.DataFrame:
        """Rows of `minutes` on the plan's grid: finer ones are averaged, coarser ones repeated."""
        import pandas as pd

        fleet = self.workspace.site.fleet
        assert fleet is not None
        if rows.empty or minutes == fleet.interval_minutes:
            return rows
        wanted = f"{fleet.interval_minutes}min"
        if minutes < fleet.interval_minutes:
            numbers = [c for c in rows.select_dtypes("number")]
            rest = [c for c in ("model_version", "is_fallback") if c in rows]
            grouped = rows.groupby(["series_id", rows["at"].dt.floor(wanted).rename("bucket")])
            return grouped.agg({c: "mean" for c in numbers} | {c: "first" for c in rest}).reset_index().rename(columns={"bucket": "at"})
        parts = minutes // fleet.interval_minutes
        finer = rows.loc[rows.index.repeat(parts)].reset_index(drop=True)
        finer["at"] += pd.to_timedelta([n * fleet.interval_minutes for n in range(parts)] * len(rows), unit="min")
        return finer


def scenarios(outlook: Outlook, count: int, correlation_hours: float, targets: Mapping[str, Sequence[str]]) -> list[Outlook]:
    """Outlooks drawn from the quantiles of demand, wind, sun and price; see `lakehouse.dispatch.stochastic`.

    Series of one target move together (the same draw), targets independently of one another.

    Args:
        outlook: the issue.
        count: how many.
        correlation_hours: after which the correlation of the errors has fallen to 1/e.
        targets: the series that the fleet needs, by target.
    """
    import numpy as np

    from lakehouse.dispatch.stochastic import scenarios_from_quantiles
    from lakehouse.forecasting.task import quantile_column

    fleet = outlook.workspace.site.fleet
    assert fleet is not None
    paths: dict[tuple[str, str], np.ndarray] = {}
    for number, (target, names) in enumerate(targets.items()):
        levels = outlook.workspace.site.series[target].quantiles  # type: ignore[index]
        for series in names:
            values = np.stack([outlook.values(target, series, "A scenario", quantile_column(q)) for q in levels], axis=1)
            drawn = scenarios_from_quantiles(
                levels, values, count, correlation_hours=correlation_hours, interval_hours=fleet.interval_minutes / 60, seed=number
            )
            paths[target, series] = drawn if target == "price" else np.maximum(drawn, 0.0)
    return [Outlook(outlook.workspace, outlook.issue, paths={k: v[n] for k, v in paths.items()}) for n in range(count)]


def actuals(outlook: Outlook, targets: Mapping[str, Sequence[str]]) -> Outlook:
    """What came on the planned day, with the forecast kept for the look-ahead.

    Raises:
        MissingActualsError: an interval of the day has no actual yet; says of which series.
    """
    import numpy as np

    from lakehouse.flow.forecast import actuals as actuals_of

    horizon = outlook.horizon()
    span = (horizon.starts[0].date(), horizon.starts[horizon.day - 1].date())
    paths: dict[tuple[str, str], Any] = {}
    absent: list[str] = []
    for target, names in targets.items():
        rows = actuals_of(outlook.workspace, target, span).to_pandas().rename(columns={"interval_start": "at"})
        minutes = outlook.workspace.site.series[target].interval_minutes  # type: ignore[index]
        rows = outlook._on_grid(rows, minutes)
        for series in names:
            planned = outlook.values(target, series, "The outcome")
            own = rows[rows["series_id"] == series].set_index("at")["value"].reindex(horizon.starts[: horizon.day])
            if own.isna().any():
                absent.append(f"{target} '{series}': {int(own.isna().sum())} of {horizon.day} intervals")
                continue
            came = own.to_numpy(float)
            paths[target, series] = np.concatenate([came if target == "price" else np.maximum(came, 0.0), planned[horizon.day :]])
    if absent:
        raise MissingActualsError("; ".join(absent))
    return Outlook(outlook.workspace, outlook.issue, paths=paths, _read=outlook._read)
