-- Take or renew the lease of a host's prober, and note in each cluster that it is present.
-- KEYS  lease, then for each cluster: probers, nodes
-- ARGV  token, lease ms, machine_id of the prober
-- reply nil if another process of the host has the lease; else {Redis ms, {keys of a wrong type
--       that were replaced}}
-- include healing
heal(KEYS[1], 'string')
local holder, left = redis.call('GET', KEYS[1]), redis.call('PTTL', KEYS[1])
if holder and holder ~= ARGV[1] and left >= 0 and left <= tonumber(ARGV[2]) then
  return false
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
local now = redis_ms()
for at = 2, #KEYS, 2 do
  if redis.call('EXISTS', KEYS[at + 1]) == 1 then
    heal(KEYS[at], 'zset')
    redis.call('ZADD', KEYS[at], string.format('%.0f', now), ARGV[3])
  end
end
return {now, replaced}
