-- What is asked of the script. Each operation returns a list; times in it are microseconds, and -1 stands for none.

local function left_of(record)
  return record.st == HELD and math.max(0, record['end'] - NOW) or 0
end

local function granted(id, record, left)
  return {1, id, left, record.tokens, record.cost, record.g, record.probe and 1 or 0, record.wd or ''}
end

local function denied(one)
  return {0, one.reason, one.wait or -1, one.limit, one.value, one.left}
end

local function undo(scope, tenant, permit, record)
  refund_rates(scope, record.c, 1, record.tokens)
  if record.c.rt then refund(scope.s.rt, scope.L.retries, record.c.rt, 1) end
  give_back(scope.s.br, permit)
  redis.call('ZREM', scope.leases, permit)
  if tenant then
    refund_rates(tenant, record.tc, 1, record.tokens)
    each_budget(tenant.s, record.p, function(budget) budget.r = budget.r - record.cost end)
    redis.call('ZREM', tenant.leases, tenant_member(permit, record))
  end
end

local function decide(spec, tenant, lease_end)
  local scope = scope_of(spec.scope)
  local against = obstacles(scope, spec)
  local against_tenant = tenant and obstacles(tenant, spec) or {}
  local refused = worst(metrics_only(scope) and {} or against, (not tenant or metrics_only(tenant)) and {} or against_tenant)
  if refused then return nil, refused end
  return enter(scope, tenant, spec, lease_end, against, against_tenant)
end

local function acquire()
  local tenant = ARGS.tenant and scope_of(ARGS.tenant)
  if ARGS.tenant and not tenant then return redis.error_reply('UNKNOWN tenant') end
  for i, spec in ipairs(ARGS.specs) do
    if not scope_of(spec.scope) then return redis.error_reply('UNKNOWN ' .. (i - 1)) end
  end
  local batch = recall('r', ARGS.request)
  if batch and batch.specs ~= ARGS.fingerprint then return redis.error_reply('OTHER specs') end
  local lease_end = NOW + math.min(ARGS.lease, RULES.longest_lease)
  local decisions, fresh, ids, count = {}, {}, {}, 0
  for i, spec in ipairs(ARGS.specs) do
    local known = batch and batch.ids[i] ~= '' and batch.ids[i]
    ids[i] = known or ''
    if known then
      local record = recall('p', known)
      decisions[i] = record and granted(known, record, left_of(record)) or {1, known, 0, 0, 0, 0, 0, ''}
      count = count + 1
      if not batch.again and not ARGS.dry_run then
        batch.again = true
        remember('r', ARGS.request, batch, batch.f)
      end
    else
      local record, refused = decide(spec, tenant, lease_end)
      if record then
        fresh[#fresh + 1] = {at = i, id = spec.id, record = record, scope = scope_of(spec.scope)}
        decisions[i], count = granted(spec.id, record, lease_end - NOW), count + 1
      else
        decisions[i] = denied(refused)
      end
    end
  end
  if ARGS.dry_run or count < ARGS.least then
    for i = #fresh, 1, -1 do
      undo(fresh[i].scope, tenant, fresh[i].id, fresh[i].record)
      if count < ARGS.least then decisions[fresh[i].at] = {0, 'MIN_NOT_MET', -1, '', 0, 0} end
    end
  elseif #fresh > 0 then
    for _, one in ipairs(fresh) do
      local s = one.scope.s
      one.scope.dirty = true
      ids[one.at] = one.id
      if one.record.wd then s.sh[one.record.wd] = (s.sh[one.record.wd] or 0) + 1 end
      if one.record.kind == 'FIRST' then add(s.rt, one.scope.L.retries, one.scope.L.retry_parts) end
      remember('p', one.id, one.record, lease_end + RULES.grace)
      audit('grant', one.id, one.record, {
        tokens = one.record.tokens, cost = one.record.cost, lease_end = lease_end, probe = one.record.probe and 1 or 0, state = s.br.s,
        shadow = one.record.wd or '',
      })
    end
    if tenant then tenant.dirty = true end
    remember('r', ARGS.request, {specs = ARGS.fingerprint, ids = ids, again = batch ~= nil}, batch and batch.f or NOW + RULES.window)
  end
  return decisions
end

local function settle(report)
  local record = recall('p', report.id)
  local scope = record and scope_of(record.m)
  local tenant = record and record.t and scope_of(record.t)
  if not scope or (record.t and not tenant) then return 'UNKNOWN' end
  if record.st ~= HELD then return 'DUPLICATE' end
  local late = record['end'] <= NOW
  if late then
    end_lease(scope, report.id, record['end'])
    settle_rates(scope, record.c, record, report.used, false)
  else
    settle_held(scope, record, report)
  end
  scope.dirty = true
  if tenant then
    settle_tenant(tenant, record, report, late)
    tenant.dirty = true
  end
  record.st = SETTLED
  remember('p', report.id, record, NOW + RULES.window)
  audit(late and 'late' or 'settle', report.id, record, {used = report.used or -1, tokens = record.tokens, cost = report.cost or record.cost, result = report.result})
  return late and 'LATE' or 'SETTLED'
end

local function report()
  local settlements = {}
  for i, one in ipairs(ARGS.reports) do settlements[i] = settle(one) end
  return settlements
end

local function release()
  local settlements = {}
  for i, id in ipairs(ARGS.permits) do
    local record = recall('p', id)
    local scope = record and scope_of(record.m)
    local tenant = record and record.t and scope_of(record.t)
    if not scope or (record.t and not tenant) then
      settlements[i] = 'UNKNOWN'
    elseif record.st ~= HELD or record['end'] <= NOW then
      settlements[i] = record.st ~= HELD and 'DUPLICATE' or 'LATE'
    else
      undo(scope, tenant, id, record)
      scope.dirty = true
      if tenant then tenant.dirty = true end
      record.st = RELEASED
      remember('p', id, record, NOW + RULES.window)
      audit('release', id, record, {tokens = record.tokens, cost = record.cost})
      settlements[i] = 'SETTLED'
    end
  end
  return settlements
end

-- Undoes what was granted to requests that their limiter no longer waited for, where nobody can have been told: the batch is still the one of the ids that were
-- given then, and was not asked for again. It is forgotten then, so that a repeat is judged afresh.
local function abandon()
  local undone = {}
  for i, one in ipairs(ARGS.abandoned) do
    local given, batch = {}, recall('r', one.request)
    for _, id in ipairs(one.ids) do given[id] = true end
    local untold = batch and not batch.again
    for _, id in ipairs(untold and batch.ids or {}) do untold = untold and (id == '' or given[id]) end
    undone[i] = untold and 1 or 0
    if untold then
      ARGS.permits = {}
      for _, id in ipairs(batch.ids) do
        if id ~= '' then table.insert(ARGS.permits, id) end
      end
      release()
      remember('r', one.request, batch, NOW)
    end
  end
  return undone
end

local function renew()
  local lease = math.min(ARGS.lease, RULES.longest_lease)
  local leases = {}
  for i, id in ipairs(ARGS.permits) do
    local record = recall('p', id)
    local scope = record and scope_of(record.m)
    local tenant = record and record.t and scope_of(record.t)
    leases[i] = -1
    if scope and (tenant or not record.t) and record.st == HELD and record['end'] > NOW then
      record['end'] = NOW + lease
      hold(scope, id, record['end'])
      if scope.s.br.p == id then
        scope.s.br.pe = record['end']
        scope.dirty = true
      end
      if tenant then hold(tenant, tenant_member(id, record), record['end']) end
      remember('p', id, record, record['end'] + RULES.grace)
      audit('renew', id, record, {lease_end = record['end']})
      leases[i] = lease
    end
  end
  return leases
end

local function model_state(scope)
  local L, s = scope.L, scope.s
  local b = s.br
  local busy, most = in_flight(scope), places(scope)
  local total, failed, slow = window(b, L.breaker, NOW)
  local shadow = {}
  for reason, count in pairs(s.sh) do shadow[#shadow + 1] = {reason, count} end
  local levels = {}
  for _, rate in ipairs(RATES) do
    if L[rate.rate] then levels[#levels + 1] = {rate.name, L[rate.rate], remaining(s[rate.s]), L[rate.rate]} end
  end
  levels[#levels + 1] = {'concurrency', L.concurrency, math.max(0, most - busy), math.min(L.concurrency, most)}
  levels[#levels + 1] = {'retries', L.retries, remaining(s.rt), L.retries}
  return {
    levels, busy, {b.s, b.g, b.s == OPEN and math.max(0, b.u - NOW) or -1, b.c, b.p and 1 or 0, total, failed, slow}, s.bk > NOW and s.bk - NOW or -1,
    s.ov or '', s.ov and s.ou - NOW or -1, L.metrics_only and 1 or 0, shadow,
  }
end

local function tenant_state(scope)
  local L, s = scope.L, scope.s
  local levels, budgets = {}, {}
  local busy, most = in_flight(scope), places(scope)
  for _, rate in ipairs(RATES) do
    if L[rate.rate] then levels[#levels + 1] = {rate.name, L[rate.rate], remaining(s[rate.s]), L[rate.rate]} end
  end
  if most then levels[#levels + 1] = {'concurrency', L.concurrency, math.max(0, most - busy), most} end
  for _, period in ipairs(PERIODS) do
    local budget, limit = s.b[period.key], L.budgets[period.key]
    if limit then budgets[#budgets + 1] = {period.name, limit, budget.s, budget.r, budget.x, math.max(0, period.start(budget.n + 1) - UTC)} end
  end
  return {levels, busy, budgets}
end

local function state()
  local told = {}
  for i, id in ipairs(ARGS.scopes) do
    local scope = scope_of(id)
    told[i] = not scope and {} or scope.L.breaker and model_state(scope) or tenant_state(scope)
  end
  return told
end

local function override()
  local scope = scope_of(ARGS.scopes[1])
  if not scope then return redis.error_reply('UNKNOWN 0') end
  local s = scope.s
  if ARGS.mode or s.ov then
    s.ov, s.ou = ARGS.mode, ARGS.mode and NOW + ARGS.lasts or nil
    begin_anew(s.br)
    scope.dirty = true
  end
  return model_state(scope)
end
