-- Follow a cluster's nodes: start the clock of those that were heard for the first time, forget
-- those that are gone.
-- KEYS  heard, silenced
-- ARGV  JSON list of machine_ids that were heard, JSON list of those that are gone
-- reply nothing; sets of another type are left alone
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for _, id in ipairs(cjson.decode(ARGV[1])) do
  local silenced = redis.pcall('ZSCORE', KEYS[2], id)
  if not silenced or type(silenced) == 'table' then
    redis.pcall('ZADD', KEYS[1], 'NX', now, id)
  end
end
for _, id in ipairs(cjson.decode(ARGV[2])) do
  redis.pcall('ZREM', KEYS[1], id)
  redis.pcall('ZREM', KEYS[2], id)
end
