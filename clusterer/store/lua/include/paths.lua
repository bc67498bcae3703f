-- Functions for scripts that write path records.
local function write_record(paths, field, record)
  if record == '' then
    redis.call('HDEL', paths, field)
  else
    redis.call('HSET', paths, field, record)
  end
end
-- Tell that a sender's records changed: by the time in microseconds, and by one more if the clock
-- was set back. No number is used twice, also after records were lost.
local function tell(counters, paths, sender)
  if redis.call('EXISTS', paths) == 0 then
    redis.call('HDEL', counters, sender)
    return
  end
  local counted = redis.call('HGET', counters, sender) or ''
  counted = #counted <= 16 and tonumber(string.match(counted, '^%d+$') or '') or 0
  local time = redis.call('TIME')
  local at = math.max(counted + 1, time[1] * 1000000 + time[2])
  redis.call('HSET', counters, sender, string.format('%.0f', at))
end
-- Add an event whose fields are ARGV[first] to ARGV[last] to a stream of path events.
local function record_event(stream, cap, first, last)
  if first <= last then
    add_entry(stream, 'MAXLEN', '~', cap, '*', unpack(ARGV, first, last))
  end
end
