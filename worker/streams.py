"""How long the event stream is, and how far behind its consumer groups are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis import CredentialProvider, Redis
from redis.exceptions import ResponseError

from worker.brokers import client_of, good_replicas

MOST_GROUPS: Final = 100  # groups that are measured


@dataclass(frozen=True, slots=True)
class Group:
    """A consumer group. `lag` is None where Redis does not know it, `missed` where it is too old to tell."""

    name: str
    lag: int | None
    pending: int
    missed: bool | None


@dataclass(frozen=True, slots=True)
class StreamState:
    """The stream and its groups."""

    entries: int
    groups: Sequence[Group] = ()
    replicas: int = 0  # of its Redis
    needed: int = 0  # of these, by the server's own settings
    added: int | None = 0  # entries ever, which is less than before only where the stream was lost; since Redis 7.0


class StreamWatch:
    """Asks Redis about one stream."""

    def __init__(self, client: "Redis", key: str) -> None:
        self._client = client
        self._key = key

    def close(self) -> None:
        """Hang up."""
        self._client.close()

    def state(self) -> StreamState:
        """Return how the stream is; it may not exist yet. Raises redis.RedisError."""
        replicas = good_replicas(self._client.info("replication"))
        try:
            info: Any = self._client.xinfo_stream(self._key)
            groups: Any = self._client.xinfo_groups(self._key)
        except ResponseError as error:
            if "no such key" in str(error):
                return StreamState(0, replicas=replicas)
            raise
        found = [_group(group, info) for group in groups[:MOST_GROUPS]]
        return StreamState(info["length"], found, replicas, added=info.get("entries-added"))


def watch(url: str, key: str, credentials: CredentialProvider | None = None) -> StreamWatch:
    """Return a watcher for a stream; nothing is connected yet."""
    return StreamWatch(client_of(url, credentials), key)


def _group(group: Any, info: Any) -> Group:
    name = group["name"].decode(errors="replace")
    return Group(name, group.get("lag"), group["pending"], _missed(group, info))


def _missed(group: Any, info: Any) -> bool | None:
    """Tell whether entries are gone that the group had not read."""
    added = info.get("entries-added")  # since Redis 7.0
    if added is None:
        return None
    gone, first = added - info["length"], info["first-entry"]
    if not gone or first is None or _position(group["last-delivered-id"]) >= _position(first[0]):
        return False
    read = group.get("entries-read")
    return read is None or read < gone


def _position(entry_id: bytes) -> tuple[int, int]:
    time, _, number = entry_id.partition(b"-")
    return int(time), int(number)
