-- Start a run of an instance: delete the registrations of earlier runs. The nodes that they saw stay
-- for a day: when this run registers a module again, their clocks restart.
-- KEYS  modules, instances, notices, registrations, then the last_seen and muted sets of earlier
--       registrations
-- ARGV  machine_id of the instance, token of this run
-- reply id of the last notice, from which this run reads on
-- include time
redis.call('DEL', KEYS[1])
for i = 5, #KEYS do
  redis.call('EXPIRE', KEYS[i], 86400)
end
redis.call('HSET', KEYS[1], 'run', ARGV[2], 'begun', string.format('%.0f', redis_ms()))
-- If one of these keys holds another type, the next flush names the key.
redis.pcall('SADD', KEYS[2], ARGV[1])
redis.pcall('INCR', KEYS[4])
local last = redis.pcall('XREVRANGE', KEYS[3], '+', '-', 'COUNT', 1)
return not last.err and last[1] and last[1][1] or '0-0'
