-- Follow a cluster's nodes: start the clock of new ones, forget those that are gone.
-- KEYS  heard, silenced
-- ARGV  JSON list of machine_ids that are new, JSON list of those that are gone
-- reply nothing
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for _, id in ipairs(cjson.decode(ARGV[1])) do
  if not redis.call('ZSCORE', KEYS[2], id) then
    redis.call('ZADD', KEYS[1], 'NX', now, id)
  end
end
for _, id in ipairs(cjson.decode(ARGV[2])) do
  redis.call('ZREM', KEYS[1], id)
  redis.call('ZREM', KEYS[2], id)
end
