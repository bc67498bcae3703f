-- Read the closing guards and the committed offsets of a sender. The holder of the lease continues
-- from these offsets: the script deletes guards that have ended, which then keep no entry any more.
-- KEYS  lease, closing, committed, committed_count
-- ARGV  token, guard ms
-- reply {destinations whose guard is up, committed, committed_count (flat hashes)}
-- include guards
local now = redis_ms()
if redis.call('GET', KEYS[1]) == ARGV[1] then
  forget_down(KEYS[2], now, tonumber(ARGV[2]))
end
local up = {}
local guards = redis.call('HGETALL', KEYS[2])
for i = 1, #guards, 2 do
  if stands(guards[i + 1], now, tonumber(ARGV[2])) then
    up[#up + 1] = guards[i]
  end
end
return {up, redis.call('HGETALL', KEYS[3]), redis.call('HGETALL', KEYS[4])}
