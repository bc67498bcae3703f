-- Bring nodes of one cluster in line with the table, if the cluster's version is the one expected.
-- KEYS  clusters, nodes, version, due, dirty, synced, events, suspicions, confirmed, probers, ring of
--       the probers, then the node hashes touched
--       Keys of the cluster and nodes' hashes that hold another type are deleted first.
-- ARGV  1 JSON document: {name, expected, cap, version, repairs,
--         put = [{key, machine_id, added, epoch, keep, due, synced, fields = [..], event = [..]}],
--         remove = [{key, machine_id, event = [..]}],
--         mark = [{machine_id, synced}], drop = [{key, machine_id}], join = [machine_id],
--         due = [[ms, machine_id]]}
--       'key' is an index into KEYS; 'added' asks for a new generation, 'epoch' for a new epoch;
--       'keep' keeps the dirty mark of a state that the table does not have; 'mark' only notes the
--       state in the table; lists are flat pairs; 'version' is the first value of a lost counter ('' = not lost), 'repairs' says
--       whether the call repairs other keys than the nodes' hashes; 'drop' deletes the remains of a
--       node, 'join' and 'due' only add the missing entries of existing nodes
--       then pairs: index into KEYS, member or field to remove from this key
-- reply the cluster's version, -1 if the cluster changed in between
-- include healing
local plan = cjson.decode(ARGV[1])
for at, kind in ipairs({'set', 'string', 'zset', 'zset', 'hash', 'stream'}) do
  heal(KEYS[at + 1], kind)
end
local current = redis.call('GET', KEYS[3]) or '0'
if not string.match(current, '^%d+$') then
  current = '0'
  redis.call('SET', KEYS[3], current)
end
if current ~= plan.expected then
  return -1
end
if plan.version ~= '' then
  current = plan.version
  redis.call('SET', KEYS[3], current)
end
local now = string.format('%.0f', redis_ms())
local version = tonumber(current)
local function record(event)
  redis.call('XADD', KEYS[7], 'MAXLEN', '~', plan.cap, '*', 'version', version, unpack(event))
end
local function says(machine_id, synced)
  redis.call('ZREM', KEYS[5], machine_id)
  redis.call('HSET', KEYS[6], machine_id, synced)
end
local function forget_suspicion(machine_id, another)
  redis.pcall('HDEL', KEYS[8], machine_id)
  if another then
    redis.pcall('HDEL', KEYS[9], machine_id)
  end
end
for at = 2, #ARGV, 2 do
  local place = tonumber(ARGV[at])
  local remove = ({[2] = 'SREM', [4] = 'ZREM', [5] = 'ZREM', [6] = 'HDEL'})[place]
  redis.call(remove, KEYS[place], ARGV[at + 1])
end
local function delete(item)
  redis.call('DEL', KEYS[item.key])
  redis.call('SREM', KEYS[2], item.machine_id)
  redis.call('ZREM', KEYS[4], item.machine_id)
  redis.call('ZREM', KEYS[5], item.machine_id)
  redis.call('HDEL', KEYS[6], item.machine_id)
end
for _, item in ipairs(plan.drop) do
  delete(item)
end
for _, machine_id in ipairs(plan.join) do
  redis.call('SADD', KEYS[2], machine_id)
end
for _, item in ipairs(plan.due) do
  redis.call('ZADD', KEYS[4], item[1], item[2])
end
if plan.repairs then
  version = redis.call('INCR', KEYS[3])
end
for _, item in ipairs(plan.remove) do
  version = redis.call('INCR', KEYS[3])
  delete(item)
  forget_suspicion(item.machine_id, true)
  record(item.event)
end
for _, item in ipairs(plan.put) do
  version = redis.call('INCR', KEYS[3])
  heal(KEYS[item.key], 'hash')
  redis.call('HSET', KEYS[item.key], 'version', version, unpack(item.fields))
  if item.added then
    redis.call('HSET', KEYS[item.key], 'generation', now)
  end
  forget_suspicion(item.machine_id, item.added)
  if item.epoch then
    redis.call('HSET', KEYS[item.key], 'epoch', version)
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
if redis.call('SCARD', KEYS[2]) == 0 then
  redis.call('DEL', KEYS[8], KEYS[9], KEYS[10], KEYS[11])
end
-- A reload has replaced a set of clusters with a wrong type before this call.
redis.pcall(redis.call('SCARD', KEYS[2]) > 0 and 'SADD' or 'SREM', KEYS[1], plan.name)
return version
