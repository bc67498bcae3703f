-- Move junk jobs from a list or sorted set to the queue's junk list, the newest first; count them.
-- KEYS  source, junk list, junk totals, job whose hash belongs to the queue ...
-- ARGV  most entries, seconds to keep, member, entry, member, entry, ...
-- reply {members moved, entry that the list has no room for, ...}
local source, junk, totals = KEYS[1], KEYS[2], KEYS[3]
local clock = redis.call('TIME')
local now_ms = string.format('%d%03d', clock[1], math.floor(clock[2] / 1000))
local kind = redis.call('TYPE', source).ok
local moved = 0
for i = 3, #ARGV, 2 do
  local removed = 0
  if kind == 'list' then
    removed = redis.call('LREM', source, 1, ARGV[i])
  elseif kind == 'zset' then
    removed = redis.call('ZREM', source, ARGV[i])
  end
  if removed == 1 then
    moved = moved + 1
    -- A junk list of another type must not keep the junk in the queue.
    redis.pcall('LPUSH', junk, now_ms .. ' ' .. ARGV[i + 1])
  end
end
local reply = {moved}
if moved == 0 then
  return reply
end
local over = redis.pcall('LRANGE', junk, ARGV[1], -1)
if not over.err then
  for _, entry in ipairs(over) do
    reply[#reply + 1] = entry
  end
  redis.call('LTRIM', junk, 0, ARGV[1] - 1)
end
redis.pcall('HSETNX', totals, 'since_ms', now_ms)
redis.pcall('HSET', totals, 'last_ms', now_ms)
redis.pcall('HINCRBY', totals, 'count', moved)
redis.call('EXPIRE', junk, ARGV[2])
redis.call('EXPIRE', totals, ARGV[2])
for i = 4, #KEYS do
  if redis.call('TTL', KEYS[i]) == -1 then
    redis.call('EXPIRE', KEYS[i], ARGV[2])
  end
end
return reply
