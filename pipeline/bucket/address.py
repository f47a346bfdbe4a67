"""Where a lake in a bucket is: its URL, read and checked, and the folder of this machine that mirrors it."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.bucket.azure import azure_settings
from pipeline.errors import UsageError

SCHEMES = {"s3": "s3://bucket/prefix", "gs": "gs://bucket/prefix", "az": "az://container/prefix"}
CACHE_VARIABLE = "PIPELINE_CACHE"
_ENDPOINTS = {"s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"), "gs": ("GOOGLE_BASE_URL",), "az": ()}
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,220}")
_SEGMENT = re.compile(r"[A-Za-z0-9_.=+ -]{1,255}")
_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Address:
    """A bucket and where in it a lake is; `prefix` has no slash at its ends, and may be empty. `endpoint` is the
    store's own URL, where the environment names one, or an Azure account, which has one of its own: it tells one bucket
    of a name from another.
    """

    scheme: str
    bucket: str
    prefix: str
    endpoint: str | None

    @property
    def url(self) -> str:
        """The URL, without a slash at its end."""
        return f"{self.scheme}://{self.bucket}{'/' if self.prefix else ''}{self.prefix}"


def read_address(text: str, env: Mapping[str, str] = os.environ) -> Address:
    """Return the checked address that a URL names; raise UsageError, which shows nothing that could be a password."""
    scheme, _, rest = text.strip().partition("://")
    if scheme not in SCHEMES:
        raise UsageError(f"--lake {scheme[:20]}://…: a lake is a folder, or one of {', '.join(SCHEMES.values())}")
    bucket, _, prefix = rest.partition("/")
    segments = [segment for segment in prefix.split("/") if segment]
    odd = [segment for segment in segments if not _SEGMENT.fullmatch(segment) or segment.startswith(".")]
    if not _BUCKET.fullmatch(bucket) or odd:
        raise UsageError(
            f"--lake {scheme}://…: this is no bucket and prefix (letters, digits, `-`, `_`, `.`, `=`, `+`); give one "
            f"like {SCHEMES[scheme]}, and credentials by the environment"
        )
    endpoint = next((env[name] for name in _ENDPOINTS[scheme] if env.get(name)), None)
    if scheme == "az":
        endpoint = azure_settings(env).get("endpoint")
    return Address(scheme, bucket, "/".join(segments), endpoint)


def cache_folder(address: Address, env: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of this machine in which the bucket's lake is mirrored.

    PIPELINE_CACHE names the folder of all mirrors, else it is `extend-pipeline` in XDG_CACHE_HOME, or in ~/.cache.
    """
    named = env.get(CACHE_VARIABLE)
    if named:
        folder = Path(named)
    elif env.get("XDG_CACHE_HOME"):
        folder = Path(env["XDG_CACHE_HOME"]) / "extend-pipeline"
    else:
        folder = Path.home() / ".cache" / "extend-pipeline"
    digest = hashlib.sha256(f"{address.url}\n{address.endpoint or ''}".encode()).hexdigest()[:_DIGITS]
    return folder.absolute() / f"{address.scheme}-{address.bucket}-{digest}"
