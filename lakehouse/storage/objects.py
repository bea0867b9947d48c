"""Object stores: how DuckDB reads files of a lake that lies at a URI, without an extension that would have to be downloaded.

Delta's own writer speaks to the store itself; here is only reading. Credentials come with the lake's storage options or from
the environment (`AWS_…`), and go nowhere else.
"""

from __future__ import annotations

import os
import re
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lakehouse.errors import SiteError

if TYPE_CHECKING:
    import duckdb

    from lakehouse.storage.lake import Lake

SCHEMES = ("s3", "s3a")
WRITTEN_ONCE = datetime(1970, 1, 1, tzinfo=UTC)
"""When any file of the lake was changed: DuckDB asks, to tell whether what it knows of a file still holds."""
READ_AT_ONCE_BYTES = 8 << 20
"""A file up to this size is fetched whole: one request instead of one for every column of every row group."""
KEPT_BYTES = 64 << 20
"""So much of what was fetched whole is kept for a connection's next queries, the newest."""


def give_access(engine: duckdb.DuckDBPyConnection, lake: Lake) -> None:
    """Lets a DuckDB connection read the lake's files; nothing to do where the lake is a local folder.

    Raises:
        SiteError: the lake's URI is of a kind of store that can't be read.
    """
    if lake.is_local:
        return
    scheme = urlsplit(lake.root).scheme
    if engine.filesystem_is_registered(scheme):
        return
    if scheme not in SCHEMES:
        raise SiteError(
            f"paths.lake: expected a folder or a URI that begins with {' or '.join(f'{s}://' for s in SCHEMES)}, found {lake.root}.",
            "Other object stores can be mounted as a folder.",
        )
    engine.register_filesystem(_files_of(scheme, lake.storage_options or {}))


def s3_arguments(options: dict[str, str], environment: dict[str, str] | None = None) -> dict[str, Any]:
    """Arguments of `pyarrow.fs.S3FileSystem` from options as delta-rs names them; the environment fills in what they leave out.

    Names count in either case, with or without `AWS_`. Without keys, Arrow takes what the machine offers: a profile, a web
    identity (as a Kubernetes service account has), or the instance's role.
    """
    told: dict[str, str] = {}
    for given in ({k: v for k, v in (os.environ if environment is None else environment).items() if k.upper().startswith("AWS_")}, options):
        told |= {k.upper().removeprefix("AWS_"): v for k, v in given.items()}
    arguments: dict[str, Any] = {}
    if told.get("ACCESS_KEY_ID"):
        arguments |= {"access_key": told["ACCESS_KEY_ID"], "secret_key": told.get("SECRET_ACCESS_KEY", "")}
        if told.get("SESSION_TOKEN"):
            arguments["session_token"] = told["SESSION_TOKEN"]
    if region := told.get("REGION") or told.get("DEFAULT_REGION"):
        arguments["region"] = region
    if endpoint := told.get("ENDPOINT_URL") or told.get("ENDPOINT_URL_S3") or told.get("ENDPOINT"):
        parts = urlsplit(endpoint if "://" in endpoint else f"https://{endpoint}")
        arguments |= {"endpoint_override": parts.netloc, "scheme": parts.scheme}
        arguments["force_virtual_addressing"] = told.get("VIRTUAL_HOSTED_STYLE_REQUEST", "").lower() in ("true", "1")
    return arguments


def _files_of(scheme: str, options: dict[str, str]) -> Any:
    """A filesystem in the manner of fsspec, which is what DuckDB takes from Python."""
    import io

    from fsspec import AbstractFileSystem
    from pyarrow.fs import S3FileSystem

    store = S3FileSystem(**s3_arguments(options))
    sizes: dict[str, int] = {}
    kept: dict[str, bytes] = {}
    lock = threading.Lock()

    def keep(path: str, content: bytes) -> None:
        with lock:
            kept[path] = content
            while sum(map(len, kept.values())) > KEPT_BYTES:
                del kept[next(iter(kept))]

    class ObjectFiles(AbstractFileSystem):  # type: ignore[misc]
        """Files of an object store, read-only, by their whole URI."""

        protocol = scheme
        cachable = False

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return path

        def _open(self, path: str, mode: str = "rb", **more: Any) -> Any:
            if mode != "rb":
                raise PermissionError(f"{path} is read-only here.")
            content = kept.get(path)
            if content is None:
                opened = store.open_input_file(_key(path))
                sizes[path] = opened.size()
                if sizes[path] > READ_AT_ONCE_BYTES:
                    return opened
                with opened:
                    content = opened.read()
                keep(path, content)
            return io.BytesIO(content)

        # A file of the lake is never written again under its name: what opening it told needs no further request.

        def info(self, path: str, **more: Any) -> dict[str, Any]:
            size = sizes[path] if path in sizes else store.get_file_info(_key(path)).size
            return {"name": path, "size": size, "type": "file", "mtime": WRITTEN_ONCE}

        def exists(self, path: str, **more: Any) -> bool:
            return path in sizes or bool(store.get_file_info(_key(path)).is_file)

        def glob(self, path: str, **more: Any) -> list[str]:
            # The paths are those of a snapshot, whose signs for patterns were written as classes of one: there is nothing to look for.
            return [re.sub(r"\[([\[*?])\]", r"\1", path)]

        def modified(self, path: str) -> Any:
            return WRITTEN_ONCE

    return ObjectFiles()


def _key(path: str) -> str:
    return path.split("://", 1)[-1]
