"""Secrets, read from where the configuration says that they are. No message ever holds one."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

from swapper.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from swapper.recipe import Secret

__all__ = ["read"]


def read(secret: Secret) -> str:
    """The secret, without its trailing newline.

    Raises ConfigError, which names the place, if it is missing, readable by everyone, or not one line of text.
    """
    raw = _from_file(secret.file) if secret.file else os.environb.get(secret.env.encode(), b"")
    try:
        value = raw.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise ConfigError(f"{secret}: the secret there is not UTF-8") from None  # the cause would hold it
    if not value:
        raise ConfigError(f"{secret}: no secret is there")
    # What a header cannot carry would be quoted, secret and all, by the library that refuses it.
    if not value.isprintable() or value != value.strip():
        raise ConfigError(f"{secret}: the secret there is not one line of text without spaces at its ends")
    return value


def _from_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if mode & 0o007:
                raise ConfigError(f"{path}: everyone may use this secret; run: chmod o= {shlex.quote(str(path))}")
            return file.read()
    except OSError as error:
        raise ConfigError(f"{path}: the secret cannot be read: {error.strerror}") from error
