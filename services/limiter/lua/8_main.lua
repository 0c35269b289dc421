-- The clock is the server's. It never goes back, and it leaps forward by no more than the longest lease at once, whatever happens to the server's own.

local function read_clock()
  local at = SERVER_TIME()
  UTC = tonumber(at[1]) * 1000000 + tonumber(at[2])
  local packed = redis.call('GET', KEYS[1])
  local clock = packed and cmsgpack.unpack(packed)
  if not clock then return nil end
  local passed = UTC - clock.utc
  NOW = clock.now + math.max(0, math.min(passed, RULES.longest_lease))
  clock.now, clock.utc = NOW, UTC
  LEARNING = clock.learning and clock.learning > NOW
  return clock
end

local function begin(operation)
  ARGS, AT = cjson.decode(ARGV[2]), {}
  for i, id in ipairs(ARGS.scopes) do AT[id] = i end
  local packed = redis.call('HGET', KEYS[2], 'rules')
  RULES = ARGS.rules or packed and cmsgpack.unpack(packed) or {longest_lease = 0}
  CLOCK = read_clock()
  if operation == 'follow' then
    if not CLOCK then CLOCK = {incarnation = ARGS.new_incarnation, now = UTC, utc = UTC} end
    NOW = CLOCK.now
    -- A limiter that knew another incarnation has seen data that are lost.
    if ARGS.incarnation ~= '' and ARGS.incarnation ~= CLOCK.incarnation and not CLOCK.learning then
      CLOCK.learning = NOW + RULES.longest_lease
      LEARNING = true
      for _, id in ipairs(ARGS.scopes) do grow_careful(id) end
    end
  elseif not CLOCK or not packed or CLOCK.incarnation ~= ARGS.incarnation then
    return redis.error_reply('LOST data')
  end
  AUDITED = redis.call('EXISTS', KEYS[6]) == 1
end

local OPERATIONS = {acquire = acquire, report = report, release = release, renew = renew, abandon = abandon, state = state, override = override, follow = follow}

local refused = begin(ARGV[1])
if refused then return refused end
local reply = OPERATIONS[ARGV[1]]()
-- Leases that have ended are no longer there, so what came of that is kept even where the operation was refused.
save_all()
write_remembered()
audit_turns()
forget_old()
redis.call('SET', KEYS[1], cmsgpack.pack(CLOCK))
if reply.err then return reply end
return {tonumber(redis.call('HGET', KEYS[2], 'version')), LEARNING and CLOCK.learning - NOW or -1, reply}
