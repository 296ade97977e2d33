-- Charges all counters of a call, or none.
--
-- KEYS: a counter for each charge. ARGV: the time; the call's name; how long it is under way without word, in milliseconds; then for
-- each charge: measure, most, amount, and whether it can refuse (1).
-- Answer: 0, charge, counted, retry_after (-1: never), if one refuses; else 1, then slot and epoch of each charge, then charge,
-- counted and retry_after of each that would have refused.
local name, lease = ARGV[2], tonumber(ARGV[3])

local function charge(i)
  local at = 4 + (i - 1) * 4
  return ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), ARGV[at + 3] == '1'
end

local function retry_after(measure, slots, counted, room)
  if room < 0 then return -1 end
  if measure == 'concurrent' then return 1 end
  table.sort(slots, function(a, b) return a[1] < b[1] end)
  for _, slot in ipairs(slots) do
    counted = counted - slot[2]
    if counted <= room then return seconds_until_over(measure, slot[1]) end
  end
  return seconds_until_over(measure, (span(measure)))
end

local function is_worse(retry, than)
  if than == -1 then return false end
  return retry == -1 or retry > than
end

local earlier, counts, granted, would_refuse, worst = {}, {}, {1}, {}, nil
for i = 1, #KEYS do
  local measure, most, amount, holds = charge(i)
  local slot, from, life = span(measure)
  local counted, epoch, slots = 0, 0, {}
  if measure == 'concurrent' then
    redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', now)
    counted = redis.call('ZCARD', KEYS[i])
  else
    counted, epoch, slots = turn(KEYS[i], slot, from, life)
  end
  local before = earlier[KEYS[i]] or 0
  if counted + before + amount > most then
    local excess = {i - 1, counted, retry_after(measure, slots, counted, most - before - amount)}
    for j = 1, 3 do would_refuse[#would_refuse + 1] = excess[j] end
    if holds and (worst == nil or is_worse(excess[3], worst[3])) then worst = excess end
  end
  earlier[KEYS[i]] = before + amount
  counts[i] = counted + before
  granted[#granted + 1] = slot
  granted[#granted + 1] = epoch
end
if worst ~= nil then return {0, worst[1], worst[2], worst[3]} end

for i = 1, #KEYS do
  local measure, _, amount = charge(i)
  local slot, _, life = span(measure)
  if measure == 'concurrent' then
    redis.call('ZADD', KEYS[i], now + lease, name .. ':' .. (i - 1))
    redis.call('PEXPIRE', KEYS[i], 2 * lease)
  elseif amount > 0 and counts[i] + amount <= MOST then
    add(KEYS[i], slot, amount, life)
  end
end
for i = 1, #would_refuse do granted[#granted + 1] = would_refuse[i] end
return granted
