"""A network that was exported for TensorFlow Serving, used by somebody who has TensorFlow and none of our code."""

import datetime as dt
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lakehouse.forecasting.features import build_features
from lakehouse.forecasting.models import make_model
from lakehouse.forecasting.models.base import anchor
from lakehouse.forecasting.models.day_matrix import DayMatrix
from tests.forecasting.builders import demand_task, world

ELSEWHERE = """
import json, sys
import numpy as np, tensorflow as tf
folder, day, signature, out = sys.argv[1:]
serve = tf.saved_model.load(folder).signatures["serving_default"]
given = np.load(day)
units = json.load(open(signature))
name = next(iter(serve.structured_input_signature[1]))
(said,) = serve(**{name: tf.constant(given["inputs"])}).values()
quantiles = said.numpy().astype(float).mean(axis=2) * units["unit"] * units["scale"][0] + given["anchor"][:, :, None]
np.save(out, np.sort(quantiles, axis=2))
assert not [m for m in sys.modules if m.startswith("lakehouse")]
"""


@pytest.mark.slow
def test_a_fresh_process_without_our_code_gets_the_same_numbers(tmp_path: Path):
    task = demand_task()
    actuals, inputs = world(task, last="2026-03-31")
    past = build_features(task, actuals, inputs, task.issue_instants(dt.date(2026, 1, 12), dt.date(2026, 3, 25)))
    issue = build_features(task, actuals, inputs, task.issue_instants(dt.date(2026, 3, 29), dt.date(2026, 3, 29)))
    model = make_model("keras").fit(past, task)
    folder = model.export_saved_model(tmp_path / "demand", version=7)
    assert folder == tmp_path / "demand" / "7" and (folder / "saved_model.pb").exists()
    grid = DayMatrix.of(issue, task)
    given = model._standardised(model._raw(issue))
    assert given.shape[1] == len(model.signature()["inputs"])
    np.savez(tmp_path / "day.npz", inputs=grid.spread(given).astype("float32"), anchor=grid.spread(anchor(issue, task)))
    (tmp_path / "signature.json").write_text(json.dumps(model.signature()))
    paths = [str(folder), *(str(tmp_path / name) for name in ("day.npz", "signature.json", "said.npy"))]
    subprocess.run([sys.executable, "-I", "-c", ELSEWHERE, *paths], cwd=tmp_path, check=True, capture_output=True, timeout=300)
    said = grid.gather(np.load(tmp_path / "said.npy"))
    np.testing.assert_allclose(said, model.predict(issue), rtol=1e-5)
