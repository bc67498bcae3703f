-- Read the fences of a sender and how far all its deliveries have got. The holder of the lease
-- goes on from there, so fences that are down are forgotten, and hold the log no more.
-- KEYS  lease, fence, cursor, position
-- ARGV  token, fence ms
-- reply {destinations whose fence is up, cursor, position (flat hashes)}
-- include fences
local now = redis_ms()
if redis.call('GET', KEYS[1]) == ARGV[1] then
  forget_down(KEYS[2], now, tonumber(ARGV[2]))
end
local up = {}
local fences = redis.call('HGETALL', KEYS[2])
for i = 1, #fences, 2 do
  if stands(fences[i + 1], now, tonumber(ARGV[2])) then
    up[#up + 1] = fences[i]
  end
end
return {up, redis.call('HGETALL', KEYS[3]), redis.call('HGETALL', KEYS[4])}
