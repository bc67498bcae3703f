-- Functions for scripts whose keys hold what is of use for some seconds only.
-- include time
local replaced = {}
-- Delete a key that holds another type than it has to, and name it in the reply.
local function heal(key, wanted)
  local kind = redis.call('TYPE', key).ok
  if kind ~= wanted and kind ~= 'none' then
    redis.call('DEL', key)
    replaced[#replaced + 1] = key
  end
end
-- Add an entry to a stream. A stream that has no further id begins again, and is named in the reply.
local function add_entry(stream, ...)
  heal(stream, 'stream')
  local reply = redis.pcall('XADD', stream, ...)
  if type(reply) ~= 'table' or not reply.err then
    return
  end
  if string.find(reply.err, 'exhausted', 1, true) then
    redis.call('DEL', stream)
    replaced[#replaced + 1] = stream
  end
  redis.call('XADD', stream, ...)
end
