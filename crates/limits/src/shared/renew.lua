-- Calls that are under way still are.
--
-- KEYS: counters. ARGV: the time; how long they are under way without word, in milliseconds; for each counter, the name that the call
-- has there.
local lease = tonumber(ARGV[2])
for i = 1, #KEYS do
  redis.call('ZADD', KEYS[i], now + lease, ARGV[2 + i])
  redis.call('PEXPIRE', KEYS[i], 2 * lease)
end
return 1
