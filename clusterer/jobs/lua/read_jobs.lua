-- Read the hashes of jobs, but none that is large.
-- KEYS  job ...
-- ARGV  most fields, most bytes
-- reply for each job {'hash', field, value, ...}, or {'large'}, or {type of the key: 'none', 'list', ...}
local replies = {}
for i, job in ipairs(KEYS) do
  local kind = redis.call('TYPE', job).ok
  local reply = {kind}
  if kind == 'hash' then
    local bytes = 0
    if redis.call('HLEN', job) > tonumber(ARGV[1]) then
      bytes = tonumber(ARGV[2]) + 1
    else
      for _, field in ipairs(redis.call('HKEYS', job)) do
        bytes = bytes + #field + redis.call('HSTRLEN', job, field)
      end
    end
    if bytes > tonumber(ARGV[2]) then
      reply = {'large'}
    else
      for _, text in ipairs(redis.call('HGETALL', job)) do
        reply[#reply + 1] = text
      end
    end
  end
  replies[i] = reply
end
return replies
