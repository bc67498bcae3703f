-- Mute the nodes of one registration that were not seen in time; unmute nodes whose mute is over.
-- The script reads and changes in one step: a flush comes before or after the script.
-- KEYS  modules, last_seen, muted, notices
-- ARGV  registration, module, cluster_id, most nodes to judge at once, cap of the notices,
--       ms after which an instance without a heartbeat is gone
-- reply {machine_ids muted, machine_ids no longer muted, members of last_seen and of muted that are
--       no machine_ids, which the script skips, Redis ms before which there is no further verdict}
-- include time
local LOOK_MS = 5000  -- between two looks at an instance that is gone
local known = redis.call('HMGET', KEYS[1], 'heartbeat', ARGV[1])
local heartbeat, timeout = tonumber(known[1] or ''), tonumber(known[2] or '')
local now = redis_ms()
if not heartbeat or not timeout or timeout == 0 or now - heartbeat > tonumber(ARGV[6]) then
  -- After a pause all clocks of an instance restart.
  return {{}, {}, {}, {}, now + math.min(timeout or LOOK_MS, LOOK_MS)}
end
local till = string.format('%.0f', now + 2 * timeout)
-- No mute ends after this time; a mute with a later end began before the clock was set back.
local far = redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. till, '+inf', 'LIMIT', 0, ARGV[4])
for _, id in ipairs(far) do
  redis.call('ZADD', KEYS[3], till, id)
end
local function machines(members)
  local good, others = {}, {}
  for _, member in ipairs(members) do
    local into = string.match(member, '^[1-9]%d*$') and #member <= 10 and good or others
    into[#into + 1] = member
  end
  return good, others
end
local over, bad_muted = machines(
  redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, ARGV[4]))
for _, id in ipairs(over) do
  redis.call('ZADD', KEYS[2], now, id)
  redis.call('ZREM', KEYS[3], id)
end
local silent, bad_last_seen = machines(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf',
  '(' .. string.format('%.0f', heartbeat - timeout), 'LIMIT', 0, ARGV[4]))
local notice
for _, id in ipairs(silent) do
  -- The notice comes first: an error of its write must not leave a mute without a notice.
  notice = redis.call('XADD', KEYS[4], 'MAXLEN', '~', ARGV[5], '*', 'event', 'timeout',
    'registration', ARGV[1], 'module', ARGV[2], 'cluster', ARGV[3], 'machine_id', id,
    'muted_until', till)
  redis.call('ZADD', KEYS[3], till, id)
  redis.call('ZREM', KEYS[2], id)
end
if notice then
  redis.call('HSET', KEYS[1], 'notified', notice)
end
local next_look = now + timeout
for i, after in ipairs({timeout, 0}) do
  local first = redis.call('ZRANGE', KEYS[i + 1], 0, 0, 'WITHSCORES')[2]
  next_look = math.min(next_look, (tonumber(first or '') or next_look) + after)
end
return {silent, over, bad_last_seen, bad_muted, math.max(now, next_look)}
