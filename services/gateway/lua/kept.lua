-- What every script stands on: answers in a hash, by the time until which they are kept in a sorted set, and how many bytes they take in a counter. Each value
-- has AHEAD bytes of the script's own before the answer. Times are milliseconds on the server's clock.

local VALUES, ENDS, BYTES = KEYS[1], KEYS[2], KEYS[3]
local MOST_DROPPED = 1000

local AT = SERVER_TIME()
local NOW = tonumber(AT[1]) * 1000 + math.floor(tonumber(AT[2]) / 1000)

local function kept(name)
  local ends = redis.call('ZSCORE', ENDS, name)
  return ends and tonumber(ends) > NOW and redis.call('HGET', VALUES, name) or nil
end

local function drop(name)
  if redis.call('ZREM', ENDS, name) == 1 then
    redis.call('DECRBY', BYTES, redis.call('HSTRLEN', VALUES, name) - AHEAD + OVERHEAD)
    redis.call('HDEL', VALUES, name)
  end
end

-- Those that are kept no longer go first, then those that would be soonest; so many at once and no more, for a script holds up everybody else.
local function make_room(bytes, most)
  local dropped = 0
  while tonumber(redis.call('GET', BYTES) or 0) + bytes > most do
    local first = redis.call('ZRANGE', ENDS, 0, 0)[1]
    if not first then
      -- Somebody has taken away what was counted.
      redis.call('DEL', VALUES, BYTES)
    elseif dropped == MOST_DROPPED then
      return false
    else
      drop(first)
      dropped = dropped + 1
    end
  end
  return true
end

local function keep(name, value, lasts, most)
  drop(name)
  for _, old in ipairs(redis.call('ZRANGEBYSCORE', ENDS, '-inf', NOW, 'LIMIT', 0, MOST_DROPPED)) do drop(old) end
  local bytes = #value - AHEAD + OVERHEAD
  if bytes > most or not make_room(bytes, most) then return 0 end
  redis.call('HSET', VALUES, name, value)
  redis.call('ZADD', ENDS, NOW + lasts, name)
  redis.call('INCRBY', BYTES, bytes)
  -- Where no gateway is left, nothing of it stays for good: all of it goes a while after the last of it has ended.
  local longest = math.max(lasts + 60000, redis.call('PTTL', ENDS))
  for i = 1, 3 do redis.call('PEXPIRE', KEYS[i], longest) end
  return 1
end
