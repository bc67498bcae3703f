-- Give up the lease of a host's prober: it is present no more.
-- KEYS  lease, ring of the prober, then for each cluster the probers
-- ARGV  token, machine_id of the prober
-- reply 1, 0 if another process of the host has the lease
local holder = redis.pcall('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  return 0
end
redis.call('DEL', KEYS[1], KEYS[2])
for at = 3, #KEYS do
  redis.pcall('ZREM', KEYS[at], ARGV[2])
end
return 1
