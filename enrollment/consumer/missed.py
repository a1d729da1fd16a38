"""What a group's members note in Redis of entries that the group missed, until they are read from the change feed.

Who finds a gap writes it down in the same script that moves the group past it, so that no kill comes in between. The
note is a hash beside the stream. It stays until a member has dealt with the feed from before the gap to its end, or was
told that there is none. Events may come twice for that, and never less than once.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

from redis import Redis

from enrollment.consumer.reader import LUA

# KEYS of all scripts: the stream; the note (a hash, until it is dealt with): `from`, the entry after which some are
# missing; `place`, that of the feed where it goes on; `noted`, the time of the last gap, in µs; `holder` and `till`
# (ms): the member that reads the feed, and until when it is left alone.
_NOTES: Final = f"""{LUA}
local function note(id)
  local from, time = redis.call('HGET', KEYS[2], 'from'), redis.call('TIME')
  if not from or before(id, from) then
    redis.call('HSET', KEYS[2], 'from', id)
    redis.call('HDEL', KEYS[2], 'place')
  end
  redis.call('HSET', KEYS[2], 'noted', string.format('%s%06d', time[1], time[2]))
end
local function position(group)
  local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1])
  if groups.err then return nil, groups end
  for _, flat in ipairs(groups) do
    local found = map(flat)
    if found['name'] == group then return found['last-delivered-id'] end
  end
  return nil, redis.error_reply('NOGROUP the group is gone')
end
"""
# ARGV: the group, the member, how many. Returns 2 where there was a gap, 1 where one is noted, where the group was,
# and the answer of XREADGROUP. Where the stream goes on beyond a gap, so does the group, by reading.
_TAKE: Final = """
local last, failed = position(ARGV[1])
if failed then return failed end
local stream = map(redis.call('XINFO', 'STREAM', KEYS[1]))
local first, newest = stream['first-entry'] and stream['first-entry'][1], stream['last-generated-id']
local other = before(newest, last) -- the group was in a stream that was there before this one
local gap = other or (first and before(last, first)) or (not first and last ~= newest)
if last == '0-0' then -- Redis before 7 does not count what was added
  gap = (stream['entries-added'] or stream['length']) > stream['length']
end
if gap then
  note(last)
  if other or not first then redis.call('XGROUP', 'SETID', KEYS[1], ARGV[1], first and '0-0' or newest) end
end
local page = redis.pcall('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', ARGV[3], 'STREAMS', KEYS[1], '>')
if page and page.err then return page end
return {gap and 2 or redis.call('EXISTS', KEYS[2]), last, page}
"""
# ARGV: the group, the member, the silence (ms) of a dead one, how many. Redis strikes off what was trimmed, names it.
_INHERIT: Final = """
local reply = redis.pcall('XAUTOCLAIM', KEYS[1], ARGV[1], ARGV[2], ARGV[3], '0-0', 'COUNT', ARGV[4])
if reply.err then return reply end
if reply[3] and reply[3][1] then note(reply[3][1]) end
return reply
"""
_NOTE: Final = "note(ARGV[1])"  # ARGV: the entry
# ARGV: the member, for how long (ms).
_CLAIM: Final = """
local from, place, noted, holder, till =
  unpack(redis.call('HMGET', KEYS[2], 'from', 'place', 'noted', 'holder', 'till'))
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if not from or (holder and holder ~= ARGV[1] and tonumber(till) > now) then return false end
redis.call('HSET', KEYS[2], 'holder', ARGV[1], 'till', now + ARGV[2])
return {from, place or '', noted}
"""
# ARGV: `noted` when the page was asked for, the place after it; or nothing, and the group and an entry of the stream up
# to which all has been read in the feed. A gap that was noted since may need what is before this place: nothing moves.
_MOVE: Final = """
if redis.call('HGET', KEYS[2], 'noted') ~= ARGV[1] then return end
if ARGV[2] ~= '' then
  redis.call('HSET', KEYS[2], 'place', ARGV[2])
  return
end
-- As DEL does, for a user who may not delete the stream either.
redis.call('HDEL', KEYS[2], 'from', 'place', 'noted', 'holder', 'till')
local last = position(ARGV[3])
if last and before(last, ARGV[4]) then redis.call('XGROUP', 'SETID', KEYS[1], ARGV[3], ARGV[4]) end
"""

Found = list[tuple[str, Mapping[str, str] | None]]  # entries; without fields where they were trimmed


class Taken(NamedTuple):
    """New entries for a member. `gap`: some before them are missing; `noted`: some are, or were before."""

    gap: bool
    noted: bool
    position: str
    entries: Found


class Part(NamedTuple):
    """What a member has to read: the feed from `place` on, or, where that is empty, from before the entry `after`."""

    after: str
    place: str
    noted: str


class Notes:
    """The notes of one group. All raise RedisError."""

    def __init__(self, client: Redis, stream: str, group: str) -> None:
        self._client, self._group = client, group
        self._keys = (stream, f"{{{stream}}}:missed:{group}")

    def take(self, name: str, count: int) -> Taken:
        """Give a member new entries, and note where some before them are missing."""
        state, position, reply = self._run(_TAKE, self._group, name, count)
        return Taken(state == 2, state > 0, position, _found(reply[0][1] if reply else []))  # noqa: PLR2004

    def inherit(self, name: str, idle: int, count: int) -> tuple[Found, bool]:
        """Give a member what dead ones hold, and note what of that is missing. The second: something is."""
        reply = self._run(_INHERIT, self._group, name, idle, count)
        # Before 7 a missing entry is nothing in the list, and the member's own from then on.
        return _found(filter(None, reply[1])), None in reply[1] or bool(reply[2:] and reply[2])

    def note(self, entry_id: str) -> None:
        """Note an entry that is missing."""
        self._run(_NOTE, entry_id)

    def claim(self, name: str, lease: int) -> Part | None:
        """Return what is to be read, for `lease` milliseconds this member's alone; None: nothing, or another's."""
        reply = self._run(_CLAIM, name, lease)
        return Part(*reply) if reply else None

    def move(self, part: Part, place: str) -> None:
        """Note that the feed up to `place` is dealt with."""
        self._run(_MOVE, part.noted, place)

    def strike(self, part: Part, end: str) -> None:
        """Forget what was missed: all of it is dealt with, and the stream up to `end` with it."""
        self._run(_MOVE, part.noted, "", self._group, end)

    def _run(self, script: str, *arguments: str | int) -> Any:
        return self._client.eval(_NOTES + script, len(self._keys), *self._keys, *map(str, arguments))


def _found(reply: Any) -> Found:
    """Return entries as a script gets them: fields and values in turn."""
    entries = cast("Sequence[tuple[str, Sequence[str] | None]]", list(reply))
    return [(id_, dict(zip(it[::2], it[1::2], strict=True)) if it else None) for id_, it in entries]
