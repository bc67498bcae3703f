-- Ask an instance to mirror what it receives, for a while; it learns of it with its next flush.
-- KEYS  modules, tail
-- ARGV  ms for which it is asked
-- reply {1 if the instance is there else 0, id of the mirror's last entry}
if redis.call('HEXISTS', KEYS[1], 'run') == 0 then
  return {0, '0-0'}
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], 'tail', string.format('%.0f', now + tonumber(ARGV[1])))
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
return {1, last[1] and last[1][1] or '0-0'}
