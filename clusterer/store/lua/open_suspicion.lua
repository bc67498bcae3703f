-- Open a suspicion of a node that is still as it was read, and ask the first probers.
-- KEYS  node, suspicions, path events, probers, then the rings of the asked probers
-- ARGV  version read, machine_id, ms until a suspicion is void, name of the cluster,
--       suspicion without its time, cap of the stream of path events, then the machine_id of each
--       asked prober, then the event's field, value, ... of the path whose attempt failed
--       (none: there is no such event)
-- reply {unusable keys that were replaced}, 0 the node changed, 1 a suspicion is open,
--       2 the probers are asked
-- include healing
-- include paths
-- include suspicion
if redis.call('HGET', KEYS[1], 'version') ~= ARGV[1] then
  return {replaced, 0}
end
heal(KEYS[2], 'hash')
record_event(KEYS[3], ARGV[6], #KEYS + 3, #ARGV)
local now = redis_ms()
local found = redis.call('HGET', KEYS[2], ARGV[2])
if is_open(found, ARGV[1], now, tonumber(ARGV[3])) then
  return {replaced, 1}
end
redis.call('HSET', KEYS[2], ARGV[2], string.format('%.0f %s', now, ARGV[5]))
for at = 5, #KEYS do
  -- The ring of a prober that has left since the caller looked would stay for ever.
  if redis.call('ZSCORE', KEYS[4], ARGV[at + 2]) then
    add_entry(KEYS[at], 'MAXLEN', 1, '*', 'cluster', ARGV[4], 'machine_id', ARGV[2])
  end
end
return {replaced, 2}
