-- Take the nodes that are due and hide them from other jobs for a while.
-- KEYS  due
-- ARGV  hide ms, limit
-- reply machine_ids
-- include time
local now = redis_ms()
local ids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[2])
for _, id in ipairs(ids) do
  redis.call('ZADD', KEYS[1], now + tonumber(ARGV[1]), id)
end
return ids
