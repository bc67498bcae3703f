-- Register a module of an instance: no node is muted. The clocks of nodes that an earlier run saw,
-- and that still belong to the cluster, restart now; a node that was never seen has no clock.
-- KEYS  modules, last_seen, muted, registrations
-- ARGV  token of the run, registration, timeout ms (0 = never), JSON list of machine_ids whose
--       clocks start in any case, JSON list of the cluster's machine_ids
-- reply 1, 0 if this run is not the instance's (Redis lost its data, or another run began)
-- include clocks
-- include time
if redis.call('HGET', KEYS[1], 'run') ~= ARGV[1] then
  return 0
end
local now = redis_ms()
local ids, chosen, members = {}, {}, {}
local function choose(id)
  if not chosen[id] then
    chosen[id] = true
    ids[#ids + 1] = id
  end
end
for _, id in ipairs(cjson.decode(ARGV[4])) do
  choose(string.format('%.0f', id))
end
for _, id in ipairs(cjson.decode(ARGV[5])) do
  members[string.format('%.0f', id)] = true
end
for at = 2, 3 do
  local known = redis.pcall('ZRANGE', KEYS[at], 0, -1)
  for _, id in ipairs(known.err and {} or known) do
    if members[id] then
      choose(id)
    end
  end
end
redis.call('DEL', KEYS[2], KEYS[3])
redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
redis.pcall('INCR', KEYS[4])  -- of another type: the timeout job lists all registrations each time
start_clocks(redis.call, KEYS[2], ids, now)
return 1
