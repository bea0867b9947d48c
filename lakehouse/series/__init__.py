"""Cleaning of delivered time series: load, generation, prices, weather, forecasts of others.

`clean` turns delivered series into trusted ones; `day_month` finds days whose month and day were exchanged. Interval readings
of meters are `lakehouse.metering`'s business, reading files is `lakehouse.sources`'.
"""
