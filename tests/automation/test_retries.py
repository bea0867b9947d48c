"""What is tried again and what is not: by Dagster itself, on a step that fails as told."""

import dagster as dg
import pytest

from assets.retries import TRY_AGAIN, may_pass
from assets.skin import Outcome, table_assets
from lakehouse.contracts.quality import Codes
from lakehouse.errors import ConflictError, ContractError, SiteError
from resources import WorkspaceResource
from tests.flow.builders import village

STORE_IS_AWAY = OSError("Generic S3 error: Error after 10 retries in 2.1s: error sending request for url")
NO_KEY = OSError("Generic S3 error: 403 Forbidden: InvalidAccessKeyId")
FULL = OSError(28, "No space left on device")


def wrapped(cause):
    try:
        try:
            raise cause
        except Exception as error:
            raise RuntimeError("while writing cleaned/load") from error
    except RuntimeError as told:
        return told


@pytest.mark.parametrize(
    "error", [ConflictError("others won"), ConnectionResetError(), TimeoutError(), MemoryError(), STORE_IS_AWAY, wrapped(STORE_IS_AWAY)]
)
def test_what_may_pass(error):
    assert may_pass(error)


@pytest.mark.parametrize("error", [ContractError("row 1"), SiteError("no feed"), FULL, NO_KEY, KeyError("date"), wrapped(ValueError())])
def test_what_would_fail_again(error):
    assert not may_pass(error)


@pytest.fixture
def tries(tmp_path, monkeypatch):
    """Runs a step that raises what is told, try after try, then succeeds; returns how often it was tried, and the run's end."""
    site = village(tmp_path / "village")
    monkeypatch.setattr("dagster._core.execution.plan.active.time.sleep", lambda seconds: None)
    quick = TRY_AGAIN._replace(delay=0) if hasattr(TRY_AGAIN, "_replace") else dg.RetryPolicy(max_retries=TRY_AGAIN.max_retries)
    monkeypatch.setattr("assets.skin.TRY_AGAIN", quick)

    def run(*errors):
        left, tried = list(errors), []

        @table_assets(Codes)
        def step(context, workspace):
            """Fails."""
            tried.append(context.retry_number)
            if left:
                raise left.pop(0)
            return {"quality/codes": Outcome()}

        with dg.instance_for_test() as instance:
            result = dg.materialize(
                [step], instance=instance, resources={"workspace": WorkspaceResource(home=str(site.site.home))}, raise_on_error=False
            )
            failures = [e.step_failure_data for e in result.all_events if e.is_step_failure]
        return len(tried), result.success, failures

    return run


def test_a_store_that_does_not_answer_is_asked_again(tries):
    assert tries(STORE_IS_AWAY, ConflictError("others won"))[:2] == (3, True)


def test_after_three_tries_it_is_over(tries):
    assert tries(*[MemoryError()] * 5)[:2] == (3, False)


def test_bad_data_and_bugs_fail_at_once_in_their_own_words(tries):
    tried, succeeded, [failure] = tries(ContractError("quality/codes: rule: expected text, found 7.", "Mend it."))
    assert (tried, succeeded) == (1, False)
    assert failure.user_failure_data.description == "quality/codes: rule: expected text, found 7.\nMend it."
    tried, succeeded, [failure] = tries(KeyError("date"))
    assert (tried, succeeded) == (1, False) and failure.user_failure_data.description == "KeyError: 'date'"
    assert failure.error.cause.cls_name == "KeyError"  # the traceback of a bug is there for who has to mend it
