"""What is worth another try: a step that failed for a reason which may pass is tried again, one that can never work fails at once.

A store or network that does not answer, another writer that was faster, or memory that was short for a moment may pass. Data that break a
contract, a site file that says what can't be, a full disk, and a bug do not: they would fail again, and somebody should be told now. A
process that was killed (on Kubernetes: a lost pod) is the business of the run retries in Dagster's settings.
"""

from __future__ import annotations

import errno

import dagster as dg

from lakehouse.errors import ConflictError, GridlakeError

TRY_AGAIN = dg.RetryPolicy(max_retries=2, delay=2, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)
PASSING_ERRORS = (ConflictError, ConnectionError, TimeoutError, MemoryError, BlockingIOError, InterruptedError)
PASSING_NUMBERS = {errno.EAGAIN, errno.EBUSY, errno.EIO, errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ESTALE, errno.ENOLCK}
STORE_SAYS = ("Generic S3 error", "Generic GCS error", "Generic MicrosoftAzure error", "error sending request", "timed out", "connection")
"""How delta-rs and its object stores speak of a store that does not answer; the errors have no types of their own."""
NEVER = ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "NoSuchBucket", "403 Forbidden")


def may_pass(error: BaseException) -> bool:
    """Whether the same step may succeed on another try, as told by the error and what it came from."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        if isinstance(one, PASSING_ERRORS):
            return True
        if isinstance(one, GridlakeError):
            return False
        if isinstance(one, OSError) and one.errno in PASSING_NUMBERS:
            return True
        if type(one).__module__.startswith(("_duckdb", "duckdb")) and type(one).__name__ == "OutOfMemoryException":
            return True
        if isinstance(one, OSError) or type(one).__module__.startswith("deltalake"):
            told = str(one)
            if any(says in told for says in STORE_SAYS) and not any(never in told for never in NEVER):
                return True
        one = one.__cause__ or one.__context__
    return False
