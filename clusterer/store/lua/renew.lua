-- Renew leases. The script takes an expired lease again if no worker has claimed the log since.
-- KEYS  lease, counters ...
-- ARGV  token, lease ms, then for each lease the number of the claim ('' = do not take it again)
-- reply for each lease 1, 0 if another worker, or no worker, has the lease
local held = {}
for i = 1, #KEYS, 2 do
  local at = (i + 1) / 2
  local found, number = redis.pcall('GET', KEYS[i]), ARGV[at + 2]
  held[at] = 0
  if found == ARGV[1]
    or (found == false and number ~= '' and redis.pcall('HGET', KEYS[i + 1], 'claims') == number)
  then
    redis.call('SET', KEYS[i], ARGV[1], 'PX', ARGV[2])
    held[at] = 1
  end
end
return held
