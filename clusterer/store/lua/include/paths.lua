-- Functions for scripts that write path records.
-- The record of a field; '' for none, and for a value that Path.parse rejects: the next one
-- replaces it.
local function record_of(paths, field)
  local found = redis.call('HGET', paths, field) or ''
  local valid = string.match(found, '^[12] %d+ %d+ %d+ %d+$')
    or string.match(found, '^[12] %d+ %d+ %d+ %d+ .')
  return valid and found or ''
end
local function write_record(paths, field, record)
  if record == '' then
    redis.call('HDEL', paths, field)
  else
    redis.call('HSET', paths, field, record)
  end
end
-- Tell that a sender's records changed. The number of a sender that had no record begins with the
-- time in microseconds: it has never been used before.
local function tell(counters, paths, sender)
  if redis.call('EXISTS', paths) == 0 then
    redis.call('HDEL', counters, sender)
    return
  end
  local counted = redis.call('HGET', counters, sender)
  if counted and string.match(counted, '^%d+$') and #counted <= 16 then
    redis.call('HINCRBY', counters, sender, 1)
    return
  end
  local time = redis.call('TIME')
  redis.call('HSET', counters, sender, string.format('%s%06d', time[1], time[2]))
end
-- Add an event whose fields are ARGV[first] to ARGV[last] to a stream of path events.
local function record_event(stream, cap, first, last)
  if first <= last then
    heal(stream, 'stream')
    redis.call('XADD', stream, 'MAXLEN', '~', cap, '*', unpack(ARGV, first, last))
  end
end
