-- Release the lease of a sender's log, and guard the connections that are still closing.
-- KEYS  lease, pending, waiting, counters, closing, log, handovers
-- ARGV  token, sender, sequence that every node which can take packets has reached,
--       1 if other nodes still wait for packets (replay), 1 to release also if the sender is pending,
--       guard ms, first sequence still needed,
--       then for each connection field, first sequence that may come back
-- reply 1 released, all is delivered; 2 released, the sender is pending; 0 kept: the log has more to
--       deliver, or a guard has ended that this worker has not read; -1 another worker, or no
--       worker, has the lease
-- include guards
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return -1
end
local tail = tonumber(redis.call('HGET', KEYS[4], 'sequence') or 0)
local delivered = tonumber(ARGV[3]) >= tail
local now = redis_ms()
for _, value in ipairs(redis.call('HVALS', KEYS[5])) do
  delivered = delivered and stands(value, now, tonumber(ARGV[6]))
end
if not delivered and ARGV[5] ~= '1' then
  return 0
end
if delivered then
  redis.call('SREM', KEYS[2], ARGV[2])
  if ARGV[4] == '1' then
    redis.call('SADD', KEYS[3], ARGV[2])
  end
end
redis.call('XTRIM', KEYS[6], 'MINID', kept_from(KEYS[5], tonumber(ARGV[7])))
for i = 8, #ARGV, 2 do
  redis.call('HSET', KEYS[5], ARGV[i], guard(now + tonumber(ARGV[6]), ARGV[1], ARGV[i + 1]))
  redis.call('SADD', KEYS[7], ARGV[2])
end
redis.call('DEL', KEYS[1])
return delivered and 1 or 2
