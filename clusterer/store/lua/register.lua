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
local ids = cjson.decode(ARGV[4])
for first = 1, #ids, 2000 do
  local clocks = {}
  for at = first, math.min(first + 1999, #ids) do
    clocks[#clocks + 1] = now
    clocks[#clocks + 1] = ids[at]
  end
  redis.call('ZADD', KEYS[2], unpack(clocks))
end
return 1
