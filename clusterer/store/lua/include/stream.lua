-- What Redis knows of a stream that exists, by name: `length`, `last-generated-id` and others.
local function stream_info(stream)
  local info = {}
  local flat = redis.call('XINFO', 'STREAM', stream)
  for i = 1, #flat, 2 do
    info[flat[i]] = flat[i + 1]
  end
  return info
end
