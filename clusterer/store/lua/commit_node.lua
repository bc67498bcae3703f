-- Replace one node if nobody changed it since it was read.
-- KEYS  node, version, due, dirty, events
-- ARGV  version read, machine_id, due ms ('' = never), cap of the events stream,
--       number of hash fields, field, value, ..., then the audit event's field, value, ...
-- reply the node's new version, 0 if it was changed or removed in between
if redis.call('HGET', KEYS[1], 'version') ~= ARGV[1] then
  return 0
end
local version = redis.call('INCR', KEYS[2])
local fields = tonumber(ARGV[5])
for i = 6, 5 + fields * 2, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
end
redis.call('HSET', KEYS[1], 'version', version)
if ARGV[3] == '' then
  redis.call('ZREM', KEYS[3], ARGV[2])
else
  redis.call('ZADD', KEYS[3], ARGV[3], ARGV[2])
end
redis.call('ZADD', KEYS[4], version, ARGV[2])
local event = {'XADD', KEYS[5], 'MAXLEN', '~', ARGV[4], '*', 'version', version}
for i = 6 + fields * 2, #ARGV do
  event[#event + 1] = ARGV[i]
end
redis.call(unpack(event))
return version
