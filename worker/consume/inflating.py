"""Compressed bodies, inflated up to a limit: two kilobytes may stand for gigabytes, and kombu would make them."""

import bz2
import lzma
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from worker.transport.envelope import short
from worker.transport.limits import MOST_INFLATED

_DICTIONARY: Final = 32 * 1024 * 1024  # bytes that LZMA may ask for; Python's own default takes 9 MB
_ZLIB_OR_GZIP: Final = zlib.MAX_WBITS | 32


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def _lzma() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(memlimit=_DICTIONARY)


def _zlib() -> Any:
    return zlib.decompressobj(_ZLIB_OR_GZIP)


# By every name that kombu has for it.
_METHODS: Final[Mapping[str, Callable[[], _Decompressor]]] = {
    **dict.fromkeys(("application/x-gzip", "gzip", "zlib"), _zlib),
    **dict.fromkeys(("application/x-bz2", "application/bzip2", "bzip2", "bzip"), bz2.BZ2Decompressor),
    **dict.fromkeys(("application/x-lzma", "lzma", "xz"), _lzma),
}


def inflate(body: object, headers: Mapping[str, Any]) -> object:
    """Return a body as it was before compression, where its headers name one. Raises ValueError with the reason."""
    method = headers.get("compression")
    if not method:
        return body
    make = _METHODS.get(method) if isinstance(method, str) else None
    if make is None:
        raise ValueError(f"its compression is {repr(method)[:100]}; gzip, bzip2 and lzma are known")
    if not isinstance(body, bytes):
        raise ValueError("it is text, and its headers say that it is compressed")  # noqa: TRY004 - of one kind
    decompressor = make()
    try:
        inflated = decompressor.decompress(body, MOST_INFLATED + 1)
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise ValueError(short(error)) from error
    if len(inflated) > MOST_INFLATED:
        raise ValueError(f"it inflates to more than {MOST_INFLATED:,} bytes")
    if not decompressor.eof:
        raise ValueError("the end of its compressed data is missing")
    return inflated
