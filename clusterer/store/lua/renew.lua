-- Renew leases. The script takes an expired lease again if no worker has claimed the log since.
-- KEYS  the counters of all senders' records of paths, then lease, counters ...
-- ARGV  token, lease ms, then for each lease the number of the claim ('' = do not take it again)
-- reply {for each lease 1, 0 if another worker, or no worker, has the lease; the counters of the
--       records (flat hash, none where the key has a wrong type); Redis ms}
-- include guards
local held = {}
for i = 2, #KEYS, 2 do
  local at = i / 2
  local found, number = redis.pcall('GET', KEYS[i]), ARGV[at + 2]
  held[at] = 0
  if found == ARGV[1]
    or (found == false and number ~= '' and redis.pcall('HGET', KEYS[i + 1], 'claims') == number)
  then
    redis.call('SET', KEYS[i], ARGV[1], 'PX', ARGV[2])
    held[at] = 1
  end
end
local counters = redis.pcall('HGETALL', KEYS[1])
return {held, counters.err and {} or counters, redis_ms()}
