-- A claim is a hash of its own, which ends by itself a while after its lease.

local CLAIM = KEYS[4]
local NAME, CONTENT, OWNER = ARGV[1], ARGV[2], ARGV[3]

local function held()
  local claim = redis.call('HMGET', CLAIM, 'owner', 'content', 'ends')
  if claim[1] and tonumber(claim[3]) > NOW then return claim[1], claim[2] end
end

local function give_up()
  if redis.call('HGET', CLAIM, 'owner') == OWNER then redis.call('DEL', CLAIM) end
end

local function result_in(value)
  return string.sub(value, 1, AHEAD) == CONTENT and string.sub(value, AHEAD + 1) or nil
end
