-- Record what a sender's attempts to reach nodes showed, and say whether the nodes are suspected.
-- KEYS  counters of records, records of the sender, then for each observation:
--       node, suspicions, confirmed, path events
-- ARGV  sender, ms until a suspicion is void, cap of the streams of path events,
--       then for each observation: field, machine_id, generation, epoch, record as it was read,
--       record after it ('' = none), Redis ms at which the attempt began ('' = it worked), number of
--       the next arguments, the event's field, value, ... (none: the path's condition is the same)
-- reply {unusable keys that were replaced}, then for each observation {code, record}:
--       -1 node or record changed: nothing was written; 1 it worked, or confirmed since it began; 2 a
--       suspicion is open; 3 a suspicion is to be opened, which also adds the event; 4 the verdict
--       is not up: there is no event, as the verdict has one
-- include healing
-- include paths
-- include suspicion
local now = redis_ms()
local function code_of(keys, version, machine_id, began)
  if began == '' then
    return 1
  end
  heal(KEYS[keys + 1], 'hash')
  heal(KEYS[keys + 2], 'hash')
  local confirmed = redis.call('HGET', KEYS[keys + 2], machine_id) or ''
  local at = tonumber((string.match(confirmed, '^(%d+) %d+$')))
  if at and at >= tonumber(began) and at <= now then
    return 1
  end
  local suspicion = redis.call('HGET', KEYS[keys + 1], machine_id)
  return is_open(suspicion, version, now, tonumber(ARGV[2])) and 2 or 3
end
heal(KEYS[1], 'hash')
heal(KEYS[2], 'hash')
local reply, written, at = {replaced}, false, 4
for keys = 3, #KEYS, 4 do
  local field, machine_id, generation, epoch, read, record, began =
    unpack(ARGV, at, at + 6)
  local first, last = at + 8, at + 7 + ARGV[at + 7]
  at = last + 1
  local node = redis.pcall('HMGET', KEYS[keys], 'generation', 'epoch', 'state', 'version')
  local found = redis.call('HGET', KEYS[2], field) or ''
  -- An epoch that no reader takes for a number is not compared.
  local counted = tonumber(string.match(node[2] or '0', '^%d+$') or '')
  local same = not counted or counted > 2 ^ 53 or counted == tonumber(epoch)
  if node[1] ~= generation or not same or found ~= read then
    reply[#reply + 1] = {-1, found}
  else
    if record ~= found then
      write_record(KEYS[2], field, record)
      written = true
    end
    local code = node[3] == '1' and code_of(keys, node[4], machine_id, began) or 4
    if code < 3 then
      record_event(KEYS[keys + 3], ARGV[3], first, last)
    end
    reply[#reply + 1] = {code, record}
  end
end
if written then
  tell(KEYS[1], KEYS[2], ARGV[1])
end
return reply
