-- Bring nodes of one cluster in line with the table, if nobody changed the cluster since it was read.
-- KEYS  clusters, nodes, version, due, dirty, synced, events, then the node hashes touched
-- ARGV  1 JSON document: {name, expected, cap,
--         put = [{key, machine_id, added, keep, due, synced, fields = [..], event = [..]}],
--         remove = [{key, machine_id, event = [..]}],
--         mark = [{machine_id, synced}]}
--       'key' is an index into KEYS; 'added' asks for a new generation; 'keep' leaves what is not
--       yet written to the table marked as such; 'mark' only notes what the table says; lists are
--       flat pairs
-- reply the cluster's version, -1 if it was changed in between
local plan = cjson.decode(ARGV[1])
if (redis.call('GET', KEYS[3]) or '0') ~= plan.expected then
  return -1
end
local time = redis.call('TIME')
local now = time[1] .. string.format('%03d', math.floor(time[2] / 1000))
local version = tonumber(plan.expected)
local function record(event)
  redis.call('XADD', KEYS[7], 'MAXLEN', '~', plan.cap, '*', 'version', version, unpack(event))
end
local function says(machine_id, synced)
  redis.call('ZREM', KEYS[5], machine_id)
  redis.call('HSET', KEYS[6], machine_id, synced)
end
for _, item in ipairs(plan.remove) do
  version = redis.call('INCR', KEYS[3])
  redis.call('DEL', KEYS[item.key])
  redis.call('SREM', KEYS[2], item.machine_id)
  redis.call('ZREM', KEYS[4], item.machine_id)
  redis.call('ZREM', KEYS[5], item.machine_id)
  redis.call('HDEL', KEYS[6], item.machine_id)
  record(item.event)
end
for _, item in ipairs(plan.put) do
  version = redis.call('INCR', KEYS[3])
  redis.call('HSET', KEYS[item.key], 'version', version, unpack(item.fields))
  if item.added then
    redis.call('HSET', KEYS[item.key], 'generation', now)
  end
  redis.call('SADD', KEYS[2], item.machine_id)
  if item.due == '' then
    redis.call('ZREM', KEYS[4], item.machine_id)
  else
    redis.call('ZADD', KEYS[4], item.due, item.machine_id)
  end
  if not item.keep then
    says(item.machine_id, item.synced)
  end
  record(item.event)
end
for _, item in ipairs(plan.mark) do
  says(item.machine_id, item.synced)
end
if redis.call('SCARD', KEYS[2]) > 0 then
  redis.call('SADD', KEYS[1], plan.name)
else
  redis.call('SREM', KEYS[1], plan.name)
end
return version
