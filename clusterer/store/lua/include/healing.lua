-- Functions for scripts whose keys hold what is of use for some seconds only.
local replaced = {}
-- Delete a key that holds another type than it has to, and name it in the reply.
local function heal(key, wanted)
  local kind = redis.call('TYPE', key).ok
  if kind ~= wanted and kind ~= 'none' then
    redis.call('DEL', key)
    replaced[#replaced + 1] = key
  end
end
local function redis_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
