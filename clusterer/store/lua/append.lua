-- Append packets to a sender's log and see to it that somebody will deliver them.
-- KEYS  log, counters, pending, lease, wake, doorbell, queues
-- ARGV  sender, cluster_id, protocol, log_max_packets, queue, frame [, frame ...]
-- reply {sequence of the last packet, 1 if the caller must enqueue a delivery job}
local sender, cluster, protocol, limit = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local count = #ARGV - 5
local time = redis.call('TIME')
local ms = time[1] .. string.format('%03d', math.floor(time[2] / 1000))
local last = redis.call('HINCRBY', KEYS[2], 'sequence', count)
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
