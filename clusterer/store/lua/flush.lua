-- Write the times at which nodes were last seen, and the heartbeat of the instance.
-- A node without a clock (muted, removed) gets none here. After a gap in the heartbeats all clocks
-- restart: a node may have been silent, or the instance may not have listened.
-- Runs four times a second per instance: only the cost of the usual case matters.
-- KEYS  modules, notices, instances, then one last_seen set per registration
-- ARGV  machine_id of the instance, token of the run, ms since the instance stopped looking,
--       longest gap ms, id of the last notice read, most notices to return,
--       ms without a flush after which another run is gone,
--       then per last_seen sets a JSON list: ms since seen, machine_id, ...
-- reply {state, Redis ms, notices, ms for which a capture is requested, keys that hold another
--       type and last_seen sets that are empty, ...}; state: 1 noted, 0 nothing is registered here
--       (Redis lost its data, or another run began later and is gone), -1 another run of this
--       instance began later
-- include clocks
-- include time
-- include unusable
local known = redis.call('HMGET', KEYS[1], 'run', 'heartbeat', 'notified', 'tail', 'begun')
local now = redis_ms()
local last = tonumber(known[2] or '')  -- nil also for a value that is no number
if known[1] ~= ARGV[2] then
  local since = last or tonumber(known[5] or '') or now
  local lives = known[1] and now - since < tonumber(ARGV[7])
  return {lives and -1 or 0, 0, {}, 0}
end
local heartbeat = now - tonumber(ARGV[3])
local gap = last and math.abs(heartbeat - last)
local restart = not gap or not (gap <= tonumber(ARGV[4]))
for i = 4, #KEYS do
  if try('ZCARD', KEYS[i]) == 0 then
    unusable[#unusable + 1] = KEYS[i]
  elseif restart then
    start_clocks(try, KEYS[i], try('ZRANGE', KEYS[i], 0, -1) or {}, now)
  else
    local last_seen = cjson.decode(ARGV[4 + i])
    for first = 1, #last_seen, 4000 do
      local last = math.min(first + 3999, #last_seen)
      for at = first, last, 2 do
        last_seen[at] = now - last_seen[at]
      end
      try('ZADD', KEYS[i], 'XX', 'GT', unpack(last_seen, first, last))
    end
  end
end
try('SADD', KEYS[3], ARGV[1])  -- Redis may have lost this member since the run began
redis.call('HSET', KEYS[1], 'heartbeat', string.format('%.0f', heartbeat))
local tailed = math.max(0, (tonumber(known[4] or '') or 0) - now)
local notices = {}
if known[3] and known[3] ~= ARGV[5] then
  notices = try('XRANGE', KEYS[2], '(' .. ARGV[5], '+', 'COUNT', ARGV[6]) or {}
end
return {1, now, notices, tailed, unpack(unusable)}
