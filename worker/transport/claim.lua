-- Takes messages off their queues and records them as claimed, in one step: a process killed at any point loses none.
--
-- KEYS  1 unacked_index: zset, delivery tag -> time of the claim; 2 unacked: hash, tag -> [message,exchange,routing key];
--       3 unacked_deliveries: hash, tag -> times it was claimed from a worker that fell silent, tag:begun -> times
--       that a worker received it after that, tag:read -> whether one of these could read it, tag:forgiven -> times
--       that it fell silent with a worker after touch.lua, and tag:owner -> the prefix of the claim that holds it since;
--       4 unacked_too_large: hash, tag -> message that no worker is to see;
--       then the lists of each queue: its own, then those of the priorities, the same number for each queue.
-- ARGV  visibility timeout (s); most messages; most bytes; prefix of new tags; number of queues; most bytes of a message;
--       per queue: its most messages, and how an entry of the hash ends when it was claimed here;
--       then pairs: how an entry claimed by stock kombu may end, and the number of its queue.
-- Returns, flat: tag, message, number of the list it goes back to, deliveries before this one, times begun, times read,
-- and "fresh" or "again". A tag that ends in :large stands for a message that was set aside: what comes is JSON with its
-- size and its head.
local index, unacked, deliveries, aside = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local timeout, limit, max_bytes = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local prefix, queues, max_message = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local steps = (#KEYS - 4) / queues

-- A key of another type fails here, before anything is taken. And where memory is full, a write that is allowed must
-- come first for the others to be: a full server is then drained.
redis.call('ZREM', index, '')
redis.call('HLEN', unacked)
redis.call('HLEN', deliveries)
redis.call('HLEN', aside)

local clock = redis.call('TIME')
local now = clock[1] .. '.' .. string.format('%06d', tonumber(clock[2]))
local taken, count, bytes = {}, 0, 0
local FIRST_PAGE, PAGE = 8, 200 -- messages that are moved at once
local HEAD = 1000 -- bytes that are shown of a message that was set aside
local COMPANY = 50 -- most messages that come together for the second time: the next death delays no more than these
local suspects, of_queue = false, {} -- whether what is taken fell silent with a worker; how much of each queue

-- Reads a counter. What somebody else wrote there counts as none.
local function counter(field)
  return tonumber(string.match(redis.call('HGET', deliveries, field) or '', '^%-?%d%d?%d?$') or 0)
end

local function own_end(queue) return ARGV[6 + 2 * queue] end

local function fits(text)
  return count < limit and (count == 0 or bytes + #text <= max_bytes)
end

local function note(tag, message, list, attempts, begun, read, how)
  count, bytes = count + 1, bytes + #message
  for _, value in ipairs({tag, message, list, attempts, begun, read, how}) do taken[#taken + 1] = value end
end

-- Keeps a message where no worker gets it. Returns the tag and the text that stand for it from here on.
local function set_aside(tag, message)
  tag = tag .. ':large'
  redis.call('HSET', aside, tag, message)
  local head = string.gsub(string.sub(message, 1, HEAD), '[^\32-\126]', '?') -- what stock kombu can read as well
  return tag, cjson.encode({too_large = #message, head = head})
end

local function queue_of(entry)
  for queue = 1, queues do
    if string.sub(entry, -#own_end(queue)) == own_end(queue) then return queue, #own_end(queue), true end
  end
  for i = 7 + 2 * queues, #ARGV, 2 do
    if string.sub(entry, -#ARGV[i]) == ARGV[i] then return tonumber(ARGV[i + 1]), #ARGV[i], false end
  end
end

-- Claims again what a silent worker holds: what it fell silent with for the first time together, for a dead worker is
-- rarely a message's fault, and then one by one. Returns true when that must stay alone.
local function claim_again(tag, score, entry)
  local queue, ending, own = queue_of(entry)
  if not queue then return false end -- of a queue that is not consumed here: not ours to touch
  local attempts = counter(tag)
  if score > 0 then -- 0: given back in order, which is no sign against it
    if attempts < 0 then redis.call('HSET', deliveries, tag .. ':forgiven', counter(tag .. ':forgiven') + 1) end
    attempts = attempts + 1
  end
  local suspect, company = attempts > 0, of_queue[queue] or 0
  if count > 0 and (suspect ~= suspects or attempts > 1) or not fits(entry) then return false end
  if suspect and company >= math.min(COMPANY, tonumber(ARGV[5 + 2 * queue])) then return false end
  local message = string.sub(entry, 2, -(ending + 1))
  if #message > max_message then -- taken by stock kombu
    redis.call('HDEL', unacked, tag)
    redis.call('ZREM', index, tag)
    redis.call('HDEL', deliveries, tag, tag .. ':begun', tag .. ':read', tag .. ':forgiven', tag .. ':owner')
    tag, message = set_aside(tag, message)
    own = false
  end
  if not own then redis.call('HSET', unacked, tag, '[' .. message .. own_end(queue)) end
  redis.call('HSET', deliveries, tag, attempts, tag .. ':owner', prefix)
  redis.call('ZADD', index, now, tag)
  note(tag, message, (queue - 1) * steps + 1, attempts, counter(tag .. ':begun'), counter(tag .. ':read'), 'again')
  suspects, of_queue[queue] = suspect, company + 1
  return attempts > 1
end

local before, page = string.format('%.6f', tonumber(now) - timeout), 0
while count == 0 do
  local expired = redis.call('ZRANGEBYSCORE', index, '-inf', before, 'WITHSCORES', 'LIMIT', page * 500, 500)
  if #expired == 0 then break end
  for i = 1, #expired, 2 do
    local entry = redis.call('HGET', unacked, expired[i])
    if not entry then
      redis.call('ZREM', index, expired[i])
    elseif claim_again(expired[i], tonumber(expired[i + 1]), entry) then
      return taken
    end
  end
  page = page + 1
end

if suspects then return taken end -- nothing that is new shares their fate

-- Returns how many messages to move at once, going by their size so far: what does not fit has to go back.
local function page_that_fits()
  if count == 0 then return FIRST_PAGE end
  return math.max(1, math.min(PAGE, math.floor((max_bytes - bytes) * count / bytes)))
end

-- Takes up to `room` messages off a list. Returns how many more could have been taken.
local function drain(queue, list, room)
  while room > 0 and count < limit do
    local messages = redis.call('RPOP', KEYS[4 + list], math.min(room, limit - count, page_that_fits()))
    if not messages then break end
    local entries, scores = {}, {}
    for i, message in ipairs(messages) do
      local large = #message > max_message
      if not fits(large and '' or message) then
        for back = #messages, i, -1 do redis.call('RPUSH', KEYS[4 + list], messages[back]) end
        limit = count
        break
      end
      local tag = prefix .. count
      if large then tag, message = set_aside(tag, message) end
      entries[#entries + 1], entries[#entries + 2] = tag, '[' .. message .. own_end(queue)
      scores[#scores + 1], scores[#scores + 2] = now, tag
      note(tag, message, list, 0, 0, 0, 'fresh')
      room = room - 1
    end
    if #entries > 0 then
      redis.call('HSET', unacked, unpack(entries))
      redis.call('ZADD', index, unpack(scores))
    end
  end
  return room
end

for queue = 1, queues do
  local room = tonumber(ARGV[5 + 2 * queue])
  for step = 1, steps do
    local list = (queue - 1) * steps + step
    local length = redis.pcall('LLEN', KEYS[4 + list]) -- a table: somebody's key of another type, which has no messages
    if type(length) == 'number' and length > 0 then room = drain(queue, list, room) end
  end
end
return taken
