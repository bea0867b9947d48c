"""Contract of `models`: one row per trained version of a target's models."""

from __future__ import annotations

from lakehouse.contracts.base import Boolean, Float64, Instant, Int64, Table, Text, column


class ModelVersions(Table):
    """Trained models: one row per version, with how it did on issues after its training."""

    key = ("model", "model_version")

    model: Text = column("Kind of model: lightgbm, keras, seasonal_naive, …")
    model_version: Text = column("The version, as forecasts name it.")
    trained_until: Instant = column("No value known after this moment went into the training.", unit="UTC")
    trained_from: Instant = column("First interval of the training.", unit="UTC", nullable=True)
    training_rows: Int64 = column("Rows of the training.", ge=0)
    is_champion: Boolean = column("Whether forecasts issued from now on come from this version.")
    evaluated_issues: Int64 = column("Issues after the training on which it was evaluated.", ge=0)
    mae: Float64 = column("Mean absolute error of the median on those issues, in the series' unit.", nullable=True)
    pinball: Float64 = column("Mean pinball loss over the quantiles on those issues, in the series' unit.", nullable=True)
    coverage_80_pct: Float64 = column("Share of actuals between p10 and p90 on those issues.", unit="%", nullable=True)
    rmae_naive: Float64 = column("MAE over that of the seasonal naive on the same issues: below 1 is better.", nullable=True)
    folder: Text = column("Where the model is saved, below the site's models folder.", nullable=True)
    data_versions: Text = column("Delta versions of the tables it was trained on, as a JSON object.")
