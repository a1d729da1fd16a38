import bz2
import gzip
import lzma
import zlib
from types import SimpleNamespace
from typing import Any

import pytest
from kombu import compression
from kombu.transport import pyamqp, virtual

from worker.consume.inflating import inflate
from worker.transport import register
from worker.transport.limits import MOST_INFLATED

METHODS: dict[str, Any] = {
    **dict.fromkeys(("gzip", "zlib", "application/x-gzip"), zlib.compress),
    **dict.fromkeys(("bzip2", "bzip", "application/x-bz2"), bz2.compress),
    **dict.fromkeys(("lzma", "xz", "application/x-lzma"), lzma.compress),
}


@pytest.mark.parametrize("method", METHODS)
def test_a_body_is_inflated_by_every_name_that_kombu_has(method: str) -> None:
    assert inflate(METHODS[method](b"body"), {"compression": method}) == b"body"
    assert inflate(METHODS[method](b"x" * MOST_INFLATED), {"compression": method}) == b"x" * MOST_INFLATED


def test_what_a_foreign_client_calls_gzip_is_inflated_and_what_is_not_compressed_is_left_alone() -> None:
    assert inflate(gzip.compress(b"body"), {"compression": "gzip"}) == b"body"
    assert inflate("text", {"compression": None}) == "text"


@pytest.mark.parametrize("method", METHODS)
def test_more_than_the_limit_is_refused(method: str) -> None:
    with pytest.raises(ValueError, match="inflates to more than"):
        inflate(METHODS[method](b"x" * (MOST_INFLATED + 1)), {"compression": method})


@pytest.mark.parametrize("method", METHODS)
def test_what_is_cut_off_or_is_something_else_is_refused(method: str) -> None:
    for body in (METHODS[method](b"body")[:-5], b"", b"body"):
        with pytest.raises(ValueError):  # noqa: PT011 - the reason differs
            inflate(body, {"compression": method})


@pytest.mark.parametrize("method", ["zstd", "brotli", "rot13", 7, ["gzip"], {"a": 1}, "x" * 1_000_000])
def test_other_methods_are_refused_in_a_sentence(method: object) -> None:
    with pytest.raises(ValueError, match="gzip, bzip2 and lzma are known") as it:
        inflate(b"", {"compression": method})
    assert len(str(it.value)) < 200


def test_a_large_dictionary_is_refused() -> None:
    with pytest.raises(ValueError, match="LZMAError"):
        inflate(lzma.compress(b"x", preset=9), {"compression": "xz"})


@pytest.mark.parametrize("method", METHODS)
def test_kombu_inflates_nothing_on_any_transport(method: str) -> None:
    register()
    body, headers = METHODS[method](b"body"), {"compression": method}
    by_amqp = SimpleNamespace(
        body=body, delivery_tag="1", delivery_info={}, properties={"application_headers": headers}
    )
    assert pyamqp.Message(by_amqp).body == body
    payload = {"body": None, "headers": headers, "properties": {"delivery_tag": "1"}}
    channel: Any = SimpleNamespace(decode_body=lambda *_: body)
    assert virtual.Message({**payload, "body": "x"}, channel=channel).body == body
    known: Any = compression
    encode, content_type = known.get_encoder(method)
    assert (encode(b"body"), content_type in METHODS) == (METHODS[method](b"body"), True)
