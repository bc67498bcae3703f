-- Rename the keys of an older format, unless an older process still uses them.
-- The script renames all keys in one step: no process writes an old name in between.
-- KEYS  format; further keys are found by SCAN
-- ARGV  format of today, ms after which an instance without a heartbeat has ended, most names
--       to return, then for each kind of key: old name, new name, type
-- reply {'newer', format} Redis has a newer format; {'current'} Redis has the format of today;
--       {'in use', key, worker, or ms since the heartbeat} nothing was changed;
--       {'renamed', number of keys, new keys that hold another type, old keys whose new name
--       exists already and which stay}
-- include time
local function read(command, ...)
  local reply = redis.pcall(command, ...)
  if type(reply) == 'table' and reply.err then
    return nil
  end
  return reply
end
local format = redis.call('TYPE', KEYS[1]).ok == 'string' and redis.call('GET', KEYS[1])
local number = format and string.match(format, '^%d+$') and tonumber(format)
if number and number >= tonumber(ARGV[1]) then
  return number > tonumber(ARGV[1]) and {'newer', format} or {'current'}
end
local kinds = {}
for i = 4, #ARGV, 3 do
  kinds[ARGV[i]] = {name = ARGV[i + 1], type = ARGV[i + 2]}
end
local old, leases, beats = {}, {}, {}
local function sort(key)
  local kind = string.match(key, '^clusterer:(%l+):')
  if kinds[kind] then
    old[#old + 1] = key
  elseif kind == 'lease' then
    leases[#leases + 1] = key
  elseif kind == 'modules' and read('HEXISTS', key, 'flushed_at') == 1 then
    beats[#beats + 1] = key
  end
end
local cursor = '0'
repeat
  local page = redis.call('SCAN', cursor, 'MATCH', 'clusterer:*', 'COUNT', 1000)
  cursor = page[1]
  for _, key in ipairs(page[2]) do
    sort(key)
  end
until cursor == '0'
local now = redis_ms()
-- Leases alone may belong to a process of today, after Redis has lost its data.
for _, key in ipairs((#old > 0 or #beats > 0) and leases or {}) do
  if redis.call('PTTL', key) > 0 then
    return {'in use', key, read('GET', key) or ''}
  end
end
for _, key in ipairs(beats) do
  local age = now - (tonumber(redis.call('HGET', key, 'flushed_at')) or 0)
  -- A time far in the future is from before the clock was set back.
  if math.abs(age) < tonumber(ARGV[2]) then
    return {'in use', key, math.max(0, age)}
  end
end
local wrong, kept, renamed = {}, {}, 0
local function note(list, key)
  if #list < tonumber(ARGV[3]) then
    list[#list + 1] = key
  end
end
for _, key in ipairs(old) do
  local kind, rest = string.match(key, '^clusterer:(%l+)(:.*)$')
  local name = 'clusterer:' .. kinds[kind].name .. rest
  local found = redis.call('TYPE', key).ok
  if found == 'none' then
    -- SCAN named the key twice, or the key has expired.
  elseif redis.call('RENAMENX', key, name) == 0 then
    note(kept, key)
  else
    renamed = renamed + 1
    if found ~= kinds[kind].type then
      note(wrong, name)
    end
  end
end
for _, key in ipairs(beats) do
  redis.call('HSETNX', key, 'heartbeat', redis.call('HGET', key, 'flushed_at'))
  redis.call('HDEL', key, 'flushed_at')
end
if redis.call('EXISTS', KEYS[1]) == 0 or number then
  redis.call('SET', KEYS[1], ARGV[1])
end
return {'renamed', renamed, wrong, kept}
