"""What `doctor` says of a server by what the server says of itself."""

import pytest

from worker import health


def test_a_redis_without_a_limit_of_its_own_is_not_judged() -> None:
    assert health.memory("broker", {"maxmemory": 0, "used_memory": 10}) is None


@pytest.mark.parametrize(("used", "status"), [(89, "ok"), (90, "warn"), (99, "warn"), (100, "fail"), (120, "fail")])
def test_a_redis_is_warned_of_before_it_is_full(used: int, status: str) -> None:
    found = health.memory("broker", {"maxmemory": 100, "used_memory": used})
    assert found is not None
    assert (found.status, bool(found.advice)) == (status, status != "ok")
