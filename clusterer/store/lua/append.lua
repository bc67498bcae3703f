-- Append packets to a sender's log and see to it that somebody will deliver them.
-- KEYS  log, counters, pending, lease, wake, doorbell, queues
-- ARGV  sender, cluster_id, protocol, log_max_packets, queue, frame [, frame ...]
-- reply {sequence of the last packet, 1 if the caller must enqueue a delivery job}
local sender, cluster, protocol, limit = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local count = #ARGV - 5
local time = redis.call('TIME')
local ms = time[1] .. string.format('%03d', math.floor(time[2] / 1000))
local last = redis.call('HINCRBY', KEYS[2], 'sequence', count)
if last == count and redis.call('EXISTS', KEYS[1]) == 1 then
  -- The counters were deleted, the log was not: go on where it ends.
  local info = redis.call('XINFO', 'STREAM', KEYS[1])
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then
      last = redis.call('HINCRBY', KEYS[2], 'sequence', string.match(info[i + 1], '^%d+'))
    end
  end
end
local n = redis.call('HINCRBY', KEYS[2], cluster .. ':' .. protocol, count)
for i = 1, count do
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', limit,
    string.format('%.0f-%s', last - count + i, ms),
    'cluster', cluster, 'protocol', protocol,
    'n', string.format('%.0f', n - count + i), 'frame', ARGV[5 + i])
end
if redis.call('SADD', KEYS[3], sender) == 1 then
  redis.call('SADD', KEYS[7], ARGV[5])
  redis.call('XADD', KEYS[6], 'MAXLEN', 1, '*', 'sender', sender)
end
local enqueue = 0
if redis.call('EXISTS', KEYS[4]) == 0
  and redis.call('SET', KEYS[5], ms, 'NX', 'EX', 600) then
  enqueue = 1
end
return {last, enqueue}
