-- Budgets of tenants, by day and by month of UTC; the rules are those of services/limiter/budget.py. g = {n = the period's number, s = spent, r = reserved,
-- x = unreconciled}, all in micro-USD.

local DAY = 86400000000

-- Days since 1970 to months since year 0 and back, by counting years from March (H. Hinnant, "chrono-compatible low-level date algorithms").
local function month_of(days)
  local z = days + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local month = mp < 10 and mp + 3 or mp - 9
  local year = yoe + era * 400 + (month <= 2 and 1 or 0)
  return year * 12 + month - 1
end

local function month_start(number)
  local year, month = math.floor(number / 12), number % 12 + 1
  local y = month <= 2 and year - 1 or year
  local era = math.floor(y / 400)
  local yoe = y - era * 400
  local doy = math.floor((153 * (month > 2 and month - 3 or month + 9) + 2) / 5)
  local doe = yoe * 365 + math.floor(yoe / 4) - math.floor(yoe / 100) + doy
  return (era * 146097 + doe - 719468) * DAY
end

local PERIODS = {
  {name = 'day', key = 'd', number = function(utc) return math.floor(utc / DAY) end, start = function(number) return number * DAY end},
  {name = 'month', key = 'm', number = function(utc) return month_of(math.floor(utc / DAY)) end, start = month_start},
}

local function roll(budget, period, utc)
  local number = period.number(utc)
  if number > budget.n then budget.n, budget.s, budget.r, budget.x = number, 0, 0, 0 end
end

-- The budgets that a call belongs to, if its period is still the current one: p = the numbers at its grant, by the period's key.
local function each_budget(state, p, change)
  for _, period in ipairs(PERIODS) do
    local budget = state.b[period.key]
    if budget and p[period.key] == budget.n then change(budget) end
  end
end
