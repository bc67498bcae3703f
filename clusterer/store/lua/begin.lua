-- Start a run of an instance: forget what earlier runs registered. The nodes that they saw are
-- kept for a day: a registration that is made again goes on with them.
-- KEYS  modules, instances, notices, then the last_seen and muted sets of earlier registrations
-- ARGV  machine_id of the instance, token of this run
-- reply id of the last notice, from which this run reads on
redis.call('DEL', KEYS[1])
for i = 4, #KEYS do
  redis.call('EXPIRE', KEYS[i], 86400)
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], 'run', ARGV[2], 'begun', string.format('%.0f', now))
-- The next flush names either of them, should it hold another type.
redis.pcall('SADD', KEYS[2], ARGV[1])
local last = redis.pcall('XREVRANGE', KEYS[3], '+', '-', 'COUNT', 1)
return not last.err and last[1] and last[1][1] or '0-0'
