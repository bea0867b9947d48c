"""Forecasting models behind one small interface: `Model` in `base`, one module per kind, and `make_model` to get one by name.

Nothing heavy is imported until a model is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lakehouse.errors import ForecastError

if TYPE_CHECKING:
    from lakehouse.forecasting.models.base import Model

MODEL_NAMES: tuple[str, ...] = ("seasonal_naive", "like_day", "blend", "lightgbm", "keras", "lear")
ENSEMBLE = "ensemble"
MODELS_VERSION = 8
"""Version of how models are made and saved: raised when saved ones can no longer be read, or would be made otherwise now.
A version with another number is not used, and asks for training; nor does a backtest go on with its blocks."""


def make_model(name: str) -> Model:
    """A new, unfitted model by its name.

    Raises:
        ForecastError: if there is no model of that name.
    """
    if name == "seasonal_naive":
        from lakehouse.forecasting.models.naive import SeasonalNaive

        return SeasonalNaive()
    if name == "like_day":
        from lakehouse.forecasting.models.naive import LikeDay

        return LikeDay()
    if name == "blend":
        from lakehouse.forecasting.models.naive import Blend

        return Blend()
    if name == "lightgbm":
        from lakehouse.forecasting.models.lightgbm_quantile import LightGBMQuantile

        return LightGBMQuantile()
    if name == "keras":
        from lakehouse.forecasting.models.keras_network import KerasNetwork

        return KerasNetwork()
    if name == "lear":
        from lakehouse.forecasting.models.lear import Lear

        return Lear()
    raise ForecastError(f"Expected a model among {', '.join((*MODEL_NAMES, ENSEMBLE))}, found {name!r}.")
