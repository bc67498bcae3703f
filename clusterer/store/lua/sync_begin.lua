-- Take up one node that is not yet written to the table, and note the values that the job is about
-- to write: if the job dies in between, the next job does not take them for an operator's edit.
-- KEYS  node, dirty, synced
-- ARGV  machine_id
-- reply {} without a mark, else {mark, states that the table may have, node as flat pairs}
--       mark: version at which the node was marked; the second is a comma separated list of
--       'state no_tries last_attempt', the oldest first. Mark '' if these fields of the node are no
--       numbers: then the script notes nothing
local mark = redis.call('ZSCORE', KEYS[2], ARGV[1])
if not mark then
  return {}
end
local state = redis.call('HMGET', KEYS[1], 'state', 'no_tries', 'last_attempt')
if not state[1] then
  redis.call('ZREM', KEYS[2], ARGV[1])
  redis.call('HDEL', KEYS[3], ARGV[1])
  return {}
end
for i = 1, 3 do
  if not string.match(state[i] or '', '^%d+$') then
    return {'', '', redis.call('HGETALL', KEYS[1])}
  end
end
local wanted = table.concat(state, ' ')
local before = redis.call('HGET', KEYS[3], ARGV[1]) or ''
local known = {}
for item in string.gmatch(before, '[^,]+') do
  if item ~= wanted then
    known[#known + 1] = item
  end
end
-- While the database fails after some writes, the list must not grow for ever. The oldest state
-- stays: the table has it if no write ever succeeded.
if #known >= 8 then
  table.remove(known, 2)
end
known[#known + 1] = wanted
redis.call('HSET', KEYS[3], ARGV[1], table.concat(known, ','))
return {mark, before, redis.call('HGETALL', KEYS[1])}
