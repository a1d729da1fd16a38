"""Result events onto the Redis Stream: a batch at a time, in one atomic step, once."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from redis import CredentialProvider, Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from enrollment.addresses import redis_url
from enrollment.consumer.reader import LUA
from enrollment.events import event_json
from enrollment.fold import Record
from enrollment.redis_client import client as redis_client
from worker.scripts import Script, Scripts
from worker.secret_files import renewing

REMEMBERED: Final = 24 * 60 * 60  # seconds during which publishing a batch again adds nothing
SILENT: Final = 7 * 24 * 60 * 60 * 1000  # milliseconds after which nothing is kept for a group any more

# An event is only ever published with its batch (it is in one outbox row at most), so the check on the batch is the
# check on each event, for one key instead of hundreds.
# KEYS: the stream; the batch's key (a string, expires). ARGV: seconds to remember, the events, one per line, and for
# `_TRIM` about how many entries to keep, how many at most for groups that lag, and the silence of a group given up.
_PUBLISH: Final = """
if not redis.call('SET', KEYS[2], '1', 'NX', 'EX', ARGV[1]) then
  redis.call('SET', KEYS[2], '1', 'EX', ARGV[1]) -- replicas are waited for after a write alone: this one
  return 0
end
local count = 0
for event in string.gmatch(ARGV[2], '[^\\n]+') do
  local added = redis.pcall('XADD', KEYS[1], '*', 'event', event)
  if type(added) == 'table' and added.err then -- nothing is undone by itself: the batch is not published after all
    redis.call('DEL', KEYS[2])
    return added
  end
  count = count + 1
end
"""
# Entries beyond the length go, but not those that a group has yet to read or to acknowledge: these are kept up to a
# second length. Nodes of up to 100 entries go at a time, so nothing is counted or compared one by one.
_TRIM: Final = f"""{LUA}
local keep, most, silent = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local function lives(group)
  local consumers = redis.call('XINFO', 'CONSUMERS', KEYS[1], group)
  for _, consumer in ipairs(consumers) do
    if map(consumer)['idle'] < silent then return true end
  end
  return #consumers == 0
end
local function unread()
  local first = nil
  for _, flat in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    local group = map(flat)
    if lives(group['name']) then
      local from = group['last-delivered-id']
      if group['pending'] > 0 then from = redis.call('XPENDING', KEYS[1], group['name'])[2] end
      if not first or before(from, first) then first = from end
    end
  end
  return first
end
local length = redis.call('XLEN', KEYS[1])
if length > keep then
  local known, first = pcall(unread)
  if not known or not first then
    redis.call('XTRIM', KEYS[1], 'MAXLEN', '~', keep)
  else
    local turns, gone = 100, 1
    while gone > 0 and turns > 0 and length > keep + 100 do
      gone = redis.call('XTRIM', KEYS[1], 'MINID', '~', first, 'LIMIT', 100)
      length, turns = length - gone, turns - 1
    end
    if length > most then redis.call('XTRIM', KEYS[1], 'MAXLEN', '~', most) end
  end
end
return count
"""


_SCRIPT: Final = Script(_PUBLISH + _TRIM)


class Publisher:
    """Publishes batches of events to one stream."""

    def __init__(self, client: Redis, *, stream: str, maxlen: int, most: int | None = None, replicas: int = 0) -> None:
        """Keep about `maxlen` entries, and up to `most` (default: twice that) while a group has not read them.

        A batch counts as published when `replicas` replicas of Redis have it.
        """
        self._most = max(maxlen, most or 2 * maxlen)
        self._client = client
        self._scripts = Scripts(lambda: client.connection_pool)
        self._stream = stream
        self._maxlen = maxlen
        self._replicas = replicas

    def publish(self, batch_id: UUID, records: Sequence[Record], events: Sequence[str] = ()) -> int:
        """Put the events of a committed batch on the stream; return how many, 0 if they are there already.

        They are those of `records`, and `events` as they are.

        Raises redis.RedisError when the stream cannot be written, or a failover may forget the batch; the outbox then
        still holds it.
        """
        # JSON has no line breaks of its own; one argument is cheaper than one per event.
        lines = "\n".join([*map(event_json, records), *events])
        # The hash tag keeps both keys on one node of a Redis Cluster.
        keys = [self._stream, f"{{{self._stream}}}:batch:{batch_id}"]
        try:
            limits = (self._maxlen, self._most, SILENT)
            return int(
                self._scripts.run(_SCRIPT, 2, *keys, REMEMBERED, lines, *limits, replicas=self._replicas, again=True)
            )
        except ResponseError:
            # A master that became a replica answers, and refuses writes for ever: a new connection finds the new one.
            self.disconnect()
            raise

    def disconnect(self) -> None:
        """Hang up; the next batch finds the server anew."""
        self._client.connection_pool.disconnect()


def connect(url: str, *, patience: float = 5, credentials: CredentialProvider | None = None) -> Redis:
    """Return a client that gives up after `patience` seconds: what cannot be published now is in the outbox.

    `credentials` tell user and password for each new connection, in place of those in the address.
    """
    return redis_client(
        **renewing(redis_url(url), credentials),
        decode_responses=True,
        encoding_errors="replace",  # what is not UTF-8 is no event
        socket_timeout=patience,
        socket_connect_timeout=min(patience, 2),
        socket_keepalive=True,
        health_check_interval=15,
        # The first try may meet a connection that went stale while idle. One that hangs is not tried twice.
        retry=Retry(NoBackoff(), 1, (Disconnected,)),
    )


__all__ = ["Publisher", "RedisError", "connect"]
