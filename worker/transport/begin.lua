-- Notes that a worker received messages that workers fell silent with, or could read them.
--
-- KEYS  unacked_index, unacked, unacked_deliveries (see claim.lua). ARGV  :begun or :read; per claim: tag; owner.
-- A claim that another worker has taken over in the meantime is left alone.
local unacked, deliveries = KEYS[2], KEYS[3]
redis.call('ZREM', KEYS[1], '') -- see claim.lua
for i = 2, #ARGV, 2 do
  local tag, owner = ARGV[i], redis.call('HGET', deliveries, ARGV[i] .. ':owner') or ''
  if owner == ARGV[i + 1] and redis.call('HEXISTS', unacked, tag) == 1 then
    local count = tonumber(redis.call('HGET', deliveries, tag .. ARGV[1]) or 0) or 0 -- see claim.lua
    redis.call('HSET', deliveries, tag .. ARGV[1], count + 1)
  end
end
