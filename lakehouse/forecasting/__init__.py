"""Forecasting of demand, wind, solar and price: features, models, backtests, metrics and the model registry.

`task` says what is forecast and when; `view` and `features` what is known by then; `models`, `training`, `predict` and
`registry` make and keep forecasts; `metrics`, `backtest` and `report` tell how good they are. Reading files and writing
tables do not belong here: plain pandas and Arrow come in and go out.
"""
