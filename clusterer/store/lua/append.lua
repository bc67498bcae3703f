-- Append packets to a sender's log and see to it that somebody will deliver them.
-- KEYS  log, counters, pending, lease, wake, doorbell, queues
-- ARGV  sender, cluster_id, protocol, log_max_packets, queue,
--       then for each entry: number of packets, their frames in one piece
-- reply {sequence of the last packet, 1 if the caller must enqueue a delivery job}
-- An entry's id is the sequence of its last packet; n is that packet's count in its cluster.
local cluster, protocol = ARGV[2], ARGV[3]
local count = 0
for i = 6, #ARGV, 2 do
  count = count + ARGV[i]
end
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
local n = redis.call('HINCRBY', KEYS[2], cluster .. ':' .. protocol, count) - count
if n == 0 then
  -- Nodes that were there by then have missed nothing: what they do not get is lost.
  redis.call('HSET', KEYS[2], 'since ' .. cluster .. ':' .. protocol, ms)
end
local sequence = last - count
local oldest = string.format('%.0f', math.max(last - ARGV[4] + 1, 0))
for i = 6, #ARGV, 2 do
  sequence = sequence + ARGV[i]
  n = n + ARGV[i]
  redis.call('XADD', KEYS[1], 'MINID', '~', oldest, string.format('%.0f-%s', sequence, ms),
    'cluster', cluster, 'protocol', protocol, 'n', n, 'packets', ARGV[i], 'frames', ARGV[i + 1])
end
if redis.call('EXISTS', KEYS[4]) == 1 then
  return {last, 0}  -- somebody drains the log; who holds the lease is pending until it is released
end
if redis.call('SADD', KEYS[3], ARGV[1]) == 1 then
  local hold = redis.call('PTTL', KEYS[5])
  if hold >= 0 and hold <= 500 then
    redis.call('DEL', KEYS[5])  -- a worker found only senders that it may not claim
  end
  redis.call('SADD', KEYS[7], ARGV[5])
  redis.call('XADD', KEYS[6], 'MAXLEN', 1, '*', 'sender', ARGV[1])
end
if redis.call('SET', KEYS[5], ms, 'NX', 'EX', 600) then
  return {last, 1}
end
return {last, 0}
