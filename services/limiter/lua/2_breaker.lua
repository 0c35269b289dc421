-- Circuit breakers; the rules and the names T1 to T14 are those of services/limiter/breaker.py. b = {s = state, g = generation, w = window's slices
-- {n = number, t = total, f = failed, s = slow}, row = failures in a row, good = good probes, und = undecided leases, h = healthy since, p = probe's permit,
-- pe = the probe's lease end, u = open until, c = open count, ramp}. r = the rules.

local CLOSED, OPEN, HALF_OPEN = 'CLOSED', 'OPEN', 'HALF_OPEN'
local FAILED = {FAILURE = true, TIMEOUT = true}

local function new_breaker(now)
  return {s = CLOSED, g = 0, w = {}, row = 0, good = 0, und = 0, h = now, u = 0, c = 0}
end

local function turn(b, state)
  b.s = state
  b.g = b.g + 1
  b.p, b.pe, b.ramp = nil, nil, nil
end

local function begin_anew(b)
  local ramp = b.ramp
  turn(b, b.s)
  b.ramp = ramp
end

local function open(b, r, now, wait)
  turn(b, OPEN)
  b.c = b.c + 1
  if wait == nil then
    local doubled = r.open * 2 ^ math.min(b.c - 1, 32)
    wait = math.floor(math.min(doubled, r.longest_open) * (0.8 + (1.2 - 0.8) * ARGS.u))
  end
  b.u = now + wait
end

local function tick_breaker(b, r, now)
  if b.s == OPEN and now >= b.u then
    turn(b, HALF_OPEN)
    b.good, b.und = 0, 0
  elseif b.s == CLOSED then
    local whiles = math.floor(math.max(0, now - b.h) / r.bucket)
    b.h = b.h + whiles * r.bucket
    b.c = math.max(0, b.c - whiles)
  end
end

local function breaker_wait(b, now)
  if b.s == OPEN then return b.u - now end
  if b.s == HALF_OPEN and b.p then return math.max(1, b.pe - now) end
  return 0
end

local function admit(b, permit, lease_end)
  if b.s ~= HALF_OPEN then return false end
  b.p, b.pe = permit, lease_end
  return true
end

local function give_back(b, permit)
  if b.p ~= permit then return false end
  b.p, b.pe = nil, nil
  return true
end

local function lapse_probe(b, r, permit, lease_end)
  if not give_back(b, permit) then return end
  b.und = b.und + 1
  if b.und >= r.undecided_leases then open(b, r, lease_end) end
end

local function slide(b, r, now)
  local number = math.floor(now / r.bucket)
  local kept = {}
  for _, one in ipairs(b.w) do
    if one.n > number - r.buckets then kept[#kept + 1] = one end
  end
  if #kept == 0 or kept[#kept].n < number then kept[#kept + 1] = {n = number, t = 0, f = 0, s = 0} end
  b.w = kept
  return kept[#kept]
end

local function window(b, r, now)
  slide(b, r, now)
  local total, failed, slow = 0, 0, 0
  for _, one in ipairs(b.w) do total, failed, slow = total + one.t, failed + one.f, slow + one.s end
  return total, failed, slow
end

local function record_probe(b, r, result, slow, retry_after, now)
  if result == 'AUTH' then
    open(b, r, now, r.auth_open)
  elseif FAILED[result] or slow then
    open(b, r, now)
  elseif result == 'THROTTLED' then
    turn(b, OPEN)
    b.u = now + ((retry_after and retry_after > 0) and retry_after or r.open)
  elseif result == 'SUCCESS' then
    b.good = b.good + 1
    if b.good >= r.good_probes then
      turn(b, CLOSED)
      b.w, b.row, b.h, b.ramp = {}, 0, now, 1
    end
  end
end

local function record_call(b, r, result, slow, now)
  if result == 'AUTH' then return open(b, r, now, r.auth_open) end
  local failed = FAILED[result] or false
  if not failed and result ~= 'SUCCESS' then return end
  local current = slide(b, r, now)
  current.t = current.t + 1
  if failed then current.f = current.f + 1 end
  if slow then current.s = current.s + 1 end
  b.row = failed and b.row + 1 or 0
  if failed or slow then
    b.h = now
  elseif b.ramp then
    b.ramp = b.ramp + 1
  end
  local total, failures, slows = window(b, r, now)
  local too_many = total >= r.minimum_calls and (failures >= r.failure_rate * total or slows >= r.slow_rate * total)
  if too_many or b.row >= r.consecutive_failures then open(b, r, now) end
end

local function record(b, r, permit, generation, report, now)
  local probe = give_back(b, permit)
  if generation ~= b.g then return end
  local slow = report.result == 'SUCCESS' and report.latency ~= nil and report.latency >= r.slow_call
  if probe then
    record_probe(b, r, report.result, slow, report.retry_after, now)
  elseif b.s == CLOSED then
    record_call(b, r, report.result, slow, now)
  end
end
