"""On published data the linear model alone beats what the operator published; the full table is in benchmarks/forecast_accuracy.py."""

import importlib.util
import os
from pathlib import Path

import pytest

from lakehouse.forecasting.backtest import backtest

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("GRIDLAKE_DATA", ROOT.parent / "shared/data"))


def accuracy_benchmark():
    import sys

    spec = importlib.util.spec_from_file_location("forecast_accuracy", ROOT / "benchmarks/forecast_accuracy.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["forecast_accuracy"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.real_data
def test_french_load_is_forecast_better_than_the_operator_does():
    if not (DATA / "opsd").exists():
        pytest.skip(f"the published data set opsd/ is not in {DATA}; set GRIDLAKE_DATA")
    case = accuracy_benchmark().opsd_france(DATA)
    result = backtest(
        case.task, case.actuals, case.inputs, first_day=case.first_day, last_day=case.last_day, models=("lear",), refit_days=28
    )
    assert result.measures["lear"]["mape"] < 1.0 * result.measures["operator"]["mape"]
    assert 77 < result.measures["lear"]["coverage_80"] < 83
    assert result.label == "perfect weather"
