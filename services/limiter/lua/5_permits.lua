-- Permits: a record each, in one hash, until it is forgotten. c = what was charged, by scope: {rq, tk, rt = epochs}.

local HELD, SETTLED, RELEASED = 0, 1, 2

local function forget_old()
  for _, what in ipairs(redis.call('ZRANGEBYSCORE', KEYS[5], '-inf', NOW, 'LIMIT', 0, MOST_SWEPT)) do
    redis.call('ZREM', KEYS[5], what)
    redis.call('HDEL', string.sub(what, 1, 1) == 'p' and KEYS[3] or KEYS[4], string.sub(what, 2))
  end
end

-- What is to be remembered is written once at the end; until then it is found here. By kind, "p" for permits and "r" for requests, and name.
local unwritten = {p = {}, r = {}}
local HASHES = {p = KEYS[3], r = KEYS[4]}

local function remember(kind, name, value, forget_at)
  value.f = forget_at
  unwritten[kind][name] = value
end

local function recall(kind, name)
  local packed = not unwritten[kind][name] and redis.call('HGET', HASHES[kind], name)
  local value = packed and cmsgpack.unpack(packed) or unwritten[kind][name]
  if value and value.f > NOW then return value end
end

-- A command takes so many of what unpack() can put on the stack at once.
local MOST_AT_ONCE = 1000

local function write_in_parts(command, key, words)
  for from = 1, #words, MOST_AT_ONCE do redis.call(command, key, unpack(words, from, math.min(#words, from + MOST_AT_ONCE - 1))) end
end

local function write_remembered()
  local forgets = {}
  for kind, values in pairs(unwritten) do
    local words = {}
    for name, value in pairs(values) do
      words[#words + 1], words[#words + 2] = name, cmsgpack.pack(value)
      forgets[#forgets + 1], forgets[#forgets + 2] = string.format('%.0f', value.f), kind .. name
    end
    write_in_parts('HSET', HASHES[kind], words)
  end
  write_in_parts('ZADD', KEYS[5], forgets)
end

local function audit(op, permit, record, more)
  if not AUDITED then return end
  local entry = {'at', string.format('%.0f', NOW), 'op', op, 'permit', permit, 'model', record.model, 'tenant', record.tenant, 'generation', record.g}
  for name, value in pairs(more or {}) do
    entry[#entry + 1] = name
    entry[#entry + 1] = type(value) == 'number' and string.format('%.0f', value) or tostring(value)
  end
  redis.call('XADD', KEYS[6], '*', unpack(entry))
end

local function audit_turns()
  if not AUDITED then return end
  for _, scope in pairs(scopes) do
    local b = scope and scope.s.br
    if b and b.g ~= scope.generation then
      redis.call('XADD', KEYS[6], '*', 'at', string.format('%.0f', NOW), 'op', 'turn', 'model', scope.L.name, 'generation', b.g, 'state', b.s)
    end
  end
end

local function hold(scope, member, lease_end)
  redis.call('ZADD', scope.leases, string.format('%.0f', lease_end), member)
end

local function enter(scope, tenant, spec, lease_end, against, against_tenant)
  local tokens = spec.input + spec.output
  local charged = #against == 0
  local record = {
    m = scope.id, t = tenant and tenant.id or nil, model = scope.L.name, tenant = tenant and tenant.L.name or '', tokens = tokens, cost = spec.cost,
    kind = spec.kind, ['end'] = lease_end, st = HELD, g = scope.s.br.g, c = {}, tc = {}, p = {},
  }
  local shadow = worst(against, against_tenant)
  record.wd = shadow and shadow.reason or nil
  local s = scope.s
  if charged then
    if s.rq then record.c.rq = take(s.rq, 1) end
    if s.tk then record.c.tk = take(s.tk, tokens) end
    if spec.kind ~= 'FIRST' then record.c.rt = take(s.rt, 1) end
    record.probe = s.ov ~= 'DISABLED' and admit(s.br, spec.id, lease_end) or nil
  end
  hold(scope, spec.id, lease_end)
  if tenant then
    if #against_tenant == 0 then
      if tenant.s.rq then record.tc.rq = take(tenant.s.rq, 1) end
      if tenant.s.tk then record.tc.tk = take(tenant.s.tk, tokens) end
    end
    for _, period in ipairs(PERIODS) do
      local budget = tenant.L.budgets[period.key] and tenant.s.b[period.key]
      if budget then
        budget.r = budget.r + spec.cost
        record.p[period.key] = budget.n
      end
    end
    hold(tenant, tenant_member(spec.id, record), lease_end)
  end
  return record
end

local function refund_rates(scope, charges, requests, tokens)
  local L, s = scope.L, scope.s
  if charges.rq and s.rq and requests > 0 then refund(s.rq, L.burst, charges.rq, requests) end
  if charges.tk and s.tk and tokens > 0 then refund(s.tk, L.tpm, charges.tk, tokens) end
end

local function settle_rates(scope, charges, record, used, may_refund)
  if not charges.tk or not scope.s.tk or used == nil then return end
  if used > record.tokens then
    take(scope.s.tk, used - record.tokens)
  elseif may_refund then
    refund_rates(scope, charges, 0, record.tokens - used)
  end
end

local function heed(scope, report)
  local s = scope.s
  if report.result == 'SUCCESS' then s.th = 0 end
  if report.result ~= 'THROTTLED' then return end
  s.th = s.th + 1
  local wait = report.retry_after
  if wait == nil then wait = math.floor(math.min(2 ^ math.min(s.th - 1, 16), 60) * 1000000 * (1 + (1.2 - 1) * ARGS.u)) end
  s.bk = math.max(s.bk, NOW + wait)
end

local function adapt(scope, report, busy)
  local s, L = scope.s, scope.L
  if not L.adaptive then return end
  if report.result == 'SUCCESS' then
    if busy * 2 >= s.ad then s.ad = math.min(L.concurrency, s.ad + 1) end
  elseif FAILED[report.result] or report.result == 'THROTTLED' then
    if not s.da or NOW - s.da >= 10000000 then s.ad, s.da = math.max(1, math.floor(s.ad * 9 / 10)), NOW end
  end
end

local function settle_held(scope, permit, report)
  local s, L = scope.s, scope.L
  local busy = in_flight(scope)
  redis.call('ZREM', scope.leases, report.id)
  settle_rates(scope, permit.c, permit, report.used, report.result ~= 'CANCELLED')
  if s.rq and report.requests_left then lower(s.rq, report.requests_left) end
  if s.tk and report.tokens_left then lower(s.tk, report.tokens_left) end
  heed(scope, report)
  adapt(scope, report, busy)
  if s.ov == 'DISABLED' then give_back(s.br, report.id) else record(s.br, L.breaker, report.id, permit.g, report, NOW) end
  if s.br.ramp and s.br.ramp >= L.concurrency then s.br.ramp = nil end
end

local function settle_tenant(tenant, record, report, late)
  local actual = report.cost or record.cost
  if late then
    -- Its lease may not have been swept yet.
    end_lease(tenant, tenant_member(report.id, record), record['end'])
    settle_rates(tenant, record.tc, record, report.used, false)
    each_budget(tenant.s, record.p, function(budget) budget.s, budget.x = budget.s + actual - record.cost, budget.x - record.cost end)
    return
  end
  redis.call('ZREM', tenant.leases, tenant_member(report.id, record))
  settle_rates(tenant, record.tc, record, report.used, report.result ~= 'CANCELLED')
  each_budget(tenant.s, record.p, function(budget) budget.r, budget.s = budget.r - record.cost, budget.s + actual end)
end
