-- The time, the slots of each measure, and counters by slots. Put before each of the other scripts.
--
-- ARGV[1]: milliseconds since 1970; empty: by the server's clock, which is one for all gateways.
local now
if ARGV[1] == '' then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
else
  now = tonumber(ARGV[1])
end

local HOUR, DAY = 3600000, 86400000
-- sums beyond are not exact; nothing that a limit lets through comes near
local MOST = 9e15

-- The number of the month, by days since 1970. Years of this calendar begin in March, so that the leap day is their last.
local function month_of(days)
  local day = days + 719468
  local era = math.floor(day / 146097)
  local of_era = day - era * 146097
  local year = math.floor((of_era - math.floor(of_era / 1460) + math.floor(of_era / 36524)
    - math.floor(of_era / 146096)) / 365)
  local of_year = of_era - (365 * year + math.floor(year / 4) - math.floor(year / 100))
  local from_march = math.floor((5 * of_year + 2) / 153)
  local month = (from_march + 2) % 12
  return (year + era * 400 + (month < 2 and 1 or 0)) * 12 + month
end

-- The days since 1970 of the first of a month.
local function days_of(month)
  local from_march = (month + 10) % 12
  local year = math.floor(month / 12) - (month % 12 < 2 and 1 or 0)
  local era = math.floor(year / 400)
  local of_era = year - era * 400
  local of_year = math.floor((153 * from_march + 2) / 5)
  return era * 146097 + of_era * 365 + math.floor(of_era / 4) - math.floor(of_era / 100) + of_year - 719468
end

-- The slot of now, the oldest that counts, and how long a counter is kept that nobody adds to.
local function span(measure)
  if measure == 'spend-hour' then
    local slot = math.floor(now / HOUR)
    return slot, slot, 2 * HOUR
  elseif measure == 'spend-day' then
    local slot = math.floor(now / DAY)
    return slot, slot, 2 * DAY
  elseif measure == 'spend-month' then
    local slot = month_of(math.floor(now / DAY))
    return slot, slot, 62 * DAY
  end
  local slot = math.floor(now / 1000)
  return slot, slot - 60, 130000
end

-- After how many seconds a slot counts no more.
local function seconds_until_over(measure, slot)
  local over
  if measure == 'spend-hour' then over = (slot + 1) * HOUR
  elseif measure == 'spend-day' then over = (slot + 1) * DAY
  elseif measure == 'spend-month' then over = days_of(slot + 1) * DAY
  else over = (slot + 61) * 1000 end
  return math.max(1, math.ceil((over - now) / 1000))
end

local function add(key, slot, amount, life)
  redis.call('HINCRBY', key, slot, string.format('%.0f', amount))
  redis.call('PEXPIRE', key, life)
end

-- Brings a counter to the present: dates anew what is of its future, and forgets what counts no more, but for the newest of
-- that. What is counted, how often amounts were given another date ('e'), and the slots that count.
local function turn(key, slot, from, life)
  local all = redis.call('HGETALL', key)
  local counted, epoch, future, slots, old = 0, 0, 0, {}, nil
  for i = 1, #all, 2 do
    local field, amount = all[i], tonumber(all[i + 1])
    local at = tonumber(field)
    if field == 'e' then
      epoch = amount
    elseif at > slot then
      future = future + amount
      redis.call('HDEL', key, field)
    elseif at >= from then
      counted = counted + amount
      slots[#slots + 1] = {at, amount}
    elseif old == nil or at > old then
      if old ~= nil then redis.call('HDEL', key, old) end
      old = at
    else
      redis.call('HDEL', key, field)
    end
  end
  if future > 0 then
    add(key, slot, future, life)
    epoch = redis.call('HINCRBY', key, 'e', 1)
    counted = counted + future
    slots[#slots + 1] = {slot, future}
  end
  return counted, epoch, slots
end
