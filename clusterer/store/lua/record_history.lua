-- Append a sample of its traffic to the history of each node that exists.
-- A history of another type, or with times after now (the clock was set back), begins again.
-- KEYS  nodes, then the histories
-- ARGV  number of samples kept, ms until an unused history ends, number of fields, their names,
--       then for each history: machine_id and the values
-- reply the histories that held another type, replaced
-- include time
local replaced = {}
local length, ttl, fields = ARGV[1], ARGV[2], tonumber(ARGV[3])
local now = redis_ms()
local at = 4 + fields
local sample = {}
local function append(key)
  return redis.pcall('XADD', key, 'MAXLEN', length, '*', unpack(sample))
end
for place = 2, #KEYS do
  local key = KEYS[place]
  if redis.call('SISMEMBER', KEYS[1], ARGV[at]) == 1 then
    for field = 1, fields do
      sample[field * 2 - 1] = ARGV[3 + field]
      sample[field * 2] = ARGV[at + field]
    end
    local id = append(key)
    if type(id) == 'table' then
      replaced[#replaced + 1] = key
      redis.call('DEL', key)
      append(key)
    elseif tonumber(string.match(id, '^%d+')) > now + 1000 then
      redis.call('DEL', key)
      append(key)
    end
    redis.call('PEXPIRE', key, ttl)
  end
  at = at + fields + 1
end
return replaced
