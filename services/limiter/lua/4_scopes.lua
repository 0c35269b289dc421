-- Scopes: models ("m:...") and tenants ("t:..."). A scope is loaded once in a script, lets time have its effect, and is saved at the end if it was changed.
-- L = its limits, s = its state, leases = the key of its sorted set of leases.

local MOST_SWEPT = 100

local scopes = {}

-- Of each rate: where its bucket is in the state, and where rate and capacity are in the limits.
local RATES = {{s = 'rq', rate = 'rpm', capacity = 'burst', name = 'requests_per_minute'}, {s = 'tk', rate = 'tpm', capacity = 'tpm', name = 'tokens_per_minute'}}

local function fresh_state(L, now)
  local s = {}
  if L.rpm then s.rq = new_bucket(L.burst, now, LEARNING) end
  if L.tpm then s.tk = new_bucket(L.tpm, now, LEARNING) end
  if L.breaker then
    s.rt = new_bucket(L.retries, now, LEARNING)
    s.br = new_breaker(now)
    s.bk, s.th, s.ad, s.sh = 0, 0, L.concurrency, {}
  else
    s.b = {}
  end
  return s
end

-- The member of a tenant's sorted set tells all that its end needs, for the permit itself may be forgotten by then.
local function tenant_member(permit, record)
  return table.concat({permit, string.format('%.0f', record.cost), record.p.d or 0, record.p.m or 0}, '|')
end

local function lapse_tenant(state, member)
  local cost, day, month = string.match(member, '|(%d+)|(%d+)|(%d+)$')
  cost = tonumber(cost)
  each_budget(state, {d = tonumber(day), m = tonumber(month)}, function(budget)
    budget.r, budget.s, budget.x = budget.r - cost, budget.s + cost, budget.x + cost
  end)
end

local function end_lease(scope, member, lease_end)
  if redis.call('ZREM', scope.leases, member) == 0 then return end
  scope.dirty = true
  if scope.L.breaker then lapse_probe(scope.s.br, scope.L.breaker, member, lease_end) else lapse_tenant(scope.s, member) end
end

local function sweep(scope)
  local ended = redis.call('ZRANGEBYSCORE', scope.leases, '-inf', NOW, 'WITHSCORES', 'LIMIT', 0, MOST_SWEPT)
  for i = 1, #ended, 2 do end_lease(scope, ended[i], tonumber(ended[i + 1])) end
end

local function tick(scope)
  local L, s = scope.L, scope.s
  if L.rpm then refill(s.rq, L.rpm, L.burst, NOW) end
  if L.tpm then refill(s.tk, L.tpm, L.tpm, NOW) end
  if L.breaker then
    if s.ov and NOW >= s.ou then
      s.ov, s.ou = nil, nil
      begin_anew(s.br)
    end
    tick_breaker(s.br, L.breaker, NOW)
    refill(s.rt, L.retries, L.retries, NOW)
    return
  end
  for _, period in ipairs(PERIODS) do
    if L.budgets[period.key] then
      s.b[period.key] = s.b[period.key] or {n = 0, s = 0, r = 0, x = 0}
      roll(s.b[period.key], period, UTC)
    end
  end
end

-- Returns nil for a scope whose limits the store does not know.
local function scope_of(id)
  if scopes[id] ~= nil then return scopes[id] or nil end
  local at = AT[id]
  local limits = at and redis.call('HGET', KEYS[2], id)
  if not limits then
    scopes[id] = false
    return nil
  end
  local scope = {id = id, L = cmsgpack.unpack(limits), key = KEYS[5 + 2 * at], leases = KEYS[6 + 2 * at]}
  local state = redis.call('GET', scope.key)
  scope.s = state and cmsgpack.unpack(state) or fresh_state(scope.L, NOW)
  scope.generation = scope.s.br and scope.s.br.g
  scopes[id] = scope
  sweep(scope)
  tick(scope)
  return scope
end

local function save_all()
  for _, scope in pairs(scopes) do
    -- A turn is kept even if it was time that brought it about, and nothing else happened.
    if scope and (scope.dirty or (scope.s.br and scope.s.br.g ~= scope.generation)) then redis.call('SET', scope.key, cmsgpack.pack(scope.s)) end
  end
end

local function in_flight(scope)
  return redis.call('ZCOUNT', scope.leases, '(' .. string.format('%.0f', NOW), '+inf')
end

local function places(scope)
  local most = scope.L.concurrency
  if not most then return nil end
  if LEARNING then most = math.max(1, math.floor(most / 2)) end
  if scope.L.breaker then
    if scope.s.br.ramp then most = math.min(most, scope.s.br.ramp) end
    if scope.L.adaptive then most = math.min(most, scope.s.ad) end
  end
  return most
end

local function metrics_only(scope)
  return scope.s.ov == 'METRICS_ONLY' or (scope.L.metrics_only and scope.s.ov ~= 'FORCED_OPEN')
end

local function obstacle(found, scope, reason, wait, name, value, left)
  found[#found + 1] = {reason = reason, wait = wait, limit = scope.L.name .. '/' .. name, value = value or 0, left = left or 0}
end

local function obstacles(scope, spec)
  local found, L, s = {}, scope.L, scope.s
  local tokens = spec.input + spec.output
  if L.tpm and tokens > L.tpm then
    obstacle(found, scope, 'TOO_LARGE', nil, 'tokens_per_minute', L.tpm, remaining(s.tk))
  elseif L.tpm and wait_for(s.tk, L.tpm, tokens) > 0 then
    obstacle(found, scope, 'TOKENS', wait_for(s.tk, L.tpm, tokens), 'tokens_per_minute', L.tpm, remaining(s.tk))
  end
  if L.rpm and wait_for(s.rq, L.rpm, 1) > 0 then
    obstacle(found, scope, 'REQUESTS', wait_for(s.rq, L.rpm, 1), 'requests_per_minute', L.rpm, remaining(s.rq))
  end
  if L.breaker then
    if s.ov == 'FORCED_OPEN' then obstacle(found, scope, 'FORCED_OPEN', s.ou - NOW, 'override') end
    if s.bk > NOW then obstacle(found, scope, 'PROVIDER_BACKOFF', s.bk - NOW, 'provider_backoff') end
    local wait = breaker_wait(s.br, NOW)
    if s.ov ~= 'DISABLED' and wait > 0 then obstacle(found, scope, 'BREAKER_OPEN', wait, 'breaker') end
  end
  local most = places(scope)
  local surplus = most and in_flight(scope) - most
  if surplus and surplus >= 0 then
    local next_end = redis.call('ZRANGEBYSCORE', scope.leases, '(' .. string.format('%.0f', NOW), '+inf', 'WITHSCORES', 'LIMIT', surplus, 1)[2]
    obstacle(found, scope, 'CONCURRENCY', math.max(1, tonumber(next_end) - NOW), 'concurrency', most, 0)
  end
  if L.breaker and spec.kind ~= 'FIRST' and wait_for(s.rt, L.retries, 1) > 0 then
    obstacle(found, scope, 'RETRY_BUDGET', wait_for(s.rt, L.retries, 1), 'retries', L.retries, remaining(s.rt))
  end
  if not L.breaker then
    for _, period in ipairs(PERIODS) do
      local budget, limit = s.b[period.key], L.budgets[period.key]
      if limit then
        local left = limit - budget.s - budget.r
        if spec.cost > left and spec.cost > 0 then
          local wait = spec.cost <= limit and math.max(1, period.start(budget.n + 1) - UTC) or nil
          obstacle(found, scope, wait and 'BUDGET' or 'TOO_LARGE', wait, 'budget_per_' .. period.name, limit, left)
        end
      end
    end
  end
  return found
end

-- The one that takes longest to heal, the first of them where several take as long.
local function worst(...)
  local chosen = nil
  for _, list in ipairs({...}) do
    for _, one in ipairs(list) do
      if chosen == nil or (one.wait or math.huge) > (chosen.wait or math.huge) then chosen = one end
    end
  end
  return chosen
end
