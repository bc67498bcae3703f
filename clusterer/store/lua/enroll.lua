-- Follow a cluster's nodes: start the clocks of nodes that were seen for the first time, and delete
-- the clocks of nodes that are gone.
-- KEYS  last_seen, muted
-- ARGV  JSON list of machine_ids that were seen, JSON list of those that are gone
-- reply nothing; the script skips keys of another type
-- include time
local now = redis_ms()
for _, id in ipairs(cjson.decode(ARGV[1])) do
  local muted = redis.pcall('ZSCORE', KEYS[2], id)
  if not muted or type(muted) == 'table' then
    redis.pcall('ZADD', KEYS[1], 'NX', now, id)
  end
end
for _, id in ipairs(cjson.decode(ARGV[2])) do
  redis.pcall('ZREM', KEYS[1], id)
  redis.pcall('ZREM', KEYS[2], id)
end
