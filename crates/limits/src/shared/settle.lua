-- A call is over: gives back what it did not use, and charges what it used beside.
--
-- KEYS: a counter for each charge. ARGV: the time; the call's name; then for each charge: measure, slot, epoch, what was charged, and what
-- it came to.
local name = ARGV[2]
for i = 1, #KEYS do
  local at = 3 + (i - 1) * 5
  local measure, slot, epoch = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  local amount, came_to = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  if measure == 'concurrent' then
    redis.call('ZREM', KEYS[i], name .. ':' .. (i - 1))
  elseif came_to > amount then
    local present, from, life = span(measure)
    local counted = turn(KEYS[i], present, from, life)
    if counted + came_to - amount <= MOST then add(KEYS[i], present, came_to - amount, life) end
  -- what was given another date since is not found again, and stays
  elseif came_to < amount and tonumber(redis.call('HGET', KEYS[i], 'e') or 0) == epoch then
    local there = redis.call('HGET', KEYS[i], slot)
    if there then
      local back = math.min(tonumber(there), amount - came_to)
      if redis.call('HINCRBY', KEYS[i], slot, string.format('%.0f', -back)) <= 0 then
        redis.call('HDEL', KEYS[i], slot)
      end
    end
  end
end
return 1
