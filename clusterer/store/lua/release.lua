-- Give a sender's log back, fencing the connections that are still closing.
-- KEYS  lease, pending, waiting, counters, fence, log
-- ARGV  token, sender, sequence that every node which can take packets has reached,
--       1 if other nodes still wait for packets (replay), 1 to release although undrained,
--       fence ms, first sequence still needed, fenced field ...
-- reply 1 released and drained, 2 released and left pending, 0 kept: there is more to deliver,
--       -1 the lease is somebody else's or gone
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return -1
end
local tail = tonumber(redis.call('HGET', KEYS[4], 'sequence') or 0)
local drained = tonumber(ARGV[3]) >= tail
if not drained and ARGV[5] ~= '1' then
  return 0
end
if drained then
  redis.call('SREM', KEYS[2], ARGV[2])
  if ARGV[4] == '1' then
    redis.call('SADD', KEYS[3], ARGV[2])
  end
end
redis.call('XTRIM', KEYS[6], 'MINID', ARGV[7])
if #ARGV > 7 then
  local time = redis.call('TIME')
  local expiry = string.format('%.0f',
    time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[6]))
  for i = 8, #ARGV do
    redis.call('HSET', KEYS[5], ARGV[i], expiry .. ' ' .. ARGV[1])
  end
end
redis.call('DEL', KEYS[1])
return drained and 1 or 2
