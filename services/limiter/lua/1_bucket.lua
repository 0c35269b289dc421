-- Token buckets: {l = level in sixty-millionths of a unit, u = when it was last refilled, e = epoch}. The rules are those of services/models/bucket.py; all
-- numbers stay below 2^53, so that they are exact although Lua's numbers are floats.

-- What every part below goes by; set in 8_main.lua, once for each run of the script.
local ARGS, AT, RULES, CLOCK, NOW, UTC, LEARNING, AUDITED

local UNIT = 60000000
local DEEPEST_DEBT = -30000000 * UNIT

local function new_bucket(capacity, now, careful)
  local full = capacity * UNIT
  -- A store that has lost its data does not know what was taken of late: it begins with a quarter.
  return {l = careful and math.floor(full / 4) or full, u = now, e = now}
end

local function refill(bucket, rate, capacity, now)
  local full = capacity * UNIT
  if bucket.l < full and now > bucket.u then
    bucket.l = math.min(full, bucket.l + (now - bucket.u) * rate)
    if bucket.l == full then bucket.e = bucket.e + 1 end
  end
  bucket.u = math.max(bucket.u, now)
end

local function remaining(bucket)
  return math.floor(bucket.l / UNIT)
end

local function wait_for(bucket, rate, units)
  local missing = units * UNIT - bucket.l
  if missing <= 0 then return 0 end
  local wait = math.floor(missing / rate)
  if wait * rate < missing then wait = wait + 1 end
  return wait
end

local function take(bucket, units)
  bucket.l = math.max(DEEPEST_DEBT, bucket.l - units * UNIT)
  return bucket.e
end

local function add(bucket, capacity, parts)
  bucket.l = math.min(capacity * UNIT, bucket.l + parts)
end

local function refund(bucket, capacity, epoch, units)
  if epoch == bucket.e then add(bucket, capacity, units * UNIT) end
end

local function lower(bucket, units)
  bucket.l = math.min(bucket.l, math.max(0, units) * UNIT)
end

local function resize(bucket, old_rate, old_capacity, capacity, now)
  refill(bucket, old_rate, old_capacity, now)
  local was_full = bucket.l >= old_capacity * UNIT
  if bucket.l >= capacity * UNIT and not was_full then bucket.e = bucket.e + 1 end
  bucket.l = math.min(bucket.l, capacity * UNIT)
end
