-- Gives claims back: to the list, next in turn and in their old order, or to the next claim, under the same tag.
--
-- KEYS  unacked_index, unacked, unacked_deliveries (see claim.lua), then lists.
-- ARGV  per claim, oldest first: tag; owner; number of its list, or 0 to leave it to the next claim; length of the end
--       of its entry in the hash.
-- Returns how many were given back. A claim that another worker has taken over in the meantime is left alone.
local index, unacked, deliveries = KEYS[1], KEYS[2], KEYS[3]
local given = 0
for i = #ARGV - 3, 1, -4 do
  local tag, owner, list, ending = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3])
  local entry = redis.call('HGET', unacked, tag)
  if entry and (redis.call('HGET', deliveries, tag .. ':owner') or '') == owner then
    redis.call('ZREM', index, tag)
    if list == 0 then
      redis.call('ZADD', index, 0, tag)
      -- Whoever gives it back has survived it.
      local counts = redis.call('HMGET', deliveries, tag, tag .. ':begun')
      local suspect, begun = tonumber(counts[1] or 0), tonumber(counts[2] or 0)
      if suspect and begun and suspect > 0 and begun > 0 then
        redis.call('HSET', deliveries, tag .. ':begun', begun - 1)
      end
    else
      redis.call('HDEL', unacked, tag)
      redis.call('HDEL', deliveries, tag, tag .. ':begun', tag .. ':read', tag .. ':forgiven', tag .. ':owner')
      redis.call('RPUSH', KEYS[3 + list], string.sub(entry, 2, -(ending + 1)))
    end
    given = given + 1
  end
end
return given
