-- Putting limits into force. Limiters come with the limits they have read; the store keeps those that hold, and a number for them that only grows.

local MOST_REMEMBERED = 16

local function follow_scope(id, wanted)
  local packed = redis.call('HGET', KEYS[2], id)
  local scope = packed and scope_of(id)
  if scope then
    local old, s = scope.L, scope.s
    for _, rate in ipairs(RATES) do
      local name, capacity = rate.s, wanted[rate.capacity]
      if not wanted[rate.rate] then
        s[name] = nil
      elseif not s[name] then
        s[name] = new_bucket(capacity, NOW, LEARNING)
      elseif old[rate.rate] ~= wanted[rate.rate] or old[rate.capacity] ~= capacity then
        resize(s[name], old[rate.rate], old[rate.capacity], capacity, NOW)
      end
    end
    if wanted.breaker then
      if old.retries ~= wanted.retries then resize(s.rt, old.retries, old.retries, wanted.retries, NOW) end
      s.ad = (not wanted.adaptive or s.ad == old.concurrency) and wanted.concurrency or math.min(s.ad, wanted.concurrency)
      if old.breaker.bucket ~= wanted.breaker.bucket then s.br.w = {} end
    end
    scope.L, scope.dirty = wanted, true
    -- Budgets that are new begin now; one that is taken away is kept, for the calls that were counted by it, and for the day it is put back.
    tick(scope)
  end
  redis.call('HSET', KEYS[2], id, cmsgpack.pack(wanted))
end

-- What another limiter has begun full, since it knew of no loss, is cut to what a careful beginning has.
local function grow_careful(id)
  if not redis.call('HGET', KEYS[2], id) then return end
  local scope = scope_of(id)
  local capacities = {rq = scope.L.burst, tk = scope.L.tpm, rt = scope.L.retries}
  for name, capacity in pairs(capacities) do
    local bucket = scope.s[name]
    if bucket then bucket.l = math.min(bucket.l, math.floor(capacity * UNIT / 4)) end
  end
  scope.dirty = true
end

-- New limits are taken; limits that were superseded are not taken back, unless they come from a limiter whose own were in force until now.
local function follow()
  local known = redis.call('HMGET', KEYS[2], 'digest', 'version', 'history')
  local digest, version, history = known[1], tonumber(known[2] or 0), known[3] and cmsgpack.unpack(known[3]) or {}
  local superseded = ARGS.superseded
  for _, old in ipairs(history) do superseded = superseded or old == ARGS.digest end
  local takes = not digest or (digest ~= ARGS.digest and (ARGS.in_force == version or not superseded))
  if takes then
    if digest then table.insert(history, digest) end
    for i = #history, 1, -1 do
      if history[i] == ARGS.digest or i <= #history - MOST_REMEMBERED then table.remove(history, i) end
    end
    for i, id in ipairs(ARGS.scopes) do follow_scope(id, ARGS.limits[i]) end
    digest, version = ARGS.digest, math.max(version, ARGS.seen) + 1
    redis.call('HSET', KEYS[2], 'digest', digest, 'version', version, 'history', cmsgpack.pack(history), 'rules', cmsgpack.pack(ARGS.rules))
  end
  return {version, digest, CLOCK.incarnation}
end
