-- Functions for scripts that read fences. A fence's value is
-- '<expiry ms> <token> <first sequence that its worker may give back>'. Expiry 0: the worker has
-- taken the fence down and moved the cursor, and the holder of the lease has not read it yet.
local function redis_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
local function split_fence(value)
  local expiry, token, from = string.match(value or '', '^(%d+) (%S+) (%d+)$')
  if expiry then
    return expiry, token, from
  end
  return string.match(value or '', '^(%d+) (.*)$')
end
-- Whether the worker's connection may still be open. A fence that ends far in the future is from
-- before the clock was set back; deliveries.py knows that too.
local function stands(value, now, fence_ms)
  local expiry = tonumber((split_fence(value)))
  return expiry ~= nil and expiry >= now and expiry <= now + 5 * fence_ms
end
-- Forget the fences that are down: taken down, or their worker died while the connection closed,
-- or the clock was put back.
local function forget_down(fence, now, fence_ms)
  local fences = redis.call('HGETALL', fence)
  for i = 1, #fences, 2 do
    if not stands(fences[i + 1], now, fence_ms) then
      redis.call('HDEL', fence, fences[i])
    end
  end
end
-- The first sequence that the log must keep: `needed`, or what an unfinished hand-over may give
-- back. A fence without a sequence is from an older worker: everything stays.
local function kept_from(fence, needed)
  for _, value in ipairs(redis.call('HVALS', fence)) do
    local _, _, from = split_fence(value)
    needed = math.min(needed, tonumber(from) or 0)
  end
  return string.format('%.0f', needed)
end
-- Trim a log without a lease to what its cursors and fences still need.
local function trim_unleased(log, cursor, fence)
  local needed
  for _, at in ipairs(redis.call('HVALS', cursor)) do
    needed = math.min(needed or math.huge, tonumber(at) or 0)
  end
  if needed then
    redis.call('XTRIM', log, 'MINID', kept_from(fence, needed + 1))
  end
end
