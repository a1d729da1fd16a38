import sys
from importlib import import_module

import pytest

from enrollment import client, consumer


@pytest.mark.parametrize(
    ("old", "names"),
    [
        ("worker.client", {"Client": client.Client, "Bulk": client.Bulk, "BrokerAway": client.BrokerAway}),
        ("worker.consuming", {"Consumer": consumer.GroupConsumer, "Batch": consumer.EntryBatch}),
        ("worker.streaming", {"Reader": consumer.Reader, "EventsMissed": consumer.EventsMissed}),
    ],
)
def test_an_old_path_gives_the_same_things_and_says_where_they_are_now(
    old: str, names: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, old, raising=False)
    with pytest.warns(DeprecationWarning, match=r"import from enrollment\."):
        module = import_module(old)
    assert {name: getattr(module, name) for name in names} == names
