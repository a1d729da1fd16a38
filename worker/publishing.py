"""Result events onto the Redis Stream: a batch at a time, in one atomic step, once."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from redis import CredentialProvider, Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from enrollment.addresses import redis_url
from enrollment.events import event_json
from enrollment.fold import Record
from worker.secret_files import renewing

REMEMBERED: Final = 24 * 60 * 60  # seconds during which publishing a batch again adds nothing

# An event is only ever published with its batch (a command id is in one outbox row at most), so the check on the batch
# is the check on each event id, for one key instead of hundreds.
# KEYS: the stream; the batch's key (a string, expires). ARGV: seconds to remember, about how many entries to keep, the
# events, one per line.
_PUBLISH: Final = """
if not redis.call('SET', KEYS[2], '1', 'NX', 'EX', ARGV[1]) then return 0 end
local count = 0
for event in string.gmatch(ARGV[3], '[^\\n]+') do
  local added = redis.pcall('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', 'event', event)
  if type(added) == 'table' and added.err then -- nothing is undone by itself: the batch is not published after all
    redis.call('DEL', KEYS[2])
    return added
  end
  count = count + 1
end
return count
"""


class Publisher:
    """Publishes batches of events to one stream."""

    def __init__(self, client: Redis, *, stream: str, maxlen: int) -> None:
        self._client = client
        self._stream = stream
        self._maxlen = maxlen
        self._publish = client.register_script(_PUBLISH)

    def publish(self, batch_id: UUID, records: Sequence[Record], events: Sequence[str] = ()) -> int:
        """Put the events of a committed batch on the stream; return how many, 0 if they are there already.

        They are those of `records`, and `events` as they are.

        Raises redis.RedisError when the stream cannot be written; the outbox then still holds the batch.
        """
        # JSON has no line breaks of its own; one argument is cheaper than one per event.
        lines = "\n".join([*map(event_json, records), *events])
        # The hash tag keeps both keys on one node of a Redis Cluster.
        keys = [self._stream, f"{{{self._stream}}}:batch:{batch_id}"]
        try:
            added: int = self._publish(keys=keys, args=[REMEMBERED, self._maxlen, lines])
        except ResponseError:
            # A master that became a replica answers, and refuses writes for ever: a new connection finds the new one.
            self._client.connection_pool.disconnect()
            raise
        return added


def connect(url: str, *, patience: float = 5, credentials: CredentialProvider | None = None) -> Redis:
    """Return a client that gives up after `patience` seconds: what cannot be published now is in the outbox.

    `credentials` tell user and password for each new connection, in place of those in the address.
    """
    return Redis.from_url(
        **renewing(redis_url(url), credentials),
        decode_responses=True,
        socket_timeout=patience,
        socket_connect_timeout=min(patience, 2),
        socket_keepalive=True,
        health_check_interval=15,
        retry=Retry(NoBackoff(), 1),  # the first try may meet a connection that went stale while idle
    )


__all__ = ["Publisher", "RedisError", "connect"]
