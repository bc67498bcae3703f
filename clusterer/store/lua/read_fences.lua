-- Read the fences of a sender and how far all its deliveries have got. The holder of the lease
-- goes on from there, so fences that are down are forgotten, and hold the log no more.
-- KEYS  lease, fence, cursor, position
-- ARGV  token, fence ms
-- reply {destinations whose fence is up, cursor, position (flat hashes)}
-- include fences
local up, down = {}, {}
local now = redis_ms()
local fences = redis.call('HGETALL', KEYS[2])
for i = 1, #fences, 2 do
  local found = stands(fences[i + 1], now, tonumber(ARGV[2])) and up or down
  found[#found + 1] = fences[i]
end
if redis.call('GET', KEYS[1]) == ARGV[1] then
  for _, field in ipairs(down) do
    redis.call('HDEL', KEYS[2], field)
  end
end
return {up, redis.call('HGETALL', KEYS[3]), redis.call('HGETALL', KEYS[4])}
