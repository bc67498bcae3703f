-- Note when nodes were last heard, and that the instance was listening until now.
-- A node without a clock (silenced, removed) gets none here. After a gap nobody knows who was
-- silent and who was not listened to: all clocks restart.
-- Runs four times a second per instance: what it does in the usual case is all that counts.
-- KEYS  modules, notices, then one heard set per registration
-- ARGV  token of the run, ms since the instance stopped looking, longest gap ms,
--       id of the last notice read, most notices to return,
--       ms without a flush after which another run is gone,
--       then per heard set a JSON list: ms since heard, machine_id, ...
-- reply {state, Redis ms, notices, ms for which somebody will tail}; state: 1 noted, 0 nothing is
--       registered here (Redis lost its data, or another run began later and is gone), -1 another
--       run of this instance began later
local known = redis.call('HMGET', KEYS[1], 'run', 'flushed_at', 'notified', 'tail', 'begun')
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if known[1] ~= ARGV[1] then
  local lives = known[1] and now - tonumber(known[2] or known[5] or now) < tonumber(ARGV[6])
  return {lives and -1 or 0, 0, {}, 0}
end
local flushed_at = now - tonumber(ARGV[2])
local gap = known[2] and math.abs(flushed_at - tonumber(known[2]))
local restart = not gap or gap > tonumber(ARGV[3])
for i = 3, #KEYS do
  if restart then
    local ids = redis.call('ZRANGE', KEYS[i], 0, -1)
    for first = 1, #ids, 2000 do
      local clocks = {}
      for at = first, math.min(first + 1999, #ids) do
        clocks[#clocks + 1] = now
        clocks[#clocks + 1] = ids[at]
      end
      redis.call('ZADD', KEYS[i], unpack(clocks))
    end
  else
    local heard = cjson.decode(ARGV[4 + i])
    for first = 1, #heard, 4000 do
      local last = math.min(first + 3999, #heard)
      for at = first, last, 2 do
        heard[at] = now - heard[at]
      end
      redis.call('ZADD', KEYS[i], 'XX', 'GT', unpack(heard, first, last))
    end
  end
end
redis.call('HSET', KEYS[1], 'flushed_at', string.format('%.0f', flushed_at))
local tailed = math.max(0, tonumber(known[4] or 0) - now)
if not known[3] or known[3] == ARGV[4] then
  return {1, now, {}, tailed}
end
return {1, now, redis.call('XRANGE', KEYS[2], '(' .. ARGV[4], '+', 'COUNT', ARGV[5]), tailed}
