-- Makes claims young again. Whoever can do that is alive: the count of deliveries starts anew, so that the death of a
-- worker after a long wait for the database is held against none of the messages that it waited with. A few times
-- only: a message may also be one that takes its worker's time, and then its life.
--
-- KEYS  unacked_index, unacked, unacked_deliveries (see claim.lua). ARGV  per claim: tag; owner.
-- A claim that another worker has taken over in the meantime is left alone.
local index, unacked, deliveries = KEYS[1], KEYS[2], KEYS[3]
local FORGIVEN = 5 -- deaths
redis.call('ZREM', index, '') -- see claim.lua
local clock = redis.call('TIME')
local now = clock[1] .. '.' .. string.format('%06d', tonumber(clock[2]))
for i = 1, #ARGV, 2 do
  local tag, owner = ARGV[i], redis.call('HGET', deliveries, ARGV[i] .. ':owner') or ''
  if owner == ARGV[i + 1] and redis.call('HEXISTS', unacked, tag) == 1 then
    redis.call('ZADD', index, now, tag)
    if (tonumber(redis.call('HGET', deliveries, tag .. ':forgiven') or 0) or 0) < FORGIVEN then
      redis.call('HSET', deliveries, tag, -1)
      redis.call('HDEL', deliveries, tag .. ':begun')
    end
  end
end
