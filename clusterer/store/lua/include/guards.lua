-- Functions for scripts that read or write closing guards. The value of a guard is
-- '<expiry ms> <token> <first sequence that its worker may return>'. Expiry 0: the worker has ended
-- the guard and moved the committed offset, which the holder of the lease has not read yet.
-- include time
local function split_guard(value)
  local expiry, token, from = string.match(value or '', '^(%d+) (%S+) (%d+)$')
  if expiry then
    return expiry, token, from
  end
  return string.match(value or '', '^(%d+) (.*)$')
end
local function guard(expiry, token, from)
  return string.format('%.0f %s %.0f', expiry, token, from)
end
-- Whether a destination has a guard of the worker with this token, which has not expired.
local function holds(closing, field, token, now)
  local expiry, holder = split_guard(redis.call('HGET', closing, field))
  return holder == token and tonumber(expiry) >= now
end
-- Whether the worker's connection may still be open. A guard that ends far in the future is from
-- before the clock was set back; deliveries.py knows that too.
local function stands(value, now, guard_ms)
  local expiry = tonumber((split_guard(value)))
  return expiry ~= nil and expiry >= now and expiry <= now + 5 * guard_ms
end
-- Delete the guards that have ended: the worker ended the guard or died, or the clock was set back.
local function forget_down(closing, now, guard_ms)
  local guards = redis.call('HGETALL', closing)
  for i = 1, #guards, 2 do
    if not stands(guards[i + 1], now, guard_ms) then
      redis.call('HDEL', closing, guards[i])
    end
  end
end
-- The first sequence that the log must keep: `needed`, or the first one that an unfinished hand-over
-- may return. A guard without a sequence is from an older worker: all entries stay.
local function kept_from(closing, needed)
  for _, value in ipairs(redis.call('HVALS', closing)) do
    local _, _, from = split_guard(value)
    needed = math.min(needed, tonumber(from) or 0)
  end
  return string.format('%.0f', needed)
end
-- Trim a log without a lease to the entries that its committed offsets and guards need.
local function trim_unleased(log, committed, closing)
  local needed
  for _, at in ipairs(redis.call('HVALS', committed)) do
    needed = math.min(needed or math.huge, tonumber(at) or 0)
  end
  if needed then
    redis.call('XTRIM', log, 'MINID', kept_from(closing, needed + 1))
  end
end
-- Add to the counters of deliveries: ARGV[first] and following are counter, increment, ...; the
-- increment 'now' sets the counter to `now`.
local function count(stats, first, now)
  for i = first, #ARGV, 2 do
    if ARGV[i + 1] == 'now' then
      redis.call('HSET', stats, ARGV[i], string.format('%.0f', now))
    else
      redis.call('HINCRBY', stats, ARGV[i], ARGV[i + 1])
    end
  end
end
