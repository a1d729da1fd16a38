-- Forgets messages that are done with. Nothing here takes memory, so a server that is out of it allows this.
--
-- KEYS  unacked_index, unacked, unacked_deliveries (see claim.lua).
-- ARGV  tags.
local PAGE = 1000 -- as many as `unpack` takes with room to spare
local counted = redis.call('HLEN', KEYS[3]) > 0
for i = 1, #ARGV, PAGE do
  local last = math.min(i + PAGE - 1, #ARGV)
  redis.call('ZREM', KEYS[1], unpack(ARGV, i, last))
  redis.call('HDEL', KEYS[2], unpack(ARGV, i, last))
  for j = i, counted and last or 0 do
    local tag = ARGV[j]
    redis.call('HDEL', KEYS[3], tag, tag .. ':begun', tag .. ':read', tag .. ':forgiven', tag .. ':owner')
  end
end
