-- Record deliveries, and renew the lease, if this worker still holds it.
-- KEYS  lease, committed, committed_count, stats, log, closing
-- ARGV  token, lease ms, first sequence still needed ('' = trim nothing), number of moves,
--       number of rests, then for each move field, sequence, n (n '' = unknown), for each rest
--       sequence, n, skipped, lost, number of fields, field ..., then counter, increment ...
--       (increment 'now' = set the counter to Redis ms)
-- reply 1, 0 if another worker has the lease, or no worker has it
-- include guards
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
local at, committed, counts = 6, {}, {}
-- All fields of a hash in one call, or a few: each call costs more than a field.
local function set(hash, pairs, limit)
  if #pairs > limit then
    redis.call('HSET', hash, unpack(pairs))
    return {}
  end
  return pairs
end
for _ = 1, tonumber(ARGV[4]) do
  committed[#committed + 1], committed[#committed + 2] = ARGV[at], ARGV[at + 1]
  if ARGV[at + 2] ~= '' then
    counts[#counts + 1], counts[#counts + 2] = ARGV[at], ARGV[at + 2]
  end
  committed, counts = set(KEYS[2], committed, 1000), set(KEYS[3], counts, 1000)
  at = at + 3
end
-- A counter of many destinations, read and written in one call each.
local function add(fields, counter, increment)
  local names, values = {}, {}
  for i, field in ipairs(fields) do
    names[i] = field .. counter
  end
  for i, had in ipairs(increment ~= '0' and redis.call('HMGET', KEYS[4], unpack(names)) or {}) do
    if had and not string.match(had, '^%-?%d+$') then
      redis.call('HINCRBY', KEYS[4], names[i], increment)  -- raises the error of Redis
    end
    values[#values + 1] = names[i]
    values[#values + 1] = string.format('%.0f', (tonumber(had or 0)) + increment)
  end
  set(KEYS[4], values, 0)
end
for _ = 1, tonumber(ARGV[5]) do
  local sequence, n, skipped, lost = unpack(ARGV, at, at + 3)
  local last = at + 4 + tonumber(ARGV[at + 4])
  for first = at + 5, last, 500 do
    local fields = {unpack(ARGV, first, math.min(first + 499, last))}
    for _, field in ipairs(fields) do
      committed[#committed + 1], committed[#committed + 2] = field, sequence
      counts[#counts + 1], counts[#counts + 2] = field, n
      committed, counts = set(KEYS[2], committed, 1000), set(KEYS[3], counts, 1000)
    end
    add(fields, '/skipped', skipped)
    add(fields, '/lost', lost)
  end
  at = last + 1
end
set(KEYS[2], committed, 0)
set(KEYS[3], counts, 0)
count(KEYS[4], at, redis_ms())
if ARGV[3] ~= '' then
  redis.call('XTRIM', KEYS[5], 'MINID', '~', kept_from(KEYS[6], tonumber(ARGV[3])))
end
return 1
