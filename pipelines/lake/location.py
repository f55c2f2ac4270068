"""Where things lie: in a folder of this machine, or in an object store.

A place in an object store is carried as a `Path` too: `Path("s3://bucket/lake")` reads `s3:/bucket/lake`,
and `/`, `.parent` and `.name` work on it, so a spec or a recipe may name either kind. `url` gives the
URL back. What opens such a path goes through this module; a local path costs nothing more than before.

Endpoint and credentials come from where every S3 tool takes them (`AWS_ENDPOINT_URL`, `AWS_PROFILE`,
`AWS_ACCESS_KEY_ID`, a pod's role): they never stand in a URL, a spec, a manifest or a log.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path, PurePosixPath
from typing import IO, Any

_SCHEME = "s3:"
PLAIN_VARIABLE = "LAKE_PLAIN_STORE"
"""`yes`: the store may pass over the conditions of a write, and takes no list of objects to delete, as is to be expected of
Google Cloud Storage behind its S3 endpoint. A store that says that it lacks the first needs no word of this."""
MOST_ATTEMPTS = 10
"""Of one request, with growing pauses, when the store says SlowDown, fails inside or does not answer."""


class Conflict(Exception):
    """The object is no longer what it was said to be: another writer was here."""


def is_remote(path: Path) -> bool:
    """Whether the path is an object store's."""
    return path.parts[:1] == (_SCHEME,)


def url(path: Path) -> str:
    """The path as a person and every S3 tool write it: `s3://bucket/key`, or the local path."""
    return f"s3://{_key(path)}" if is_remote(path) else str(path)


def absolute(path: Path) -> Path:
    """The path from the root of its disk or store."""
    return path if is_remote(path) else path.resolve()


def _key(path: Path) -> str:
    """`bucket/key` of a remote path."""
    from pipelines.errors import BadInput

    key = PurePosixPath(*path.parts[1:]).as_posix()
    if "@" in key.split("/")[0] or key == ".":
        raise BadInput(
            "this is no `s3://BUCKET/KEY`, or holds credentials",
            where="s3://...",
            remedy="leave keys and secrets out of URLs: set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        )
    return key


def _store() -> Any:
    """The store's client: fsspec keeps one per process."""
    import fsspec

    return fsspec.filesystem(
        "s3",
        use_listings_cache=False,
        config_kwargs={"retries": {"mode": "standard", "max_attempts": MOST_ATTEMPTS}, "connect_timeout": 20},
    )


def check_usable(path: Path) -> None:
    """Whether the store of a remote path answers and lets this account look: asked once, before much is done with it.

    Raises:
        BadInput: it does not; there are no credentials, or there is no such bucket.
    """
    if not is_remote(path):
        return
    import fsspec
    from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]

    from pipelines.errors import BadInput

    bucket, _, prefix = _key(path).partition("/")
    # One of its own, which does not try for minutes.
    settings = {"retries": {"mode": "standard", "max_attempts": 2}, "connect_timeout": 10}
    try:
        store = fsspec.filesystem("s3", skip_instance_cache=True, config_kwargs=settings)
        store.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=1)
    except (BotoCoreError, OSError) as error:
        raise BadInput(
            f"the object store cannot be used: {error or type(error).__name__}",
            where=url(path),
            remedy=f"name a bucket that is there, and credentials that may list and read it (AWS_PROFILE, or AWS_ACCESS_KEY_ID and "
            f"AWS_SECRET_ACCESS_KEY; AWS_ENDPOINT_URL where it is not Amazon's): `aws s3 ls s3://{bucket}` must answer",
        ) from None


def is_file(path: Path) -> bool:
    return bool(_store().isfile(_key(path))) if is_remote(path) else path.is_file()


def read_bytes(path: Path) -> bytes:
    """
    Raises:
        FileNotFoundError: there is no such file or object.
    """
    if not is_remote(path):
        return path.read_bytes()
    content: bytes = _store().cat_file(_key(path))
    return content


def read_range(path: Path, offset: int, length: int) -> bytes:
    """At most `length` bytes of a remote object, from `offset`: fewer where it ends before."""
    try:
        content: bytes = _store().cat_file(_key(path), start=offset, end=offset + length)
    except OSError as error:
        if error.errno == errno.EINVAL and "range" in str(error).lower():
            return b""
        raise
    return content


def read_tagged(path: Path) -> tuple[bytes, str]:
    """A remote object's content, and its tag (S3's ETag) at that moment."""
    bucket, key = _key(path).split("/", 1)
    answer = _store().call_s3("get_object", Bucket=bucket, Key=key)
    return _store_read(answer), str(answer["ETag"])


def _store_read(answer: Any) -> bytes:
    from fsspec.asyn import sync

    content: bytes = sync(_store().loop, answer["Body"].read)
    return content


def write_bytes(path: Path, content: bytes) -> None:
    """Put `content` at `path`, whose folder exists: a reader sees the old file or the new one, never a part."""
    if is_remote(path):
        _store().pipe_file(_key(path), content)
        return
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)


def put_if(path: Path, content: bytes, tag: str | None) -> str:
    """Put a remote object only where it still has this tag (None: only where there is none); return its new tag.

    Raises:
        Conflict: it has another tag, or exists.
    """
    if _plain():
        return _put_if_unguarded(path, content, tag)
    bucket, key = _key(path).split("/", 1)
    condition = {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag}
    try:
        answer = _store().call_s3("put_object", Bucket=bucket, Key=key, Body=content, **condition)
    except OSError as error:
        if _code(error) in ("NotImplemented", "501"):
            return _put_if_unguarded(path, content, tag)
        if _code(error) not in (
            "PreconditionFailed",
            "ConditionalRequestConflict",
            "NoSuchKey",
            "404",
            "412",
            "409",
        ):
            raise
        # A request whose answer was lost is sent again, and then conflicts with itself.
        found = _tagged_or_none(path)
        if found is not None and found[0] == content:
            return found[1]
        raise Conflict(url(path)) from error
    return str(answer["ETag"])


def _plain() -> bool:
    return os.environ.get(PLAIN_VARIABLE, "") == "yes"


def _put_if_unguarded(path: Path, content: bytes, tag: str | None) -> str:
    """For stores without conditional writes: look first, write, look again. Two writers within milliseconds may pass."""
    found = _tagged_or_none(path)
    if (None if found is None else found[1]) != tag:
        raise Conflict(url(path))
    write_bytes(path, content)
    written, new = read_tagged(path)
    if written != content:
        raise Conflict(url(path))
    return new


def _tagged_or_none(path: Path) -> tuple[bytes, str] | None:
    try:
        return read_tagged(path)
    except FileNotFoundError:
        return None


def _code(error: OSError) -> str:
    """S3's error code, which s3fs keeps in the cause."""
    cause = error.__cause__
    answer = getattr(cause, "response", None) or {}
    return str(answer.get("Error", {}).get("Code", ""))


def tag(path: Path) -> str:
    """The tag of a remote object: another one when its content is another.

    Raises:
        FileNotFoundError: there is no such object.
    """
    return str(_store().info(_key(path))["ETag"])


def upload(source: Path, target: Path) -> str:
    """Copy a local file into the store, whole or not at all; return its tag."""
    _store().put_file(str(source), _key(target))
    return tag(target)


def download(source: Path, target: IO[bytes]) -> None:
    """Copy a remote object into an open local file."""
    with _store().open(_key(source), "rb", cache_type="readahead", block_size=16 << 20) as stream:
        while chunk := stream.read(16 << 20):
            target.write(chunk)


def listing(folder: Path) -> dict[Path, tuple[int, str]]:
    """Every object below a remote folder: its bytes and its tag."""
    key = _key(folder)
    try:
        found = _store().find(key, detail=True)
    except FileNotFoundError:
        return {}
    return {
        Path(_SCHEME) / name: (int(info["size"]), str(info.get("ETag", "")))
        for name, info in found.items()
        if name != key
    }


def matching(pattern: Path) -> list[Path]:
    """The remote objects that a path with `*` and `?` stands for, neither of which crosses a `/`."""
    found = _store().glob(_key(pattern), detail=True)
    return [Path(_SCHEME) / name for name, info in found.items() if info["type"] == "file"]


def remove(paths: list[Path]) -> None:
    """Delete remote objects; those that are gone already do not matter."""
    if _plain():
        for path in paths:
            _store().rm_file(_key(path))
    elif paths:
        _store().rm([_key(path) for path in paths])


def folders(parent: Path) -> list[Path]:
    """The folders directly below `parent`, sorted; none where it does not exist."""
    if not is_remote(parent):
        return sorted(path for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else []
    try:
        found = _store().ls(_key(parent), detail=True)
    except FileNotFoundError:
        return []
    return sorted(Path(_SCHEME) / entry["name"] for entry in found if entry["type"] == "directory")
