-- Notes that work begins on messages that workers fell silent with.
--
-- KEYS  unacked_index, unacked, unacked_deliveries (see claim.lua). ARGV  per claim: tag; owner.
-- A claim that another worker has taken over in the meantime is left alone.
local unacked, deliveries = KEYS[2], KEYS[3]
redis.call('ZREM', KEYS[1], '') -- see claim.lua
for i = 1, #ARGV, 2 do
  local tag, owner = ARGV[i], redis.call('HGET', deliveries, ARGV[i] .. ':owner') or ''
  if owner == ARGV[i + 1] and redis.call('HEXISTS', unacked, tag) == 1 then
    redis.call('HINCRBY', deliveries, tag .. ':begun', 1)
  end
end
