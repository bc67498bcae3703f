-- Register a module of an instance: no node is silenced, the clock of every node starts now.
-- KEYS  modules, heard, silenced
-- ARGV  token of the run, registration, timeout ms (0 = never), JSON list of machine_ids
-- reply 1, 0 if this run is not the instance's (Redis lost its data, or another one began)
if redis.call('HGET', KEYS[1], 'run') ~= ARGV[1] then
  return 0
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('DEL', KEYS[2], KEYS[3])
redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
for _, id in ipairs(cjson.decode(ARGV[4])) do
  redis.call('ZADD', KEYS[2], now, id)
end
return 1
